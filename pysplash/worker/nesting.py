"""Nesting: running a job inside the one that waits for it, and going back to that one.

All a worker knows of the job it runs is set aside while another runs inside it, and restored. An
interrupt meant for an outer job (its timeout, a stop) ends the jobs inside it first; they end as
those of a worker that died.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from redis import Redis
from rq.job import Job, get_current_job
from rq.queue import Queue
from rq.utils import as_text, now

from pysplash.connections.outage import AWAY, FIRST_PAUSE
from pysplash.jobs.abandoned import call_back
from pysplash.jobs.claim_named import NamedTurn, words
from pysplash.jobs.rq import held, hold, requeue
from pysplash.jobs.store_and_claim import Answer, Turn
from pysplash.log import logger
from pysplash.waiting.clients import waiting_client
from pysplash.waiting.offer import Help, Search, Stuck

from .claims import Claims
from .interrupts import Interrupts, Level
from .outcomes import Outcomes
from .prefetch import Prefetching
from .supervised import Supervised
from .timeouts import Overtaken
from .turns import OneByOne

#: the shortest and longest time in seconds a deeply nested wait leaves its jobs to other workers
PATIENCE = (0.01, 1.0)
#: calls a level may have made in C, which Python counts and frames do not show
SLACK = 10

log = logger("worker")


def frames() -> int:
    """Return how many calls deep the program is."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


