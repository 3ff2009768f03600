"""The exchange: calls of all doors of a gateway on their way to the pools, and back.

Each door has so many calls it takes on, and so many of them on their way at once: a flood at one
door waits at that door, in front of nobody else. What is on its way at once follows the number
of living workers, so a pool can grow under a load; the doors that are in use divide it, so no queue
hides one door's calls behind another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from redis import Redis

from pysplash.client.async_client import AsyncClient
from pysplash.client.bundling import Bundles
from pysplash.client.discovery import PoolFacts, Task
from pysplash.errors import Busy, CallError, ConnectionFailed
from pysplash.log import logger

from .memory import Commons, Memory

#: calls on their way at once, per living worker; the fewest, and the fewest of one door
PER_WORKER, FEWEST, SHARE = 8, 8, 2
#: seconds between two times that a door with a crowd lets calls go, while others are in use, after
#: a small one; after one that counts as more, twice as long for each more
TICK = 0.005
#: small calls that wait, for each that may be on its way, which are not a crowd yet
CALM = 4
#: seconds after its last call for which a door counts as in use
USED = 1.0
#: bytes of a request for which a call counts as one more
HEAVY = 2**17
#: seconds between two looks at the pools
LOOK = 1.0
WORKING = ("starting", "idle", "busy", "waiting")

log = logger("gateway")


class Lane:
    """One door's way: at most *most* calls taken on, its part of all on their way at once.

    A call whose request is large counts as several of those on their way, for a gateway keeps a
    request in many shapes at once; the largest goes alone.
    """

    def __init__(self, exchange: Exchange, door: int, most: int) -> None:
        self._exchange = exchange
        self._door = door
        self._taken, self._used = exchange.commons.taken, exchange.commons.used
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
        """Call a task; raise :class:`Busy` at once if the door has taken on all it may.

        *size* is how many bytes its request has.
        """
        async with self.turn(size):
            return await self._exchange.client.call(name, tuple(arguments), dict(named or {}))

    def bundles(self, task: str) -> Bundles:
        """Return the way of calls of one *task* that are made in turns."""
        return Bundles(self._exchange.client, task, self._exchange.timeout)

    def notify(
        self, name: str, arguments: Sequence[Any], named: Mapping[str, Any], *, size: int = 0
    ) -> None:
        """Call a task whose answer nobody wants."""
        self._exchange.aside(self.call(name, arguments, named, size=size))

    def widen(self) -> None:
        """Let go ahead who may, in the order in which they came."""
        while self._waiting:
            turn, weight = self._waiting[0]
            if not turn.done():
                if not self._fits(weight):
                    return
                self._moving += weight
                turn.set_result(None)
            self._waiting.popleft()

    def is_full(self) -> bool:
        """Return whether the door has taken on all it may."""
        return self._taken[self._door] >= self._most

    def turn(self, size: int) -> Turn:
        """Return the turn of a call with *size* bytes, which is waited for and ends with a block.

        Raises :class:`Busy` if the door has taken on all it may.
        """
        return Turn(self, 1 + size // HEAVY)

    def step_in(self) -> bool:
        """Take on a small call if its turn is now; return whether it is. It ends with a leave."""
        if self._waiting or self.is_full() or not self._fits(1):
            return False
        self._taken[self._door] += 1
        self._used[self._door] = time.monotonic()
        self._moving += 1
        return True

    async def enter(self, weight: int) -> None:
        """Take on a call, and wait for its turn; raise :class:`Busy` if the door has enough."""
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
        """End a call's turn."""
        self._moving -= weight
        self._taken[self._door] -= 1
        if not self._waiting:
            return
        if self._is_calm(weight) or self._exchange.is_alone(self._door):
            self.widen()
        elif not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK * (2 * weight - 1), self._tick)

    def _is_calm(self, weight: int) -> bool:
        """Whether those that wait are no crowd, nor follow upon a large call."""
        return weight == 1 and len(self._waiting) <= CALM * self._exchange.part(self._door)

    def _tick(self) -> None:
        """Let all go for which there is room by now; a crowd so leaves others some machine."""
        self._ticking = False
        self.widen()

    def _fits(self, weight: int) -> bool:
        return not self._moving or self._moving + weight <= self._exchange.part(self._door)

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


class Turn:
    """The turn of one call in a lane: a block that begins when it may go ahead."""

    __slots__ = ("_lane", "_weight")

    def __init__(self, lane: Lane, weight: int) -> None:
        self._lane = lane
        self._weight = weight

    async def __aenter__(self) -> None:
        await self._lane.enter(self._weight)

    async def __aexit__(self, *_: object) -> None:
        self._lane.leave(self._weight)


class Exchange:
    """The gateway's one client, and what it knows of the pools."""

    def __init__(
        self,
        url: str | None,
        connection: Redis | None,
        *,
        timeout: float,
        patience: float,
        commons: Commons,
        memory: Memory,
    ) -> None:
        self.client = AsyncClient(
            url, connection=connection, timeout=timeout, patience=patience, plain=True
        )
        #: seconds a call may take
        self.timeout = timeout
        self.commons, self.memory = commons, memory
        self._width = FEWEST
        self._lanes: list[Lane] = []
        self._pools: list[PoolFacts] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    def lane(self, door: int, most: int) -> Lane:
        """Return the way of the door in this place among all."""
        self._lanes.append(Lane(self, door, most))
        return self._lanes[-1]

    def part(self, door: int) -> int:
        """Return how many calls of one door may be on their way at once."""
        return max(SHARE, self._width // (1 + self._others(door)))

    def is_alone(self, door: int) -> bool:
        """Return whether no other door is in use."""
        return self._others(door) == 0

    def _others(self, door: int) -> int:
        """Return how many other doors are in use."""
        taken, used, since = self.commons.taken, self.commons.used, time.monotonic() - USED
        in_use = [taken[each] > 0 or used[each] > since for each in range(self.commons.doors)]
        return sum(in_use) - in_use[door]

    def offer(self, name: str) -> Task | None:
        """Return the task *name* as the youngest pool offers it, as far as is known."""
        offers = [(pool.started, task) for pool in self._pools if (task := pool.task(name))]
        return max(offers, key=lambda offer: offer[0])[1] if offers else None

    async def open(self) -> None:
        """Begin to look at the pools."""
        with contextlib.suppress(CallError, ConnectionFailed):
            await self._look()
        self._looking = asyncio.create_task(self._keep_looking())

    async def settle(self, seconds: float) -> None:
        """Wait for what nobody waits for, then give it up."""
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
        """Do *step* though nobody waits for it."""

        async def quietly() -> None:
            try:
                await step
            except CallError as error:
                log.info("a notification came to nothing: %s", type(error).__name__)
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
                log.debug("the pools are not known now: %s", error)

    async def _look(self) -> None:
        self._pools = await self.client.pools()
        workers = sum((pool.state or {}).get(kind) or 0 for pool in self._pools for kind in WORKING)
        self._width = max(FEWEST, PER_WORKER * workers)
        for lane in self._lanes:
            lane.widen()
