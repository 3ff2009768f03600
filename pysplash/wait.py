"""Waiting for jobs: woken by Redis, not by polling."""

from __future__ import annotations

import contextlib
import math
import random
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from redis import ConnectionPool, Redis
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import get_current_job
from rq.connections import parse_connection
from rq.job import Job

from .deadlock import Edges
from .errors import WouldDeadlock
from .log import logger
from .outcome import Outcome, classify, collect, stream_key
from .scoreboard import attached

ON_FAILURE = ("raise", "none", "return")
#: seconds one blocking read lasts at most, so between two looks at jobs that end in silence
BLOCK = 1.0
#: the same while a progress bar is watched
BLOCK_DRAWING = 0.25
#: the shortest of them, for jobs that keep no result and so can wake nobody
BLOCK_SILENT = 0.05
#: seconds without a byte after which a connection is taken for dead
SOCKET_TIMEOUT = BLOCK + 5.0
#: seconds between two tries while Redis is away: doubled from the first to the last
BACKOFF = (0.1, 2.0)
#: jobs looked at in one transaction; it holds the server up for about 2 ms
CHUNK = 1000

Key = tuple[int, str]
Report = Callable[[Collection[Outcome], int], None]


def wait_jobs(
    jobs: Iterable[Job],
    max_wait: float | None = None,
    collect_results: bool = False,
    *,
    on_failure: str = "raise",
    help: bool = True,
    progress: bool | None = None,
) -> bool | list[Any]:
    """Wait until all *jobs* have ended, inside a job or outside.

    Return True; with *collect_results* the list of results in the order of *jobs*. Return False
    if *max_wait* seconds passed before (None: no limit; 0: look once, do not wait). A job may be
    named more than once. While Redis does not answer, the wait goes on.

    *on_failure* says what becomes of a job that failed, was stopped or cancelled, or vanished:
    ``"raise"`` its JobFailed as soon as it is seen; ``"none"`` makes its result None;
    ``"return"`` puts the JobFailed in the list. A job with ``result_ttl=0`` is gone once it
    succeeded: that counts as finished, its result is None.

    *help* is accepted for a later version; today it changes nothing. *progress* off (False) draws
    no bar; otherwise one is drawn on standard error if that is a terminal, never inside a worker.

    Raise JobFailed as said; WouldDeadlock if the running job is among *jobs*, or one of them
    waits for it, directly or through others; ValueError for a *max_wait* that is negative or NaN
    and for an unknown *on_failure*.

    The blocking read of a result stream is RQ's own ``job.latest_result(timeout)``, made to serve
    many jobs; the waits-for graph is that of databases, which break the same circles.
    """
    check(max_wait, on_failure)
    jobs = list(jobs)
    me = get_current_job()
    if me is not None and any(job.id == me.id for job in jobs):
        raise WouldDeadlock(f"job {me.id} waits for itself")
    slot = attached()
    outside = me is None and slot is None
    drawing = outside and progress is not False and bool(jobs) and sys.stderr.isatty()
    parked = slot.parked() if slot else contextlib.nullcontext()
    with parked, _Clients() as clients, _bar(drawing) as report:
        waiter = _Waiter(jobs, max_wait, clients, collect_results, on_failure == "raise")
        if drawing:
            waiter.block = BLOCK_DRAWING
        if not waiter.run(me, report):
            return False
    return collect(waiter.in_order(), on_failure) if collect_results else True


def check(max_wait: float | None, on_failure: str) -> None:
    """Raise ValueError, naming the value, for an argument of wait_jobs that cannot be meant."""
    if max_wait is not None and not max_wait >= 0:
        raise ValueError(f"max_wait must be 0 seconds or more, not {max_wait!r}")
    if on_failure not in ON_FAILURE:
        raise ValueError(f"on_failure must be 'raise', 'none' or 'return', not {on_failure!r}")


