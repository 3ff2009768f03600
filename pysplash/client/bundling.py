"""Bundling: several brief calls of one task are sent as one job.

A job costs its worker and its server some tenths of a millisecond. For calls that take much less,
that is what a door can do in a second; so what comes while others are on their way goes together.
How many that are follows from what they took: a task that is not brief has a job for each call, and
so has one that fails. Calls that a job has not begun are sent again, ahead of all others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pysplash.errors import CallError, CallTimeout, ConnectionFailed, ExecutionError
from pysplash.jobs.bundles import BundleProgress
from pysplash.log import logger

from .async_client import AsyncCall, AsyncClient

#: seconds of calls that go together; calls, and bytes of their requests, that do at most
SECONDS, MOST, BYTES = 0.0005, 16, 32768
#: seconds for which calls wait for others at most, while some are on their way
GATHER = 0.002
#: seconds that the ends of calls may be apart that go together
APART = 1.0
#: calls that go alone after one that failed
WARY = 64
#: seconds after which it is first looked how far a job of several has got, and at most between two
#: looks
LATE, SELDOM = 0.02, 2.0

log = logger("gateway")

#: told what a call answered, bytes or the base64 text of a worker of earlier releases, or of a
#: task that is no handler; or why there is no answer
Done = Callable[[Any, Exception | None], None]


class _Call:
    __slots__ = ("done", "over", "payload", "until")

    def __init__(self, payload: bytes, until: float, done: Done) -> None:
        self.payload = payload
        self.until = until
        self.done = done
        self.over = False

    def end(self, answer: Any, error: Exception | None = None) -> None:
        """Report the answer or the error, once."""
        if not self.over:
            self.over = True
            self.done(answer, error)


class Bundles:
    """Bundles the calls of *task*, a handler, of one door; each may take *timeout* seconds.

    While others are on their way, calls wait for more at most *gather* seconds.
    """

    def __init__(
        self, client: AsyncClient, task: str, timeout: float, gather: float = GATHER
    ) -> None:
        self._client = client
        self._task = task
        self._timeout = timeout
        self._gather = gather
        self._waiting: deque[_Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        #: how many calls a job takes, and how many must go alone before it takes more
        self._reach, self._alone = 1, 0
        #: jobs in flight; whether a send is scheduled; whether it is closed
        self._in_flight = 0
        self._due = self._closed = False
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, payload: bytes, done: Done) -> None:
        """Make a call; *done* is called with its answer or error, in the running loop."""
        until = asyncio.get_running_loop().time() + self._timeout
        self._waiting.append(_Call(payload, until, done))
        self._soon()

    async def ask(self, payload: bytes) -> Any:
        """Make a call and return its answer; raise its error."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(answer: Any, error: Exception | None) -> None:
            if answered.done():
                return
            if error is None:
                answered.set_result(answer)
            else:
                answered.set_exception(error)

        self.add(payload, done)
        return await answered

    async def close(self) -> None:
        """Cancel all jobs, and fail the calls that wait."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for call in self._waiting:
            call.end(None, CallError("the door was closed"))
        self._waiting.clear()

    # --- who goes ---

    def _soon(self) -> None:
        """Send at the end of this turn of the event loop."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self, enough: int | None = None) -> None:
        """Send waiting calls: at once if no job is in flight, else when *enough* wait."""
        self._due = False
        if enough is None:
            enough = max(1, self._reach // 2)
        while (
            self._waiting
            and not self._closed
            and (not self._in_flight or len(self._waiting) >= enough)
        ):
            self._in_flight += 1
            task = asyncio.create_task(self._run(self._some()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._waiting and not self._closed and self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(self._gather, self._gathered)

    def _gathered(self) -> None:
        self._alarm = None
        self._send(1)

    def _some(self) -> list[_Call]:
        """Take the calls of the next job from the queue."""
        some = [self._waiting.popleft()]
        size = len(some[0].payload)
        while self._waiting and len(some) < self._reach:
            size += len(self._waiting[0].payload)
            if size > BYTES or abs(self._waiting[0].until - some[0].until) > APART:
                break
            some.append(self._waiting.popleft())
        return some

    # --- on their way ---

    async def _run(self, some: list[_Call]) -> None:
        """Run *some* calls as one job and report their answers."""
        several = len(some) > 1
        error: Exception = CallError("the door was closed")
        try:
            job = await self._run_job(some)
            try:
                self._hand_out(some, job.awaited.value())
            except ExecutionError as failure:
                error = failure
                self._learn(None)
                if several:
                    await self._recover(job, some)
        except (CallError, ConnectionFailed) as failure:
            error = failure
            self._learn(None)
        finally:
            for call in some:
                call.end(None, error)

    async def _run_job(self, some: list[_Call]) -> AsyncCall:
        """Return the job of *some* calls once it has ended; then send those that wait."""
        until = max(call.until for call in some)
        left = max(0.0, until - asyncio.get_running_loop().time())
        payloads = [call.payload for call in some]
        try:
            job = await self._client.submit_together(self._task, payloads, left + 1)
            try:
                await self._wait(job, some, until)
            except asyncio.CancelledError:
                job.drop()
                raise
        finally:
            self._in_flight -= 1
            self._send()
        return job

    async def _wait(self, job: AsyncCall, some: list[_Call], until: float) -> None:
        """Wait until a job has ended; if it is slow, send the calls it has not begun again.

        Raises :class:`CallTimeout` where that takes longer than a call may.
        """
        loop, pause = asyncio.get_running_loop(), LATE
        while (left := until - loop.time()) > 0:
            if await job.wait(min(left, pause) if len(some) > 1 else left):
                return
            if len(some) > 1:
                self._report(some, await self._parts(job))
                pause = min(2 * pause, SELDOM)
        if not await job.withdraw():
            raise CallTimeout(
                f"task {self._task} did not answer within {self._timeout:g} s and was cancelled"
            )

    async def _parts(self, job: AsyncCall) -> BundleProgress | None:
        """Return the progress of a job; None if there is no record of it, or it cannot be read."""
        try:
            return await job.parts()
        except (CallError, ConnectionFailed, ValueError) as error:
            log.debug("the progress of job %s cannot be read: %s", job.id, error)
            return None

    def _report(self, some: list[_Call], known: BundleProgress | None) -> None:
        """Report the answers of a job so far; send again the calls it will not begin."""
        if known is not None:
            self._learn(None)
            self._answer(some, known.answers)
            self._send_again(some, len(known.answers) + 1)

    async def _recover(self, job: AsyncCall, some: list[_Call]) -> None:
        """See to the other calls of a job that failed, if it is known with which."""
        known = await self._parts(job)
        self._report(some, known)
        if known is not None and known.again:
            self._send_again(some, len(known.answers))

    def _hand_out(self, some: list[_Call], value: Any) -> None:
        match value:
            case [float() | int() as seconds, *answers] if answers or len(some) > 1:
                self._answer(some, answers)
                self._send_again(some, len(answers))
                self._learn(seconds / len(answers) if answers else None)
            case _:
                raise CallError(f"task {self._task} answered what is no list of answers")

    def _answer(self, some: Sequence[_Call], answers: Sequence[Any]) -> None:
        for call, answer in zip(some, answers, strict=False):
            call.end(answer)

    def _send_again(self, some: list[_Call], place: int) -> None:
        """Send those from a *place* on again, before all others."""
        again = some[place:]
        if again:
            del some[place:]
            self._waiting.extendleft(reversed(again))
            self._soon()

    def _learn(self, seconds: float | None) -> None:
        """Note how long a call took; None: one came to nothing, or is late."""
        if seconds is None:
            self._reach, self._alone = 1, WARY
        elif self._alone:
            self._alone -= 1
        else:
            brief = int(SECONDS / max(seconds, 1e-6))
            self._reach = max(1, min(MOST, 2 * self._reach, brief))
