"""The client for asyncio: thousands of calls in flight over one connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from redis import Redis

from pysplash.connections.clients import address, from_url, portable
from pysplash.connections.environment import from_environment
from pysplash.connections.multiplexed import MultiplexedConnection
from pysplash.errors import CallTimeout, ConnectionFailed
from pysplash.jobs import bundles as parts
from pysplash.jobs.results import VANISHED, job_key

from .async_transport import Awaited
from .discovery import READ, PoolFacts, in_order
from .loop_sessions import LoopSession, LoopSessions
from .requests import CANCEL, CallRequest, Named, build, build_bundle, has_large
from .routing import PAUSE, TRIES, Route, Routes, not_taken
from .terms import (
    FAILURE_TTL,
    RESULT_TTL,
    Allowance,
    Terms,
    Timing,
    check_terms,
    check_timeout,
)

T = TypeVar("T")
#: calls enqueued at once
CHUNK = 500


class AsyncClient:
    """Calls tasks by name from asyncio: ``await client.add(5, 6)`` is 11.

    Its arguments and methods are :class:`~pysplash.Client`'s, with ``await`` before them. It holds
    one connection in each event loop in which it is used, however many calls are in flight; so it
    may be used in one ``asyncio.run`` after the other, by the loops of several threads, and after a
    fork. A call that is awaited and gets cancelled takes its job with it, unless
    *on_timeout* is ``"leave"``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        connection: Redis | None = None,
        timeout: float | None = None,
        overflow: float = 0.0,
        overflows: int = 0,
        on_timeout: str = "cancel",
        patience: float = 0.0,
        result_ttl: int = RESULT_TTL,
        failure_ttl: int = FAILURE_TTL,
        serializer: Any = None,
        plain: bool = False,
    ) -> None:
        self._terms = check_terms(
            Terms(
                timeout,
                overflow,
                overflows,
                on_timeout,
                patience,
                result_ttl,
                failure_ttl,
                serializer,
                plain,
            )
        )
        client = connection or (from_url(url) if url else from_environment())
        self._sessions = LoopSessions(portable(client), address(client))
        self._allowance = Allowance(overflow, overflows)
        self._routes = Routes(patience)

    # --- calling ---

    async def execute(
        self,
        name: str,
        /,
        *arguments: Any,
        timeout: float | None = None,
        on_timeout: str | None = None,
        **named: Any,
    ) -> Any:
        """Call the task *name* and return what it returns; as :meth:`Client.execute`."""
        return await self.call(name, arguments, named, timeout, on_timeout)

    async def call(
        self,
        name: str,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        timeout: float | None = None,
        on_timeout: str | None = None,
    ) -> Any:
        """Call the task *name*; as :meth:`execute`, for arguments that come from elsewhere."""
        began = time.monotonic()
        timing = Timing(name, self._terms, self._allowance, timeout, on_timeout, began)
        call = await self._submit(name, arguments, named, timing.ttl, timing.cancels)
        try:
            value = await call.result(timing.left(time.monotonic()))
        except CallTimeout:
            timing.ended(time.monotonic())
            if timing.cancels and await call.withdraw():
                return call.awaited.value()
            raise timing.error() from None
        except asyncio.CancelledError:
            if timing.cancels:
                call.drop()
            raise
        timing.ended(time.monotonic())
        return value

    async def submit(self, name: str, /, *arguments: Any, **named: Any) -> AsyncCall:
        """Enqueue a call of the task *name* and return its handle; all arguments are the task's."""
        return await self._submit(name, arguments, named)

    async def submit_together(self, name: str, payloads: Sequence[bytes], ttl: float) -> AsyncCall:
        """Enqueue calls of the task *name* as one job, with each of *payloads*; return its handle.

        Its result is a list: the seconds it took, and what each call answered. Not begun within
        *ttl* seconds, it is dropped.
        """
        make = partial(build_bundle, terms=self._terms, payloads=payloads, ttl=ttl)
        return await self._submit_made(name, make, has_large(payloads), True)

    async def map(
        self, name: str, /, *iterables: Iterable[Any], timeout: float | None = None
    ) -> list[Any]:
        """Call the task *name* once for each tuple of items; as :meth:`Client.map`."""
        soft = self._terms.timeout if timeout is None else check_timeout(timeout)
        started = time.monotonic()
        calls = await self.submit_many(name, *iterables)
        left = None if soft is None else max(0.0, soft - (time.monotonic() - started))
        waits = [call.here().future for call in calls]
        _, late = await asyncio.wait(waits, timeout=left) if waits else (set(), set())
        if late:
            if self._terms.on_timeout == "cancel":
                await asyncio.gather(*(call.cancel() for call in calls if not call.done()))
            raise CallTimeout(f"{len(late)} calls of task {name} did not end within {soft:g} s")
        return [call.awaited.value() for call in calls]

    async def submit_many(self, name: str, /, *iterables: Iterable[Any]) -> list[AsyncCall]:
        """Enqueue a call of the task *name* for each tuple of items; return the handles."""
        items = list(zip(*iterables, strict=False))
        calls: list[AsyncCall] = []
        for start in range(0, len(items), CHUNK):
            some = items[start : start + CHUNK]
            calls += await asyncio.gather(*(self._submit(name, item, {}) for item in some))
        return calls

    async def as_finished(self, calls: Iterable[AsyncCall]) -> AsyncIterator[AsyncCall]:
        """Yield *calls* as they end, whichever ends first."""
        ended: asyncio.Queue[AsyncCall] = asyncio.Queue()
        expected = list(calls)
        for call in expected:
            call.here().future.add_done_callback(_entering(ended, call))
        for _ in expected:
            yield await ended.get()

    async def ping(self) -> bool:
        """Return whether Redis answers and a pool is alive that takes calls."""
        try:
            return any(pool.open for pool in await self.pools())
        except ConnectionFailed:
            return False

    async def pools(self) -> list[PoolFacts]:
        """Return what every living pool says of itself; one round trip."""
        return await self._sessions.here().answers.talk(_read_pools)

    async def close(self) -> None:
        """Disconnect in every loop; calls that are waited for raise, their jobs go on.

        The client may be used again, and connects anew.
        """
        await self._sessions.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __getattr__(self, name: str) -> Named:
        if name.startswith("_"):
            raise AttributeError(f"AsyncClient has no attribute {name!r}, and no task has")
        return Named(self.call, name)

    # --- what calls are made of ---

    async def _submit(
        self,
        name: str,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        ttl: float | None = None,
        cancels: bool = False,
    ) -> AsyncCall:
        make = partial(build, terms=self._terms, arguments=arguments, named=named, ttl=ttl)
        return await self._submit_made(name, make, has_large(arguments), cancels)

    async def _submit_made(
        self, name: str, make: Callable[[Route], CallRequest], large: bool, cancels: bool
    ) -> AsyncCall:
        for _ in range(TRIES):
            route = await self._route(name)
            request = await asyncio.to_thread(make, route) if large else make(route)
            call = AsyncCall(self._sessions, self._terms.result_ttl, Awaited(request))
            if await self._enqueue(call, cancels):
                return call
            self._routes.distrust()
        raise not_taken(name)

    async def _enqueue(self, call: AsyncCall, cancels: bool) -> bool:
        """Send a call; return whether a pool was there to serve it."""
        session = self._sessions.here()
        session.answers.add(call.awaited)
        try:
            enqueued = await session.sending.enqueue(call.awaited.request.call)
        except BaseException as error:
            session.answers.forget(call.awaited)
            if cancels and isinstance(error, asyncio.CancelledError):
                call.drop()
            raise
        call.awaited.enqueued = enqueued
        if not enqueued:
            session.answers.forget(call.awaited)
        return enqueued

    async def _route(self, name: str) -> Route:
        """Return the route of a task; read the pools again where that is due."""
        asked = moment = time.monotonic()
        route = self._routes.believed(name, asked)
        while route is None:
            async with self._sessions.here().reading:
                if not self._routes.is_newer(moment):  # another call may have read them meanwhile
                    self._routes.learn(await self.pools(), time.monotonic())
            route = self._routes.find(name, asked, time.monotonic())
            if route is None:
                await asyncio.sleep(PAUSE)
                moment = time.monotonic()
        return route


