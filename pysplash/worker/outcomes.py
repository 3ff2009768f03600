"""Outcomes that RQ's own code stores, in the order of its own perform_job."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rq.executions import Execution
from rq.job import Job, JobStatus, Retry
from rq.queue import Queue

from pysplash.connections.outage import AWAY, FIRST_PAUSE
from pysplash.connections.transactions import raising_lost_connections
from pysplash.jobs.abandoned import STOPPED
from pysplash.jobs.dependents import releasing_once
from pysplash.jobs.quarantine import Quarantine, described, is_kept
from pysplash.jobs.results import serialised
from pysplash.jobs.rq import (
    call_back_failure,
    call_back_stop,
    call_back_success,
    fail,
    held,
    hold,
    recover,
    retry,
    succeed,
)
from pysplash.jobs.store_and_claim import Answer, Finish, Turn
from pysplash.log import logger

from .announcements import announce_failure, announce_retry, announce_return
from .claims import Claims
from .interrupts import Interrupts, JobStopped
from .oversize import check_size
from .supervised import Supervised

log = logger("worker")


class Pending(NamedTuple):
    """What a job left that is not stored yet: as the scripts take it, and for RQ."""

    done: Finish
    job: Job
    queue: Queue
    value: Any
    seconds: float
    #: whether it is one of a batch, without a record of its execution in Redis
    light: bool


class Refused(Exception):
    """Redis has stored an outcome in part only, or not at all."""


def _readable(exc_info: Any) -> str:
    """Return a traceback that can be stored, whatever characters are in it."""
    text = "".join(traceback.format_exception(*exc_info))
    return text.encode(errors="backslashreplace").decode()


class Outcomes:
    """Has RQ store how jobs of *worker* ended: success with consequences, failure, stop and retry.

    *clear_way* stores first what ended before.
    """

    #: times an outcome is tried to be stored that Redis, being there, does not store: for a minute
    most_tries = 30

    def __init__(
        self,
        worker: Supervised,
        claims: Claims,
        quarantine: Quarantine,
        interrupts: Interrupts,
        clear_way: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._claims = claims
        self._quarantine = quarantine
        self._interrupts = interrupts
        self._clear_way = clear_way

    # --- what a turn did not store ---

    def settle(self, turn: Turn, pending: Pending | None) -> None:
        """See to what a turn did not store, and tell what it passed over."""
        if turn.answer is Answer.DEPENDENTS and pending is not None:
            job, queue = pending.job, pending.queue
            log.debug("job %s: slow: it is not for one script", job.id)
            try:
                self.finish(job, queue, pending.value)
            except Exception:
                self.fail(job, queue)
        elif turn.answer is Answer.FENCED and pending is not None:
            job_id = pending.done.job_id
            log.warning(
                "job %s was settled meanwhile; what it returned is dropped",
                job_id,
                extra={"action": "fenced", "job": job_id},
            )
        if turn.skipped:
            self._quarantine.report_skipped(turn.skipped)

    def settle_earlier(self, turn: Turn, pending: Pending | None) -> None:
        """Do so for a job other than the one that runs, under that job's execution."""
        keeper, execution = self._claims.execution, held(self._worker)
        if pending is not None:
            self._claims.execution = pending.done.execution_id
            hold(self._worker, None)
        try:
            self.settle(turn, pending)
        finally:
            self._claims.execution = keeper
            hold(self._worker, execution)

    # --- whether it may be stored ---

    def execution(self, job: Job) -> Execution:
        """Return the execution under which *job* was claimed."""
        execution = Execution(self._claims.execution, job.id, self._worker.connection)
        execution.worker_name = self._worker.name
        return execution

    def may_store(self, job: Job) -> bool:
        """Store what ended before; then say whether the execution is still this worker's."""
        self._clear_way()
        self._claims.recount()
        ours = self._claims.still_ours(job.id)
        if not ours:
            hold(self._worker, None)
        elif held(self._worker) is None:
            hold(self._worker, self.execution(job))
        return ours

    def _drop(self, job: Job, failed: bool) -> None:
        """Store no outcome: the job was settled meanwhile, or deleted; then it is still counted."""
        if self._worker._insist(lambda: Job.exists(job.id, self._worker.connection)):
            log.warning(
                "job %s was settled meanwhile; its outcome is dropped",
                job.id,
                extra={"action": "fenced", "job": job.id},
            )
            return
        log.info("job %s was deleted while it ran", job.id)
        self._worker._insist(lambda: self._count(job, failed))

    def _count(self, job: Job, failed: bool) -> None:
        worker = self._worker
        with worker.connection.pipeline() as pipeline:
            if failed:
                worker.increment_failed_job_count(pipeline)
            else:
                worker.increment_successful_job_count(pipeline)
            if job.started_at is not None:
                worker.increment_total_working_time(datetime.now(UTC) - job.started_at, pipeline)
            pipeline.execute()

    def finish(self, job: Job, queue: Queue, value: Any) -> None:
        """Have RQ store what a job returned, with all that follows from it."""
        if not self.may_store(job):
            self._drop(job, failed=False)
            announce_return(self._worker, job)
            return
        self._end_execution(job, queue, job.success_callback_timeout)
        job._result = value
        if isinstance(value, Retry):
            self.store(job, queue, lambda: retry(self._worker, job, queue, value))
            announce_retry(self._worker, job)
            return
        job._status = JobStatus.FINISHED
        call_back_success(job, self._worker.death_penalty_class, value)
        with raising_lost_connections(self._worker.connection):
            self.store(job, queue, lambda: succeed(self._worker, job, queue), value)
        announce_return(self._worker, job)
        job.send_webhooks(JobStatus.FINISHED)

    def _end_execution(self, job: Job, queue: Queue, seconds: int) -> None:
        self._worker._insist(lambda: self._worker.handle_execution_ended(job, queue, seconds))

    def store(self, job: Job, queue: Queue, store: Callable[[], None], result: Any = None) -> None:
        """Have RQ store an outcome, as soon as Redis is there to take it.

        Tried again as long as the execution is open: a try whose reply was lost has closed it.
        What RQ does after that is then made up for. Raises
        :class:`~pysplash.worker.oversize.ResultRefused` for a *result* that the server refuses.
        """
        worker = self._worker
        pause, before, stopped = FIRST_PAUSE, dict(vars(job)), worker._stopped_job_id
        why: Exception | None = None
        size: int | None = None
        for tries in range(1, self.most_tries + 1):
            try:
                store()
                return
            except AWAY as error:
                pause, why = worker._redis_is_away(error, pause), error
            if worker.slot is not None:  # else the connection that hears commands would be closed
                worker._insist(self._claims.cut_off_others)
            if not self.may_store(job):
                worker._insist(lambda: self._follow(job, queue))
                return
            if size is None:
                size = 0 if result is None else len(serialised(job, result, sys.maxsize) or b"")
            check_size(worker.connection, size, tries, why)
            vars(job).update(before)
            worker._stopped_job_id = stopped
        raise Refused(f"Redis did not store it in {self.most_tries} tries: {why}") from why

    def _follow(self, job: Job, queue: Queue) -> None:
        """Release what depends on a job whose outcome is stored."""
        if job.get_status() in (JobStatus.FAILED, JobStatus.STOPPED):
            releasing_once(queue).enqueue_dependents(job)
        for each in Queue.all(self._worker.connection):
            recover(each)  # a success has made them ready, on whatever queue they are to be

    def fail(self, job: Job, queue: Queue) -> None:
        """Let RQ store a failure, a stop, or the retry that follows from it."""
        exc_info = sys.exc_info()
        log.debug("job %s: slow: it raised", job.id)
        if not self.may_store(job):
            self._drop(job, failed=True)
            announce_failure(self._worker, job, "")
            return
        try:
            if isinstance(exc_info[1], JobStopped):
                if self._worker.slot is not None:
                    self._worker.slot.heed()
                self._stop_by_rq(job, queue)
            else:
                self._fail_by_rq(job, queue, exc_info)
        except Exception as error:
            self.give_up(job, queue, error)

    def give_up(self, job: Job, queue: Queue, error: Exception) -> None:
        """Set a job aside whose outcome RQ's own code cannot store, unless it is kept all the same.

        Where Redis refuses one command of several, the others have been carried out.
        """
        worker, why = self._worker, f"its outcome cannot be stored ({described(error)})"
        if not worker._insist(lambda: is_kept(worker.connection, job.origin, job.id)):
            fields = {b"origin": job.origin.encode()}
            self._quarantine.set_aside_claimed(
                queue.name, job.id.encode(), self._claims.execution, fields, why
            )
        else:
            log.error("job %s: %s", job.id, why, extra={"action": "outcome", "job": job.id})
        hold(worker, None)
        worker._job_failed = True
        announce_failure(worker, job, why)

    def _fail_by_rq(self, job: Job, queue: Queue, exc_info: Any) -> None:
        job._status = JobStatus.FAILED
        self._end_execution(job, queue, job.failure_callback_timeout)
        try:
            call_back_failure(job, self._worker.death_penalty_class, *exc_info)
        except BaseException:
            exc_info = sys.exc_info()
        self._handle_exception(job, *exc_info)
        self.store_failure(job, queue, _readable(exc_info))

    def store_failure(self, job: Job, queue: Queue, text: str) -> None:
        """Have RQ store that a job failed, for the reason *text*."""

        def store() -> None:
            if not fail(self._worker, job, queue, text):
                raise Refused("Redis refuses a part of its failure: the line before says why")

        stopped = self._worker._stopped_job_id == job.id
        retried = job.should_retry and not stopped
        self.store(job, queue, store)
        announce_failure(self._worker, job, text, retried=retried, stopped=stopped)

    def _handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Call the exception handlers; one that breaks costs its own work, not the outcome."""
        try:
            self._worker.handle_exception(job, *exc_info)
        except BaseException as error:
            log.exception(
                "job %s: an exception handler broke: %s",
                job.id,
                described(error),
                extra={"action": "handler", "job": job.id},
            )

    def _stop_by_rq(self, job: Job, queue: Queue) -> None:
        job.ended_at = datetime.now(UTC)
        if self._worker._stopped_job_id == job.id:
            text = STOPPED
            call_back_stop(job, self._worker.death_penalty_class)
        else:
            text = "Work-horse terminated on command."
        log.warning("job %s: %s", job.id, text, extra={"action": "stop-job", "job": job.id})
        self.store_failure(job, queue, text)
        self._interrupts.forget()
