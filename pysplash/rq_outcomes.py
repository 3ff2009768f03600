"""Outcomes that RQ's own code stores: the one place that calls its handlers.

What a later RQ changes about them (the execution becomes an argument) is to be changed here.
"""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from rq.job import Job, JobStatus, Retry
from rq.queue import Queue

from .log import logger
from .supervised import Supervised

log = logger("worker")


class JobStopped(BaseException):
    """Raised in a job that somebody stopped; no ``except Exception`` keeps it."""


class RQOutcomes(Supervised):
    """Success with consequences, failure, stop and retry, as RQ's perform_job has them."""

    def _may_store(self, job: Job) -> bool:
        """Return whether the job's execution is still this worker's."""
        raise NotImplementedError

    def _finish_by_rq(self, job: Job, queue: Queue, value: Any) -> None:
        if not self._may_store(job):
            return
        self.handle_execution_ended(job, queue, job.success_callback_timeout)
        job._result = value
        if isinstance(value, Retry):
            assert self.execution is not None
            self.handle_job_retry(
                job=job,
                queue=queue,
                retry=value,
                started_job_registry=queue.started_job_registry,
                execution=self.execution,
            )
            return
        job._status = JobStatus.FINISHED
        job.execute_success_callback(self.death_penalty_class, value)
        self.handle_job_success(
            job=job, queue=queue, started_job_registry=queue.started_job_registry
        )
        job.send_webhooks(JobStatus.FINISHED)

    def _fail(self, job: Job, queue: Queue) -> None:
        """Let RQ store a failure, a stop, or the retry that follows from it."""
        exc_info = sys.exc_info()
        text = "".join(traceback.format_exception(*exc_info))
        log.debug("job %s: slow: it raised", job.id)
        if not self._may_store(job):
            return
        if isinstance(exc_info[1], JobStopped):
            self._stop_by_rq(job, queue)
            return
        job._status = JobStatus.FAILED
        self.handle_execution_ended(job, queue, job.failure_callback_timeout)
        try:
            job.execute_failure_callback(self.death_penalty_class, *exc_info)
        except BaseException:
            exc_info = sys.exc_info()
            text = "".join(traceback.format_exception(*exc_info))
        self.handle_exception(job, *exc_info)
        self.handle_job_failure(
            job=job,
            exc_string=text,
            queue=queue,
            started_job_registry=queue.started_job_registry,
        )

    def _stop_by_rq(self, job: Job, queue: Queue) -> None:
        job.ended_at = datetime.now(UTC)
        if self._stopped_job_id == job.id:
            text = "Job stopped by user, work-horse terminated."
            if job.stopped_callback:
                job.execute_stopped_callback(self.death_penalty_class)
        else:
            text = "Work-horse terminated on command."
        log.warning("job %s: %s", job.id, text, extra={"action": "stop-job", "job": job.id})
        self.handle_job_failure(job, queue=queue, exc_string=text)
