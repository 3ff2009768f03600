"""Admission control: how many calls each door accepts, and how many of them are sent at once.

A door accepts a limited number of calls and sends a limited number of them to the pools at once:
a flood at one door waits at that door, and delays no other. How many are sent at once follows the
number of living workers, so a pool can grow under a load; the doors in use divide it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from redis import Redis

from pysplash.client.async_client import AsyncClient
from pysplash.client.bundling import Bundles
from pysplash.client.discovery import PoolFacts, Task
from pysplash.connections.refusals import is_unfit
from pysplash.errors import Busy, CallError, ConnectionFailed
from pysplash.log import logger

from .memory import DoorCounts, Memory

#: calls sent at once, per living worker; at least in all, and at least for one door
PER_WORKER, FEWEST, SHARE = 8, 8, 2
#: seconds between two rounds in which a crowded door sends calls while other doors are in use;
#: after a call that counts as several, twice as long for each further one
TICK = 0.005
#: small calls that may wait, for each that may be sent, before the door counts as crowded
CALM = 4
#: seconds after its last call for which a door counts as in use
USED = 1.0
#: bytes of a request for which a call counts as one more
HEAVY = 2**17
#: seconds between two looks at the pools
LOOK = 1.0
WORKING = ("starting", "idle", "busy", "waiting")

log = logger("gateway")


class DoorLimit:
    """The limits of one door: *most* calls accepted, and its part of those sent at once.

    A call with a large request counts as several, because a gateway holds a request in several
    forms at once; the largest is sent alone.
    """

    def __init__(self, dispatcher: Dispatcher, door: int, most: int) -> None:
        self._dispatcher = dispatcher
        self._door = door
        self._taken, self._used = dispatcher.counts.taken, dispatcher.counts.used
        self._most = most
        self._moving = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._ticking = False

    async def call(
        self,
        name: str,
        arguments: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
        *,
        size: int = 0,
    ) -> Any:
        """Call a task; raise :class:`Busy` at once if the door is full.

        *size* is how many bytes its request has.
        """
        async with self.admission(size):
            return await self._dispatcher.client.call(name, tuple(arguments), dict(named or {}))

    def bundles(self, task: str) -> Bundles:
        """Return what bundles calls of one *task* into jobs."""
        return Bundles(self._dispatcher.client, task, self._dispatcher.timeout)

    def notify(
        self, name: str, arguments: Sequence[Any], named: Mapping[str, Any], *, size: int = 0
    ) -> None:
        """Call a task whose answer nobody wants."""
        self._dispatcher.aside(self.call(name, arguments, named, size=size))

    def widen(self) -> None:
        """Wake the calls that may now be sent, in the order in which they came."""
        while self._waiting:
            turn, weight = self._waiting[0]
            if not turn.done():
                if not self._fits(weight):
                    return
                self._moving += weight
                turn.set_result(None)
            self._waiting.popleft()

    def is_full(self) -> bool:
        """Return whether the door accepts no more calls."""
        return self._taken[self._door] >= self._most

    def admission(self, size: int) -> Admission:
        """Return a block in which a call with *size* bytes may be made; entering it waits.

        Entering raises :class:`Busy` if the door is full.
        """
        return Admission(self, 1 + size // HEAVY)

    def step_in(self) -> bool:
        """Accept a small call if it may be sent now; return whether. :meth:`leave` ends it."""
        if self._waiting or self.is_full() or not self._fits(1):
            return False
        self._taken[self._door] += 1
        self._used[self._door] = time.monotonic()
        self._moving += 1
        return True

    async def enter(self, weight: int) -> None:
        """Accept a call and wait until it may be sent; raise :class:`Busy` if the door is full."""
        if self.is_full():
            raise Busy
        self._taken[self._door] += 1
        self._used[self._door] = time.monotonic()
        if not self._waiting and self._fits(weight):
            self._moving += weight
            return
        try:
            await self._wait(weight)
        except BaseException:
            self._taken[self._door] -= 1
            raise

    def leave(self, weight: int = 1) -> None:
        """Take note that a call has ended."""
        self._moving -= weight
        self._taken[self._door] -= 1
        if not self._waiting:
            return
        if self._is_calm(weight) or self._dispatcher.is_alone(self._door):
            self.widen()
        elif not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK * (2 * weight - 1), self._tick)

    def _is_calm(self, weight: int) -> bool:
        """Whether few calls wait, and the one that has ended was small."""
        return weight == 1 and len(self._waiting) <= CALM * self._dispatcher.part(self._door)

    def _tick(self) -> None:
        """Send the calls there is room for by now; the pause before leaves other doors CPU."""
        self._ticking = False
        self.widen()

    def _fits(self, weight: int) -> bool:
        return not self._moving or self._moving + weight <= self._dispatcher.part(self._door)

    async def _wait(self, weight: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, weight))
        if not self._ticking:
            self.widen()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._moving -= weight
            self.widen()
            raise


class Admission:
    """One call at a door: a block that begins when the call may be sent."""

    __slots__ = ("_limit", "_weight")

    def __init__(self, limit: DoorLimit, weight: int) -> None:
        self._limit = limit
        self._weight = weight

    async def __aenter__(self) -> None:
        await self._limit.enter(self._weight)

    async def __aexit__(self, *_: object) -> None:
        self._limit.leave(self._weight)


class Dispatcher:
    """Sends the calls of all doors by one client, and knows the living pools."""

    def __init__(
        self,
        url: str | None,
        connection: Redis | None,
        *,
        timeout: float,
        patience: float,
        counts: DoorCounts,
        memory: Memory,
    ) -> None:
        self.client = AsyncClient(
            url, connection=connection, timeout=timeout, patience=patience, plain=True
        )
        #: seconds a call may take
        self.timeout = timeout
        self.counts, self.memory = counts, memory
        self._width = FEWEST
        self._limits: list[DoorLimit] = []
        self._pools: list[PoolFacts] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    def door_limit(self, door: int, most: int) -> DoorLimit:
        """Return the limits of the door in this place among all."""
        self._limits.append(DoorLimit(self, door, most))
        return self._limits[-1]

    def part(self, door: int) -> int:
        """Return how many calls of one door may be sent at once."""
        return max(SHARE, self._width // (1 + self._others(door)))

    def is_alone(self, door: int) -> bool:
        """Return whether no other door is in use."""
        return self._others(door) == 0

    def _others(self, door: int) -> int:
        """Return how many other doors are in use."""
        taken, used, since = self.counts.taken, self.counts.used, time.monotonic() - USED
        in_use = [taken[each] > 0 or used[each] > since for each in range(self.counts.doors)]
        return sum(in_use) - in_use[door]

    def offer(self, name: str) -> Task | None:
        """Return the task *name* as the youngest pool publishes it, as far as is known."""
        offers = [(pool.started, task) for pool in self._pools if (task := pool.task(name))]
        return max(offers, key=lambda offer: offer[0])[1] if offers else None

    async def open(self) -> None:
        """Begin to watch the pools; Redis may be away.

        Raises :class:`ConnectionFailed` if it is there and lacks what calls need.
        """
        try:
            await self._look()
        except ConnectionFailed as error:
            log.debug("the pools cannot be read now: %s", error)
        except CallError as error:
            if is_unfit(error.__cause__ if isinstance(error.__cause__, Exception) else None):
                raise ConnectionFailed(str(error)) from error
            log.debug("the pools cannot be read now: %s", error)
        self._looking = asyncio.create_task(self._keep_looking())

    async def settle(self, seconds: float) -> None:
        """Wait for notifications that are being sent, then cancel them."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Leave Redis."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self.client.close()

    def aside(self, step: Coroutine[Any, Any, Any]) -> None:
        """Run *step* in the background; its errors are logged."""

        async def quietly() -> None:
            try:
                await step
            except CallError as error:
                log.info("a notification failed: %s", type(error).__name__)
            except ConnectionFailed as error:
                log.warning("a notification was lost: %s", error)

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._look()
            except (CallError, ConnectionFailed) as error:
                log.debug("the pools cannot be read now: %s", error)

    async def _look(self) -> None:
        self._pools = await self.client.pools()
        workers = sum((pool.state or {}).get(kind) or 0 for pool in self._pools for kind in WORKING)
        self._width = max(FEWEST, PER_WORKER * workers)
        for door_limit in self._limits:
            door_limit.widen()
