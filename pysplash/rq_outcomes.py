"""Outcomes that RQ's own code stores, in the order of its own perform_job."""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from rq.job import Job, JobStatus, Retry
from rq.queue import Queue

from .log import logger
from .outage import AWAY
from .quarantine import described
from .rq_calls import (
    call_back_failure,
    call_back_stop,
    call_back_success,
    fail,
    retry,
    succeed,
)
from .supervised import Supervised

log = logger("worker")


class JobStopped(BaseException):
    """Raised in a job that somebody stopped; no ``except Exception`` keeps it."""


class Refused(Exception):
    """Redis has stored an outcome in part only."""


def _readable(exc_info: Any) -> str:
    """Return a traceback that can be stored, whatever characters are in it."""
    text = "".join(traceback.format_exception(*exc_info))
    return text.encode(errors="backslashreplace").decode()


class RQOutcomes(Supervised):
    """Success with consequences, failure, stop and retry, as RQ's perform_job has them."""

    def _may_store(self, job: Job) -> bool:
        """Return whether the job's execution is still this worker's."""
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
        self.handle_execution_ended(job, queue, job.success_callback_timeout)
        job._result = value
        if isinstance(value, Retry):
            retry(self, job, queue, value)
            return
        job._status = JobStatus.FINISHED
        call_back_success(job, self.death_penalty_class, value)
        succeed(self, job, queue)
        job.send_webhooks(JobStatus.FINISHED)

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
        except AWAY:
            raise
        except Exception as error:
            self._give_up(job, queue, error)

    def _give_up(self, job: Job, queue: Queue, error: Exception) -> None:
        """Set a job aside whose outcome RQ's own code cannot store."""
        raise NotImplementedError

    def _fail_by_rq(self, job: Job, queue: Queue, exc_info: Any) -> None:
        job._status = JobStatus.FAILED
        self.handle_execution_ended(job, queue, job.failure_callback_timeout)
        try:
            call_back_failure(job, self.death_penalty_class, *exc_info)
        except BaseException:
            exc_info = sys.exc_info()
        self._handle_exception(job, *exc_info)
        self._store_failure(job, queue, _readable(exc_info))

    def _store_failure(self, job: Job, queue: Queue, text: str) -> None:
        if not fail(self, job, queue, text):
            raise Refused("Redis refuses a part of its failure: the line before says why")

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
