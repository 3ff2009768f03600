"""Outcomes that RQ's own code stores, in the order of its own perform_job."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rq.job import Job, JobStatus, Retry
from rq.queue import Queue

from pysplash.connections.outage import AWAY
from pysplash.connections.transactions import candid
from pysplash.jobs.claim_one import Finish
from pysplash.jobs.dependents import releasing_once
from pysplash.jobs.quarantine import described
from pysplash.jobs.rq import (
    call_back_failure,
    call_back_stop,
    call_back_success,
    fail,
    recover,
    retry,
    succeed,
)
from pysplash.log import logger

from .supervised import RETRY_FIRST, Supervised

log = logger("worker")


class JobStopped(BaseException):
    """Raised in a job that somebody stopped; no ``except Exception`` keeps it."""


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


class RQOutcomes(Supervised):
    """Success with consequences, failure, stop and retry, as RQ's perform_job has them."""

    #: times an outcome is tried to be stored that Redis, being there, does not store: for a minute
    most_tries = 30

    def _may_store(self, job: Job) -> bool:
        """Return whether the job's execution is still this worker's."""
        raise NotImplementedError

    def _cut_off(self) -> None:
        """See to it that nothing is done any more of what was sent over a connection now lost."""
        raise NotImplementedError

    def _drop(self, job: Job, failed: bool) -> None:
        """Store no outcome: the job was settled meanwhile, or deleted; then it is still counted."""
        if self._insist(lambda: Job.exists(job.id, self.connection)):
            log.warning(
                "job %s was settled meanwhile; its outcome is dropped",
                job.id,
                extra={"action": "fenced", "job": job.id},
            )
            return
        log.info("job %s was deleted while it ran", job.id)
        self._insist(lambda: self._count(job, failed))

    def _count(self, job: Job, failed: bool) -> None:
        with self.connection.pipeline() as pipeline:
            if failed:
                self.increment_failed_job_count(pipeline)
            else:
                self.increment_successful_job_count(pipeline)
            if job.started_at is not None:
                self.increment_total_working_time(datetime.now(UTC) - job.started_at, pipeline)
            pipeline.execute()

    def _finish_by_rq(self, job: Job, queue: Queue, value: Any) -> None:
        if not self._may_store(job):
            self._drop(job, failed=False)
            return
        self._end_execution(job, queue, job.success_callback_timeout)
        job._result = value
        if isinstance(value, Retry):
            self._store(job, queue, lambda: retry(self, job, queue, value))
            return
        job._status = JobStatus.FINISHED
        call_back_success(job, self.death_penalty_class, value)
        with candid(self.connection):
            self._store(job, queue, lambda: succeed(self, job, queue))
        job.send_webhooks(JobStatus.FINISHED)

    def _end_execution(self, job: Job, queue: Queue, seconds: int) -> None:
        self._insist(lambda: self.handle_execution_ended(job, queue, seconds))

    def _store(self, job: Job, queue: Queue, store: Callable[[], None]) -> None:
        """Have RQ store an outcome, as soon as Redis is there to take it.

        Tried again as long as the execution is open: a try whose reply was lost has closed it.
        What RQ does after that is then made up for.
        """
        pause, before, stopped = RETRY_FIRST, dict(vars(job)), self._stopped_job_id
        why: Exception | None = None
        for _ in range(self.most_tries):
            try:
                store()
                return
            except AWAY as error:
                pause, why = self._redis_is_away(error, pause), error
            if self.slot is not None:  # else the connection that hears commands would be closed
                self._cut_off()
            if not self._may_store(job):
                self._insist(lambda: self._follow(job, queue))
                return
            vars(job).update(before)
            self._stopped_job_id = stopped
        raise Refused(f"Redis did not store it in {self.most_tries} tries: {why}") from why

    def _follow(self, job: Job, queue: Queue) -> None:
        """Let go ahead what waits for a job whose outcome is stored."""
        if job.get_status() in (JobStatus.FAILED, JobStatus.STOPPED):
            releasing_once(queue).enqueue_dependents(job)
        for each in Queue.all(self.connection):
            recover(each)  # a success has made them ready, on whatever queue they are to be

    def _fail(self, job: Job, queue: Queue) -> None:
        """Let RQ store a failure, a stop, or the retry that follows from it."""
        exc_info = sys.exc_info()
        log.debug("job %s: slow: it raised", job.id)
        if not self._may_store(job):
            self._drop(job, failed=True)
            return
        try:
            if isinstance(exc_info[1], JobStopped):
                self._stop_by_rq(job, queue)
            else:
                self._fail_by_rq(job, queue, exc_info)
        except Exception as error:
            self._give_up(job, queue, error)

    def _give_up(self, job: Job, queue: Queue, error: Exception) -> None:
        """Set a job aside whose outcome RQ's own code cannot store."""
        raise NotImplementedError

    def _fail_by_rq(self, job: Job, queue: Queue, exc_info: Any) -> None:
        job._status = JobStatus.FAILED
        self._end_execution(job, queue, job.failure_callback_timeout)
        try:
            call_back_failure(job, self.death_penalty_class, *exc_info)
        except BaseException:
            exc_info = sys.exc_info()
        self._handle_exception(job, *exc_info)
        self._store_failure(job, queue, _readable(exc_info))

    def _store_failure(self, job: Job, queue: Queue, text: str) -> None:
        def store() -> None:
            if not fail(self, job, queue, text):
                raise Refused("Redis refuses a part of its failure: the line before says why")

        self._store(job, queue, store)

    def _handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Call the exception handlers; one that breaks costs its own work, not the outcome."""
        try:
            self.handle_exception(job, *exc_info)
        except BaseException as error:
            log.exception(
                "job %s: an exception handler broke: %s",
                job.id,
                described(error),
                extra={"action": "handler", "job": job.id},
            )

    def _stop_by_rq(self, job: Job, queue: Queue) -> None:
        job.ended_at = datetime.now(UTC)
        if self._stopped_job_id == job.id:
            text = "Job stopped by user, work-horse terminated."
            call_back_stop(job, self.death_penalty_class)
        else:
            text = "Work-horse terminated on command."
        log.warning("job %s: %s", job.id, text, extra={"action": "stop-job", "job": job.id})
        self._store_failure(job, queue, text)
        self._forget_stop()

    def _forget_stop(self) -> None:
        """Forget what was to be stopped: it is, or it is not what runs."""
        self._stopped_job_id = None
