"""The exchange: calls of all doors of a gateway on their way to the pools, and back.

Each door has so many calls it takes on, and so many of them on their way at once: a flood at one
door waits at that door, in front of nobody else. What is on its way at once follows the number
of living workers, so a pool can grow under a load, yet no queue hides one door's calls behind
another's. All doors share one measure of bytes they hold.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from redis import Redis

from .async_client import AsyncClient
from .errors import Busy, CallError, ConnectionFailed
from .log import logger
from .presence import PoolFacts, Task

#: calls of one door that are on their way at once, per living worker; and the fewest
PER_WORKER, FEWEST = 4, 8
#: seconds between two looks at the pools
LOOK = 1.0
WORKING = ("starting", "idle", "busy", "waiting")

log = logger("gateway")


class Memory:
    """The bytes that peers may make a gateway hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, count: int) -> None:
        """Hold *count* bytes more; raise :class:`Busy` if that is too much."""
        if self.held + count > self._most:
            raise Busy
        self.held += count

    def keep(self, count: int) -> None:
        """Hold *count* bytes that are there already: they keep others from coming."""
        self.held += count

    def free(self, count: int) -> None:
        """Hold *count* bytes less."""
        self.held -= count


class Lane:
    """One door's way: at most *most* calls taken on, *width* of them on their way at once."""

    def __init__(self, exchange: Exchange, most: int) -> None:
        self._exchange = exchange
        self._most = most
        self._taken = 0
        self._moving = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def call(
        self, name: str, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a task; raise :class:`Busy` at once if the door has taken on all it may."""
        async with self._turn():
            return await self._exchange.client.call(name, tuple(arguments), dict(named or {}))

    def notify(self, name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Call a task whose answer nobody wants."""
        self._exchange.aside(self.call(name, arguments, named))

    def widen(self) -> None:
        """Let go ahead who may."""
        while self._waiting and self._moving < self._exchange.width:
            turn = self._waiting.popleft()
            if not turn.done():
                self._moving += 1
                turn.set_result(None)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._taken >= self._most:
            raise Busy
        self._taken += 1
        try:
            await self._wait()
            try:
                yield
            finally:
                self._moving -= 1
                self.widen()
        finally:
            self._taken -= 1

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.widen()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._moving -= 1
                self.widen()
            raise


class Exchange:
    """The gateway's one client, and what it knows of the pools."""

    def __init__(
        self,
        url: str | None,
        connection: Redis | None,
        *,
        timeout: float,
        patience: float,
        memory: int,
    ) -> None:
        self.client = AsyncClient(
            url, connection=connection, timeout=timeout, patience=patience, plain=True
        )
        self.memory = Memory(memory)
        self.width = FEWEST
        self._lanes: list[Lane] = []
        self._pools: list[PoolFacts] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    def lane(self, most: int) -> Lane:
        """Return a way for one more door."""
        self._lanes.append(Lane(self, most))
        return self._lanes[-1]

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
        self.width = max(FEWEST, PER_WORKER * workers)
        for lane in self._lanes:
            lane.widen()