def _entering(ended: asyncio.Queue[AsyncCall], call: AsyncCall) -> Callable[[object], None]:
    return lambda _: ended.put_nowait(call)


def _wake(turn: asyncio.Future[None], _: object = None) -> None:
    if not turn.done():
        turn.set_result(None)


async def _read_pools(connection: MultiplexedConnection) -> list[PoolFacts]:
    return in_order(await connection.script(READ))


class AsyncCall:
    """A call that was submitted. Its answer can be had as often as wanted, in any event loop."""

    def __init__(self, sessions: LoopSessions, result_ttl: int, awaited: Awaited) -> None:
        self._sessions = sessions
        self._session: LoopSession = sessions.here()
        self._result_ttl = result_ttl
        self.awaited = awaited

    @property
    def id(self) -> str:
        """The id of its job."""
        return self.awaited.request.job_id

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.awaited.request.task

    def here(self) -> Awaited:
        """Return its answer as the running loop can wait for it."""
        session = self._sessions.here()
        if session is not self._session and not self.done():
            self._session = session
            self.awaited = session.answers.take_over(self.awaited.request)
        return self.awaited

    def done(self) -> bool:
        """Return whether it is known to have ended."""
        return self.awaited.future.done()

    async def status(self) -> str:
        """Return RQ's word for where it is; as :meth:`Call.status`."""
        if self.awaited.future.done():
            return self.awaited.future.result().status
        key = job_key(self.id)
        status: Any = await self._talk(lambda connection: connection.call("HGET", key, "status"))
        return status.decode() if status else VANISHED

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for *timeout* seconds at most; return whether it has."""
        ended, seconds = self.here().future, check_timeout(timeout)
        if not ended.done():
            loop = asyncio.get_running_loop()
            turn = loop.create_future()  # of this caller alone: others may wait for the same end
            wake = partial(_wake, turn)
            alarm = None if seconds is None else loop.call_later(seconds, wake)
            ended.add_done_callback(wake)
            try:
                await turn
            finally:
                ended.remove_done_callback(wake)
                if alarm is not None:
                    alarm.cancel()
        return ended.done()

    async def result(self, timeout: float | None = None) -> Any:
        """Return what the task returned, within *timeout* seconds; as :meth:`Call.result`."""
        if not await self.wait(timeout if timeout is None else max(0.0, timeout)):
            raise CallTimeout(f"task {self.task} did not answer within {timeout:g} s")
        return self.awaited.value()

    async def cancel(self) -> bool:
        """Take it off its queue, or have its worker stop it; False if it has ended before."""
        words = (self.id, self._result_ttl)
        return bool(await self._talk(lambda connection: connection.script(CANCEL.text, *words)))

    async def parts(self) -> parts.BundleProgress | None:
        """Return the progress of a job of several calls, if there is a record of it."""
        key = parts.KEY.format(self.id)
        entries: Any = await self._talk(lambda connection: connection.call("LRANGE", key, 0, -1))
        return parts.read(entries)

    def drop(self) -> None:
        """Cancel it, as nobody waits for it any more."""
        self._sessions.here().in_background(self.cancel())

    async def withdraw(self) -> bool:
        """Cancel it; return whether it had ended before, so that its result is there."""
        return not await self.cancel() and await self._sessions.here().answers.look(self.here())

    async def _talk(self, step: Callable[[MultiplexedConnection], Awaitable[T]]) -> T:
        return await self._sessions.here().answers.talk(step)

    def __await__(self) -> Any:
        return self.result().__await__()

    def __repr__(self) -> str:
        return f"<AsyncCall {self.id} of {self.task}>"
