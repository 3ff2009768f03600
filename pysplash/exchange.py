"""The exchange: calls of all doors of a gateway on their way to the pools, and back.

Each door has so many calls it takes on, and so many of them on their way at once: a flood at one
door waits at that door, in front of nobody else. What is on its way at once follows the number
of living workers, so a pool can grow under a load; the doors that are in use divide it, so no queue
hides one door's calls behind another's. All doors share one measure of bytes they hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from redis import Redis

from .async_client import AsyncClient
from .commons import Commons
from .errors import Busy, CallError, ConnectionFailed
from .log import logger
from .presence import PoolFacts, Task

#: calls on their way at once, per living worker; the fewest, and the fewest of one door
PER_WORKER, FEWEST, SHARE = 8, 8, 2
#: seconds after its last call for which a door counts as in use
USED = 1.0
#: bytes of a request for which a call counts as one more
HEAVY = 2**17
#: seconds between two looks at the pools
LOOK = 1.0
WORKING = ("starting", "idle", "busy", "waiting")

log = logger("gateway")


class Memory:
    """The bytes that peers may make a gateway hold, *most* of them, in a share for each door.

    *kept* bytes of each share cannot be taken by another: a flood at one door leaves room at all.
    """

    def __init__(self, most: int, commons: Commons, kept: int = 0) -> None:
        self._most = most
        self._kept = kept
        self._held = commons.held

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return sum(self._held)

    def share(self, door: int) -> Share:
        """Return the share of the door in this place."""
        return Share(self, self._held, door)

    def room(self, door: int) -> int:
        """Return how many bytes more a door may hold; less than 0 if it holds too many."""
        kept = self._kept
        others = sum(max(kept, held) for held in self._held) - max(kept, self._held[door])
        return self._most - self._held[door] - others


class Share:
    """The bytes that the peers of one door make a gateway hold."""

    def __init__(self, memory: Memory, held: memoryview[int], door: int) -> None:
        self._memory = memory
        self._held = held
        self._door = door

    def take(self, count: int) -> None:
        """Hold *count* bytes more; raise :class:`Busy` if that is too much.

        It looks whether there was room after it has taken it, for another process may do the same:
        of two that want the last bytes at the same moment not both have them.
        """
        self.keep(count)
        if self._memory.room(self._door) < 0:
            self.free(count)
            raise Busy

    def keep(self, count: int) -> None:
        """Hold *count* bytes that are there already: they keep others from coming."""
        self._held[self._door] += count

    def free(self, count: int) -> None:
        """Hold *count* bytes less."""
        self._held[self._door] -= count


def kept(most: int, doors: int, limit: int) -> int:
    """Return what to keep of *most* bytes for each of *doors*: half of it, divided.

    Less where a request of *limit* bytes would not find room any more.
    """
    return min(most // (2 * doors), (most - limit) // max(1, doors - 1))


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
            return await self.ask(name, arguments, named)

    async def ask(
        self, name: str, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a task, in a turn."""
        return await self._exchange.client.call(name, tuple(arguments), dict(named or {}))

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

    def turn(self, size: int) -> Turn:
        """Return the turn of a call with *size* bytes, which is waited for and ends with a block.

        Raises :class:`Busy` if the door has taken on all it may.
        """
        return Turn(self, 1 + size // HEAVY)

    async def enter(self, weight: int) -> None:
        """Take on a call, and wait for its turn; raise :class:`Busy` if the door has enough."""
        if self._taken[self._door] >= self._most:
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

    def leave(self, weight: int) -> None:
        """End a call's turn."""
        self._moving -= weight
        self._taken[self._door] -= 1
        self.widen()

    def _fits(self, weight: int) -> bool:
        return not self._moving or self._moving + weight <= self._exchange.part(self._door)

    async def _wait(self, weight: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, weight))
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
        taken, used, since = self.commons.taken, self.commons.used, time.monotonic() - USED
        in_use = [taken[each] > 0 or used[each] > since for each in range(self.commons.doors)]
        return max(SHARE, self._width // (1 + sum(in_use) - in_use[door]))

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
