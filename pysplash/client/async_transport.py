"""Sending calls and waiting for many answers on asyncio, over one connection.

The server tells when an answer is there (client-side caching), so nobody blocks and nobody
polls; what ends in silence, or while the connection was lost, is found by a look at all of them.
Where a server or a user's rights do not have that, each call is looked at: often while it is new,
ever less often then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.exceptions import RedisError

from pysplash.connections.address import Address
from pysplash.connections.multiplexed import MultiplexedConnection
from pysplash.connections.outage import UNREACHABLE, said
from pysplash.connections.refusals import refusal
from pysplash.errors import CallError, ConnectionFailed
from pysplash.jobs.results import VANISHED, ResultEntry, as_entry, job_key, results_key
from pysplash.log import logger

from .looks import LookSchedule
from .requests import (
    LARGE,
    CallAnswer,
    CallRequest,
    is_success,
    read_answer,
)

#: seconds between two looks at calls of which nothing is heard
SWEEP = 2.0
#: calls looked at in one packet
CHUNK = 500
#: seconds between two tries while Redis is away, and seconds one of them may take
PAUSE, CONNECT = 0.1, 5.0
RESULTS = results_key("").encode()
T = TypeVar("T")
#: servers of which the log has said that they do not tell of answers
_UNTOLD: set[str] = set()

log = logger("client")


class Awaited:
    """One call whose answer is waited for."""

    def __init__(self, request: CallRequest) -> None:
        self.request = request
        #: whether Redis is known to have it
        self.enqueued = False
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        self.future: asyncio.Future[CallAnswer] = loop.create_future()

    def value(self) -> Any:
        """Return what the task returned, once the call has ended; raise how it ended otherwise."""
        return self.future.result().get()


class AnswerStream:
    """Waits for answers over one connection; opens it again when it is lost."""

    def __init__(self, place: Address, where: str) -> None:
        self._place = place
        self._where = where
        self._connection: MultiplexedConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._awaited: dict[str, Awaited] = {}
        #: of whose results the server has told, and whether all have to be looked at
        self._reported: list[str] = []
        self._sweeping = False
        self._changed = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._reading: set[asyncio.Task[None]] = set()
        #: when to look at which call, where the server does not tell
        self._looks = LookSchedule()

    async def talk(self, step: Callable[[MultiplexedConnection], Awaitable[T]]) -> T:
        """Do *step*, which may be done twice, once more if the connection turns out to be dead.

        Raises :class:`ConnectionFailed` if Redis cannot be talked to, :class:`CallError` if it
        refuses.
        """
        for last in (False, True):
            try:
                return await step(await self._open())
            except UNREACHABLE as error:
                if last:
                    raise ConnectionFailed(
                        f"Redis at {self._where} does not answer ({said(error)}): "
                        "the call was not made, or its answer is not known"
                    ) from error
            except RedisError as error:
                raise self.refused(error) from error
        raise AssertionError("a loop that returns or raises")

    def refused(self, error: Exception) -> CallError:
        """Return what to raise where Redis refuses by *error*."""
        return CallError(refusal(self._where, error))

    def add(self, awaited: Awaited) -> None:
        """Wait for an answer, from before the call is sent: it may come before the reply."""
        self._awaited[awaited.request.job_id] = awaited
        if self._is_untold():
            self._look_later(awaited)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())

    def forget(self, awaited: Awaited) -> None:
        """Wait for it no longer."""
        self._awaited.pop(awaited.request.job_id, None)

    def take_over(self, request: CallRequest) -> Awaited:
        """Wait for the answer of a call that was sent from another event loop."""
        awaited = Awaited(request)
        awaited.enqueued = True
        self.add(awaited)
        self._hear(None)
        return awaited

    async def look(self, awaited: Awaited) -> bool:
        """Look at one call now; return whether it has ended."""
        with contextlib.suppress(RedisError, OSError):
            await self._look([awaited.request.job_id])
        return awaited.future.done()

    async def close(self) -> None:
        """Disconnect; whoever waits gets an error, the jobs go on."""
        tasks = [*self._reading, *filter(None, (self._watcher, self._keeper))]
        self._watcher = self._keeper = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        closed = CallAnswer(VANISHED, None, CallError("the client was closed"))
        for awaited in list(self._awaited.values()):
            self._settle(awaited, closed)

    def leave(self) -> None:
        """Hang up: the event loop is closed, and nobody there waits any more."""
        if self._connection is not None:
            self._connection.leave()

    # --- the connection ---

    async def _open(self) -> MultiplexedConnection:
        if self._connection is not None and not self._connection.broken:
            return self._connection
        async with self._opening:
            if self._connection is None or self._connection.broken:
                if self._keeper is not None:
                    self._keeper.cancel()
                connection = MultiplexedConnection(self._place, self._hear)
                async with asyncio.timeout(CONNECT):
                    await connection.open()
                self._connection = connection
                self._keeper = asyncio.create_task(self._keep(connection))
                self._begin_looks()
            return self._connection

    async def _keep(self, connection: MultiplexedConnection) -> None:
        """Close a connection when this is cancelled, as all is at the end of ``asyncio.run``."""
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await connection.close()
            raise

    def _hear(self, key: bytes | None) -> None:
        """Note that *key* has changed; None: any key may have."""
        if key is None:
            self._sweeping = True
        elif key.startswith(RESULTS):
            self._reported.append(key[len(RESULTS) :].decode(errors="replace"))
        else:
            return
        self._changed.set()

    # --- the answers ---

    async def _watch(self) -> None:
        while True:
            if self._is_untold():
                await self._look_around()
            else:
                await self._listen()

    async def _listen(self) -> None:
        """Check the calls that the server reports, and after SWEEP seconds all of them."""
        alarm = asyncio.get_running_loop().call_later(SWEEP, self._hear, None)
        while not (self._sweeping or self._is_untold()):
            await self._changed.wait()
            self._changed.clear()
            reported, self._reported = self._reported, []
            await self._patiently(self._look_at_reported, reported)
        alarm.cancel()
        self._sweeping = False
        await self._patiently(self._look, list(self._awaited))

    # --- where the server does not tell ---

    def _is_untold(self) -> bool:
        return self._connection is not None and bool(self._connection.untold)

    def _begin_looks(self) -> None:
        """Look at calls one by one, if the new connection is not told of their answers."""
        self._looks = LookSchedule()
        if self._connection is None or not self._connection.untold:
            return
        if self._where not in _UNTOLD:
            _UNTOLD.add(self._where)
            log.info(
                "Redis at %s does not tell of answers (%s): they are looked for instead, "
                "every few milliseconds at first",
                self._where,
                self._connection.untold,
            )
        for awaited in self._awaited.values():
            self._look_later(awaited)
        self._changed.set()

    def _look_later(self, awaited: Awaited) -> None:
        now = asyncio.get_running_loop().time()
        if self._looks.add(awaited.request.job_id, now - awaited.since, now, len(self._awaited)):
            self._changed.set()

    async def _look_around(self) -> None:
        """Sleep until it is time for a call, then look at each whose time has come."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._looks.next):
                if not self._sweeping:
                    await self._changed.wait()
        due = self._looks.due(asyncio.get_running_loop().time())
        if self._sweeping:
            self._sweeping, due = False, list(self._awaited)
        await self._patiently(self._look, due)
        for job_id in due:
            if job_id in self._awaited:
                self._look_later(self._awaited[job_id])

    async def _patiently(
        self, look: Callable[[list[str]], Awaitable[None]], ids: list[str]
    ) -> None:
        for start in range(0, len(ids), CHUNK):
            while True:
                try:
                    await look(ids[start : start + CHUNK])
                    break
                except (RedisError, OSError) as error:
                    log.debug("answers cannot be read, trying again: %s", error)
                    await asyncio.sleep(PAUSE)

    async def _look_at_reported(self, ids: list[str]) -> None:
        """Read the results of reported calls; read the status of those that did not succeed."""
        some = [self._awaited[job_id] for job_id in ids if job_id in self._awaited]
        if not some:
            return
        commands = [_newest_of(awaited.request.job_id) for awaited in some]
        replies = await (await self._open()).call_all(commands)
        rest = []
        for awaited, entries in zip(some, replies, strict=True):
            if _is_large(entries):
                self._read_in_thread(awaited, entries)
                continue
            answer = _read_success(awaited.request, entries)
            if answer is None:
                rest.append(awaited.request.job_id)
            else:
                self._settle(awaited, answer)
        await self._look(rest)

    def _read_in_thread(self, awaited: Awaited, entries: Any) -> None:
        """Read a large result in a thread, so that other answers need not wait."""

        async def read() -> None:
            answer = await asyncio.to_thread(_read_success, awaited.request, entries)
            if answer is None:
                await self._patiently(self._look, [awaited.request.job_id])
            else:
                self._settle(awaited, answer)

        task = asyncio.create_task(read())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _look(self, ids: list[str]) -> None:
        some = [self._awaited[job_id] for job_id in ids if job_id in self._awaited]
        commands: list[tuple[Any, ...]] = []
        for awaited in some:
            job_id = awaited.request.job_id
            commands.append(("HGET", job_key(job_id), "status"))
            commands.append(_newest_of(job_id))
        if not commands:
            return
        enqueued = [awaited.enqueued for awaited in some]
        replies = await (await self._open()).call_all(commands)
        for awaited, known, status, entries in zip(
            some, enqueued, replies[::2], replies[1::2], strict=True
        ):
            answer = _read(awaited.request, status, entries)
            if answer is not None and (known or answer.status != VANISHED):
                self._settle(awaited, answer)

    def _settle(self, awaited: Awaited, answer: CallAnswer) -> None:
        self.forget(awaited)
        if not awaited.future.done():
            awaited.future.set_result(answer)


def _read(request: CallRequest, status: Any, entries: Any) -> CallAnswer | None:
    """Return the answer in raw replies, if any; replies that cannot be read are an error answer."""
    try:
        text = None if status is None else status.decode()
        return read_answer(request, text, _newest(entries))
    except Exception as error:
        unread = CallError(f"the job of task {request.task!r} cannot be read: {error}")
        return CallAnswer(VANISHED, None, unread)


def _read_success(request: CallRequest, entries: Any) -> CallAnswer | None:
    """Return the answer of a call that succeeded; None if its status must be read too."""
    try:
        entry = _newest(entries)
        return read_answer(request, None, entry) if entry and is_success(entry) else None
    except Exception:
        return None


def _is_large(entries: Any) -> bool:
    """Return whether a raw reply is large."""
    return any(len(word) > LARGE for _, words in entries or () for word in words)


def _newest_of(job_id: str) -> tuple[Any, ...]:
    return ("XREVRANGE", results_key(job_id), "+", "-", "COUNT", 1)


def _newest(entries: Any) -> ResultEntry | None:
    """Return the one entry of a raw reply."""
    return as_entry(*entries[0]) if entries else None