class _Clients:
    """Clients of our own: a connection blocked in a read cannot serve the job's code too."""

    def __init__(self) -> None:
        self._clients: dict[int, Redis] = {}

    def of(self, job: Job) -> tuple[int, Redis]:
        """Return the client for *job*'s Redis and its number: one for each connection pool."""
        number = id(job.connection.connection_pool)
        if number not in self._clients:
            kind, connection_class, settings = parse_connection(job.connection)
            # No retries of redis-py's own: they know no max_wait. Results are bytes, always.
            settings |= {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
            settings |= {"decode_responses": False, "socket_timeout": SOCKET_TIMEOUT}
            pool = ConnectionPool(connection_class=connection_class, **settings)
            self._clients[number] = kind(connection_pool=pool)
        return number, self._clients[number]

    def __enter__(self) -> _Clients:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self._clients.values():
            client.close()
            client.connection_pool.disconnect()


class _Waiter:
    """One call of wait_jobs: what is pending, what ended, and until when."""

    def __init__(
        self,
        jobs: list[Job],
        max_wait: float | None,
        clients: _Clients,
        keep_results: bool,
        raising: bool,
    ) -> None:
        self._started = time.monotonic()
        self._deadline = self._started + (math.inf if max_wait is None else max_wait)
        self._clients = clients
        self._keep_results = keep_results
        self._raising = raising
        self._order: list[Key] = [(clients.of(job)[0], job.id) for job in jobs]
        self._pending: dict[Key, Job] = dict(zip(self._order, jobs, strict=True))
        self._last_id: dict[Key, bytes] = {}
        self._ended: dict[Key, Outcome] = {}
        self._watched: Key | None = None
        self._random = random.Random()  # the user's own seed is not ours to use up
        self.block = BLOCK

    def in_order(self) -> Iterator[Outcome]:
        """Yield the outcomes in the order of the jobs."""
        return (self._ended[key] for key in self._order)

    def run(self, me: Job | None, report: Report) -> bool:
        """Wait; return whether all ended. *me* is the job that waits."""
        self._insist(self._look)
        report(self._ended.values(), len(self._ended) + len(self._pending))
        if not self._pending or self._left() <= 0:
            return not self._pending
        with self._edges(me) as renew:
            while self._pending and self._left() > 0:
                self._insist(self._sleep_on_one)
                self._insist(self._look)
                renew()
                report(self._ended.values(), len(self._ended) + len(self._pending))
        return not self._pending

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _insist(self, step: Callable[[], None]) -> None:
        """Do *step*, again and again while Redis is away, until the time is over."""
        pause, last = BACKOFF
        while True:
            try:
                return step()
            except (RedisConnectionError, RedisTimeoutError) as error:
                if isinstance(error, AuthenticationError | AuthorizationError):
                    raise
                if pause == BACKOFF[0]:
                    logger("wait").warning("Redis is away, the wait goes on: %s", error)
                if self._left() <= 0:
                    return None
            time.sleep(max(0.0, min(pause, self._left())))
            pause = min(2 * pause, last)

    def _look(self) -> None:
        """Move the jobs that have ended from pending to ended: one round trip a CHUNK."""
        for number in {key[0] for key in self._pending}:
            keys = [key for key in self._pending if key[0] == number]
            for start in range(0, len(keys), CHUNK):
                self._look_at(keys[start : start + CHUNK])

    def _look_at(self, keys: list[Key]) -> None:
        # A transaction, so that the entry is the one the status speaks of. A job that ends just
        # after it adds an entry newer than the one seen, and the blocking read returns at once.
        jobs = [self._pending[key] for key in keys]
        with self._clients.of(jobs[0])[1].pipeline(transaction=True) as pipe:
            for job in jobs:
                pipe.xrevrange(stream_key(job), count=1)
                pipe.hmget(job.key, "status")
            replies = pipe.execute()
        for key, job, entries, (status,) in zip(
            keys, jobs, replies[::2], replies[1::2], strict=True
        ):
            entry = entries[0] if entries else None
            if entry:
                self._last_id[key] = entry[0]
            outcome = classify(job, status, entry)
            if outcome is not None:
                self._end(key, outcome)

    def _end(self, key: Key, outcome: Outcome) -> None:
        if self._raising and not outcome.ok:
            raise outcome.failure()
        if outcome.ok and not self._keep_results:
            outcome = Outcome(outcome.job, outcome.status)
        self._ended[key] = outcome
        del self._pending[key]

    def _sleep_on_one(self) -> None:
        """Block until the watched job's stream grows, for a second at most."""
        key, longest = self._choose()
        job = self._pending[key]
        seconds = min(longest, self._left())
        milliseconds = max(1, math.ceil(seconds * 1000))  # 0 would block for ever
        seen: dict[Any, Any] = {stream_key(job): self._last_id.get(key, b"0-0")}
        self._clients.of(job)[1].xread(seen, count=1, block=milliseconds)

    def _choose(self) -> tuple[Key, float]:
        """Return the job to watch and for how many seconds.

        The last is the likeliest to end last, so that one read serves for all. Where it was not,
        chance decides: about ln(N) reads for N jobs, whatever the order in which they end.
        """
        if self._watched not in self._pending:
            telling = [key for key, job in self._pending.items() if job.result_ttl != 0]
            choice = telling or list(self._pending)
            self._watched = self._random.choice(choice) if self._watched else choice[-1]
        if self._pending[self._watched].result_ttl != 0:
            return self._watched, self.block
        waited = time.monotonic() - self._started
        return self._watched, min(max(waited, BLOCK_SILENT), self.block)

    def _pending_ids(self) -> set[str]:
        return {key[1] for key in self._pending}

    @contextlib.contextmanager
    def _edges(self, me: Job | None) -> Iterator[Callable[[], None]]:
        """Publish whom *me* waits for; raise WouldDeadlock if the waiting closes a circle.

        Yields what renews the edges when due. Edges first, then the walk: of two jobs that
        begin to wait for each other at the same time, one at least sees the circle.
        """
        if me is None:
            yield lambda: None
            return
        edges = Edges(self._clients.of(me)[1], me.id)
        try:
            self._insist(lambda: edges.publish(self._pending_ids()))
            self._insist(lambda: edges.walk(self._pending_ids()))
            yield lambda: self._insist(lambda: edges.renew(self._pending_ids))
        except BaseException:
            edges.client.connection_pool.disconnect()  # it may be in the middle of a reply
            raise
        finally:
            with contextlib.suppress(RedisError):
                edges.withdraw()


@contextlib.contextmanager
def _bar(drawing: bool) -> Iterator[Report]:
    """Yield what shows outcomes, of how many: a bar on standard error if *drawing*."""
    if not drawing:
        yield lambda ended, total: None
        return
    from rich.console import Console  # noqa: PLC0415 -- workers wait too, and never draw
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (
        TextColumn("waiting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(
        *columns, console=Console(stderr=True), transient=True, auto_refresh=False
    ) as bar:
        task = bar.add_task("", total=None, failed="")

        def report(ended: Collection[Outcome], total: int) -> None:
            failed = sum(not outcome.ok for outcome in ended)
            label = f"{failed} failed" if failed else ""
            bar.update(task, completed=len(ended), total=total, failed=label, refresh=True)

        yield report