class Nest:
    """Runs jobs of *worker* inside one another: a :class:`~pysplash.waiting.offer.Helper`.

    *run* runs a claimed job to its stored or storable outcome.
    """

    patience = PATIENCE[1]

    def __init__(
        self,
        worker: Supervised,
        claims: Claims,
        outcomes: Outcomes,
        interrupts: Interrupts,
        one_by_one: OneByOne,
        prefetch: Prefetching,
        run: Callable[[Turn], bool],
    ) -> None:
        self._worker = worker
        self._claims = claims
        self._outcomes = outcomes
        self._interrupts = interrupts
        self._one_by_one = one_by_one
        self._prefetch = prefetch
        self._run = run
        self._overtaken: Overtaken | None = None
        #: whether Redis has another job as this worker's present one than the one that waits
        self._outdated = False
        self._budget = sys.getrecursionlimit()
        self._waits: Redis | None = None

    def close(self) -> None:
        """Disconnect the client of the waits."""
        if self._waits is not None:
            self._waits.connection_pool.disconnect()
            self._waits = None

    # --- offering help ---

    @property
    def max_nesting(self) -> int:
        """Jobs nested in one another from which a waiting one first looks for another worker."""
        return self._worker.max_nesting

    @property
    def depth(self) -> int:
        """How many jobs this worker is in the middle of."""
        return len(self._interrupts.outer) + 1

    def runs(self, job: Job) -> bool:
        """Return whether it runs *job* and could run another inside it.

        It could not in a callback, nor in a coroutine: its loop would have to run inside itself.
        """
        present = get_current_job()
        done = bool(self._interrupts.outer) and present is self._interrupts.outer[-1].job
        mine = present is not None and present.id == job.id and not done
        return mine and asyncio._get_running_loop() is None

    def waiting_client(self) -> Redis:
        """Return the client for the waits of its jobs."""
        if self._waits is None:
            self._waits = waiting_client(self._worker.connection)
        return self._waits

    def be_patient(self, *, longer: bool) -> None:
        """Wait longer the next time, or not so long."""
        least, most = PATIENCE
        self.patience = most if longer else max(least, self.patience / 2)

    # --- helping ---

    def help(self, search: Search) -> Help:
        """Claim the next job *search* finds and run it to its stored or storable outcome.

        Raises redis's error if nothing could be claimed because Redis is away; Overtaken, or the
        error meant for the job that waits, if that is over.
        """
        self._prefetch.make_way()
        before, present = self._interrupts.block(), self._claims.execution
        try:
            while (names := search.batch()) or self._outdated or self._claims.unsure:
                found = self._descend(names)
                search.saw(
                    found.seen,
                    claimed=found.turn.answer is Answer.JOB,
                    beneath=found.beneath,
                    running=found.running,
                    stuck=[Stuck(*pair) for pair in found.stuck],
                )
                if found.turn.answer is Answer.JOB:
                    return self._run_inside(found.turn, present)
                if found.turn.answer is Answer.SUSPENDED:
                    return Help.NOTHING
            return Help.NOTHING
        except Overtaken as overtaken:
            if overtaken.level < len(self._interrupts.outer):
                raise
            self._interrupts.timers.postpone(overtaken.level)
            raise overtaken.error from None
        finally:
            self._interrupts.unblock(before)

    def settle(self) -> None:
        """Store what is done; from here on the job that waits is the one that runs.

        A claim of which nobody knows whether it was made is found out about, and given back.
        """
        before, present = self._interrupts.block(), self._claims.execution
        pause = FIRST_PAUSE
        try:
            while self._outdated or self._claims.unsure:
                try:
                    found = self._descend([])
                except AWAY as error:
                    if not self._claims.unsure:
                        return
                    pause = self._worker._redis_is_away(error, pause)
                    continue
                if found.turn.answer is Answer.JOB:
                    self._give_back(found.turn, present)
        finally:
            self._interrupts.unblock(before)

    def _give_back(self, turn: Turn, present: str) -> None:
        """Put a job back that was claimed and cannot be run here."""
        level = self._set_aside_present(present)
        try:
            worker = self._worker
            job = worker.job_class.fetch(as_text(turn.job_id), worker.connection, worker.serializer)
            hold(worker, self._outcomes.execution(job))
            queue = worker.queue_class(turn.queue, connection=worker.connection)
            requeue(worker, job, queue)
        finally:
            self._resume(level)

    def _descend(self, names: Sequence[str]) -> NamedTurn:
        """Store the last outcome and claim one of the jobs *names*."""
        pending = self._one_by_one.take()
        worker, keeper = self._worker, get_current_job()
        assert keeper is not None
        served = [queue.name for queue in worker.queues]
        entry = f"{keeper.id}:{self._claims.execution}"
        named = words(keeper.id, self.depth, entry, worker.name, served, names)
        done, seconds = (pending.done, pending.seconds) if pending is not None else (None, 0.0)
        found = self._claims.take_named(done, named, seconds)
        if found.turn.answer in (Answer.FENCED, Answer.DEPENDENTS):
            self._outcomes.settle_earlier(found.turn, pending)
        else:
            self._outdated = False
            self._outcomes.settle(found.turn, None)
        return found

    def _run_inside(self, turn: Turn, present: str) -> Help:
        level = self._set_aside_present(present)
        try:
            self._run(turn)
            failed = self._worker._job_failed
        finally:
            self._resume(level)
        overtaken, self._overtaken = self._overtaken, None
        if overtaken is not None:
            raise overtaken
        return Help.FAILED if failed else Help.RAN

    def _set_aside_present(self, present: str) -> Level:
        job = get_current_job()
        assert job is not None
        limit = sys.getrecursionlimit()
        state = self._worker._process_state
        assert state is not None  # a job runs
        changes = state.set_aside()
        failed = self._worker._job_failed
        level = Level(job, present, held(self._worker), failed, limit, changes)
        self._interrupts.push(level)
        budget = frames() + SLACK * len(self._interrupts.outer) + self._budget
        state.set_recursion_limit(budget)
        return level

    def _resume(self, level: Level) -> None:
        self._interrupts.pop()
        assert self._worker._process_state is not None
        self._worker._process_state.restore(level.changes)
        sys.setrecursionlimit(level.recursion_limit)
        self._claims.execution = level.execution_id
        hold(self._worker, level.execution)
        self._worker._job_failed = level.failed
        self._outdated = True
        os.environ["RQ_JOB_ID"] = level.job.id

    # --- failures ---

    def fail(self, job: Job, queue: Queue) -> None:
        """Have RQ store how a job ended that has just raised."""
        error = sys.exc_info()[1]
        if isinstance(error, Overtaken) and error.level < len(self._interrupts.outer):
            self._overtaken = error
            try:
                self._end_with_outer(job, queue, error)
            except Exception as refused:
                self._outcomes.give_up(job, queue, refused)
        else:
            self._outcomes.fail(job, queue)

    def _end_with_outer(self, job: Job, queue: Queue, overtaken: Overtaken) -> None:
        """End the run of a job as that of a worker that died."""
        outer = self._interrupts.outer[overtaken.level].job
        text = f"Job {outer.id}, inside which this job ran, {overtaken.why}; it ended with it."
        log.warning("job %s: %s", job.id, text, extra={"action": "overtaken", "job": job.id})
        outcomes, worker = self._outcomes, self._worker
        if not outcomes.may_store(job):
            return
        if worker.on_crash == "requeue":
            outcomes.store(job, queue, lambda: requeue(worker, job, queue))
            worker._job_failed = True
            return
        job.ended_at = now()
        outcomes.store_failure(job, queue, text)
        call_back(job, worker._exc_handlers, worker.death_penalty_class, text)
