"""One call of wait_jobs: which jobs are pending, which have ended, and how it sleeps."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError
from rq.job import Job, JobStatus

from pysplash.connections.clients import address
from pysplash.connections.outage import FIRST_PAUSE, patiently
from pysplash.connections.refusals import is_unfit, lacks_scripts, refusal
from pysplash.errors import ConnectionFailed
from pysplash.jobs.results import results_key
from pysplash.log import logger

from . import outcomes as look
from .clients import Clients
from .deadlock import Edges
from .offer import Stuck
from .outcomes import Outcome, classify
from .progress import Report, Tally

#: seconds one blocking read lasts at most at first and later on, where that is a part of the time
#: waited so far: so much is between two looks at jobs that end in silence
BLOCK, BLOCK_LATER, PART = 1.0, 4.0, 0.25
#: the same while a progress bar is watched
BLOCK_DRAWING = 0.25
#: the shortest of them, for jobs that keep no result and so can wake nobody
BLOCK_SILENT = 0.05
#: seconds without an end before a wait looks whether anybody serves the queues of its jobs
COMPLAIN = 10.0
#: jobs whose queues it looks at
COMPLAIN_OF = 20

Key = tuple[int, str]
T = TypeVar("T")
log = logger("wait")


class _TimeIsOver(Exception):
    """The wait ends while Redis is away."""


class Waiter:
    """The pending and the ended jobs of one wait, and its deadline."""

    #: jobs so few that a look at them delays nobody
    few = 64

    def __init__(
        self,
        jobs: list[Job],
        max_wait: float | None,
        clients: Clients,
        keep_results: bool,
        raising: bool,
    ) -> None:
        self._started = time.monotonic()
        self._deadline = self._started + (math.inf if max_wait is None else max_wait)
        self.clients = clients
        self._keep_results = keep_results
        self.raising = raising
        self._order: list[Key] = [(clients.of(job)[0], job.id) for job in jobs]
        self.pending: dict[Key, Job] = dict(zip(self._order, jobs, strict=True))
        self._last_id: dict[Key, bytes] = {}
        self._ended: dict[Key, Outcome] = {}
        self._failed = 0
        self._statuses: Counter[str] = Counter()
        self._queued: list[tuple[Job, Stuck]] = []
        self._warn_at = self._started + COMPLAIN
        #: numbers of servers that run no scripts
        self._scriptless: set[int] = set()
        self._watched: Key | None = None
        self._wrong_guesses, self._left = 0, len(self.pending)
        self._random = random.Random()  # the user's own seed is not ours to use up
        #: seconds a read may block, if not as long as is due
        self.block: float | None = None

    def in_order(self) -> Iterator[Outcome]:
        """Yield the outcomes in the order of the jobs."""
        return (self._ended[key] for key in self._order)

    def run(self, me: Job | None, report: Report) -> bool:
        """Wait; return whether all ended. *me* is the job that waits."""
        self.insist(self.look)
        report(self._tally())
        if not self.pending or self.left() <= 0:
            return not self.pending
        with self._edges(me) as renew:
            while self.pending and self.left() > 0:
                self.step()
                renew()
                report(self._tally())
        return not self.pending

    def step(self) -> None:
        """Sleep until a job may have ended, then look."""
        self.insist(self._sleep)
        if self.pending and time.monotonic() >= self._warn_at:
            self.insist(self._warn)

    def left(self) -> float:
        """Seconds left to wait."""
        return self._deadline - time.monotonic()

    def rarely(self, least: float) -> float:
        """Return the seconds until the next look: *least* at first, more the longer the wait."""
        waited = time.monotonic() - self._started
        return max(least, min(PART * waited, BLOCK_LATER))

    def insist(self, step: Callable[[], T]) -> T | None:
        """Return what *step* returns, retrying while Redis is away; None once the time is over."""
        try:
            return patiently(step, self._pause)
        except _TimeIsOver:
            return None
        except ResponseError as error:
            if not is_unfit(error):
                raise
            raise ConnectionFailed(refusal(self._where(), error)) from error

    def _pause(self, error: Exception, seconds: float) -> None:
        """Sleep until the next try; raise what ends the wait."""
        if isinstance(error, AuthenticationError | AuthorizationError):
            raise error
        if seconds == FIRST_PAUSE:
            log.warning("Redis is away, the wait goes on: %s", error)
        if self.left() <= 0:
            raise _TimeIsOver
        time.sleep(max(0.0, min(seconds, self.left())))

    def _where(self) -> str:
        """Say which servers the pending jobs are on."""
        return ", ".join({address(job.connection) for job in self.pending.values()})

    def look(self) -> None:
        """Move the jobs that have ended from pending to ended: one round trip for many."""
        self._forget()
        for keys in self._parts():
            self._look_at(keys)

    def _look_at(self, keys: list[Key]) -> None:
        number, client = self.clients.of(self.pending[keys[0]])
        ids = [name for _, name in keys]
        if number not in self._scriptless:
            try:
                self._take_in(keys, look.at(client, ids, self._keep_results))
                return
            except ResponseError as error:
                if not lacks_scripts(error):
                    raise
                self._scriptless.add(number)
        self._take_in(keys, look.without_script(client, ids))

    def _parts(self) -> list[list[Key]]:
        """Return the pending jobs in parts, each of one server and for one look."""
        parts = []
        for number in {key[0] for key in self.pending}:
            keys = [key for key in self.pending if key[0] == number]
            parts += [keys[at : at + look.MOST] for at in range(0, len(keys), look.MOST)]
        return parts

    def _forget(self) -> None:
        self._statuses.clear()
        self._queued.clear()

    def _take_in(self, keys: list[Key], reply: Any) -> None:
        # A job that ends just after the look adds an entry newer than the one seen, and the next
        # blocking read returns at once.
        for key, (status, entry) in zip(keys, look.seen(reply), strict=True):
            job = self.pending[key]
            outcome = classify(job, status, entry)
            if outcome is not None:
                self._end(key, outcome)
                continue
            if entry:
                self._last_id[key] = entry[0]
            self._note(job, (status or b"").decode())

    def _note(self, job: Job, status: str) -> None:
        self._statuses[status] += 1
        if status == JobStatus.QUEUED and len(self._queued) < COMPLAIN_OF:
            self._queued.append((job, Stuck(job.id, job.origin)))

    def _end(self, key: Key, outcome: Outcome) -> None:
        if not outcome.ok:
            self._failed += 1
            if self.raising:
                raise outcome.failure()
        elif not self._keep_results:
            outcome = Outcome(outcome.job, outcome.status)
        self._ended[key] = outcome
        del self.pending[key]
        self._warn_at = time.monotonic() + COMPLAIN

    def _tally(self) -> Tally:
        return Tally(
            total=len(self._ended) + len(self.pending),
            done=len(self._ended),
            failed=self._failed,
            running=self._statuses[JobStatus.STARTED],
            queued=self._statuses[JobStatus.QUEUED],
        )

    # --- sleeping ---

    def _sleep(self) -> None:
        """Block until the watched job's stream grows, for some seconds at most; then look.

        The first look is sent with the read, so that it is answered with it.
        """
        key, longest = self._choose()
        job = self.pending[key]
        number, client = self.clients.of(job)
        seconds = min(longest, self.left())
        milliseconds = max(1, math.ceil(seconds * 1000))  # 0 would block for ever
        streams: dict[Any, Any] = {results_key(job.id): self._last_id.get(key, b"0-0")}
        streams |= self.also_watched(number)
        if number in self._scriptless:
            client.xread(streams, count=1, block=milliseconds)
            self.look()
            return
        keys, *others = sorted(self._parts(), key=lambda part: part[0][0] != number)
        with client.pipeline(transaction=False) as pipe:
            pipe.xread(streams, count=1, block=milliseconds)
            look.at(pipe, [name for _, name in keys], self._keep_results)
            _, reply = pipe.execute()
        self._forget()
        self._take_in(keys, reply)
        for keys in others:
            self._look_at(keys)

    def also_watched(self, number: int) -> dict[Any, Any]:
        """Return further streams of server *number* whose growth ends a sleep, and what is seen."""
        return {}

    def _choose(self) -> tuple[Key, float]:
        """Return the job to watch and for how many seconds at most."""
        if self._watched not in self.pending:
            telling = [key for key, job in self.pending.items() if job.result_ttl != 0]
            self._watched = self._late_one(telling or list(self.pending))
        longest = self.rarely(BLOCK) if self.block is None else self.block
        if self.pending[self._watched].result_ttl != 0:
            return self._watched, longest
        waited = time.monotonic() - self._started
        return self._watched, min(max(waited, BLOCK_SILENT), longest)

    def _late_one(self, choice: list[Key]) -> Key:
        """Return a job that is likely to end late, so that one read serves for many.

        Of few that is the last; of many one before it, so that few are left to be looked at when
        the last one ends. Where that was wrong it is taken from the other end; where that was,
        too, chance decides: about ln(N) reads for N jobs, whatever the order in which they end.
        """
        if self._watched is not None and 2 * len(self.pending) > self._left:
            self._wrong_guesses += 1
        self._left = len(self.pending)
        if self._wrong_guesses >= 2:
            return self._random.choice(choice)
        late = len(choice) * 3 // 4 if len(choice) > self.few else len(choice) - 1
        return choice[late if self._wrong_guesses == 0 else -1 - late]

    # --- who waits for whom ---

    def _pending_ids(self) -> set[str]:
        return {key[1] for key in self.pending}

    @contextlib.contextmanager
    def _edges(self, me: Job | None) -> Iterator[Callable[[], None]]:
        """Publish whom *me* waits for; raise WouldDeadlock if the waiting closes a circle.

        Yields what renews the edges when due.
        """
        if me is None:
            yield lambda: None
            return
        edges = Edges(self.clients.of(me)[1], me.id)

        def renew() -> None:
            self.insist(lambda: edges.renew(self._pending_ids))

        try:
            self.insist(lambda: edges.publish(self._pending_ids()))
            yield renew
        except BaseException:
            edges.client.connection_pool.disconnect()  # it may be in the middle of a reply
            raise
        finally:
            with contextlib.suppress(RedisError):
                edges.withdraw()

    # --- what holds it up ---

    def stuck(self) -> list[tuple[Job, Stuck]]:
        """Return some jobs that are queued, each with one whose client reaches its queue."""
        return self._queued

    def _warn(self) -> None:
        """Log jobs waited for whose queue no worker serves."""
        self._warn_at = time.monotonic() + COMPLAIN
        queues: dict[tuple[int, str], tuple[Job, Stuck]] = {}
        for job, stuck in self.stuck():
            queues.setdefault((self.clients.of(job)[0], stuck.queue), (job, stuck))
        for job, stuck in queues.values():
            if not self.clients.of(job)[1].exists(f"rq:workers:{stuck.queue}"):
                log.warning(
                    "job %s has been waited for %.0f s in queue %s, which no worker serves: "
                    "start one for it, or cancel the job",
                    stuck.job_id,
                    time.monotonic() - self._started,
                    stuck.queue,
                    extra={"action": "stuck", "job": stuck.job_id},
                )
