"""Announcements: events of a worker and its jobs, told in the worker's process.

A run of a job ends once, whichever way stores how: so it is noted on the job that its end was told.
Callers look at the list of listeners first; without any, nothing here is called.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker import BaseWorker

from pysplash.events import (
    JOB_FAILED,
    JOB_FINISHED,
    JOB_STARTED,
    WORKER_STARTED,
    JobEvent,
    WorkerEvent,
    class_of,
    tell,
    text_of,
)

from .forked import end_if_forked

#: on a job: what of its run was told already
_BEGUN, _ENDED = "_pysplash_begun", "_pysplash_ended"


class Announcing(BaseWorker):
    """Tells how jobs end that RQ's own methods store; mixed in before the class it completes."""

    #: whether the last job has failed
    _job_failed = False

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Tell that a job starts, then let RQ run it."""
        announce_start(self, job)
        super().execute_job(job, queue)

    def handle_job_success(self, *args: Any, **kwargs: Any) -> None:
        """Let RQ store a success, then tell it."""
        super().handle_job_success(*args, **kwargs)
        announce_return(self, _job_of(args, kwargs))

    def handle_job_retry(self, *args: Any, **kwargs: Any) -> None:
        """Let RQ store that a job returned a Retry, then tell what came of it."""
        super().handle_job_retry(*args, **kwargs)
        announce_retry(self, _job_of(args, kwargs))

    def handle_job_failure(self, *args: Any, **kwargs: Any) -> None:
        """Note a failure, let RQ store it, a stop, or the retry that follows, then tell which."""
        end_if_forked("")
        self._job_failed = True
        job = _job_of(args, kwargs)
        stopped = self._stopped_job_id == job.id
        retried = job.should_retry and not stopped
        super().handle_job_failure(*args, **kwargs)
        text = kwargs.get("exc_string", "")
        announce_failure(self, job, text, retried=retried, stopped=stopped)


def _job_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
    """Return the job that a method of RQ's is told of."""
    job: Job = kwargs["job"] if "job" in kwargs else args[0]
    return job


def announce_worker(worker: Any) -> None:
    """Tell that *worker* is registered and about to take jobs."""
    if WORKER_STARTED:
        tell(WORKER_STARTED, WorkerEvent("worker_started", worker.name, os.getpid()))


def announce_start(worker: Any, job: Job) -> None:
    """Tell that *job* is about to run."""
    if JOB_STARTED and _is_first(job, _BEGUN):
        tell(JOB_STARTED, _event("job_started", worker, job, 0.0))


def announce_return(
    worker: Any, job: Job, seconds: float | None = None, *, retried: bool = False
) -> None:
    """Tell that *job* has returned; *retried* if what it returned was a Retry."""
    if JOB_FINISHED and _is_first(job, _ENDED):
        tell(JOB_FINISHED, _event("job_finished", worker, job, seconds, retried=retried))


def announce_retry(worker: Any, job: Job) -> None:
    """Tell that *job* has returned a Retry: it runs again, or has failed if that was too often."""
    if job.get_status(refresh=False) == JobStatus.FAILED:
        announce_failure(worker, job, "it returned Retry more often than its max allows")
    else:
        announce_return(worker, job, retried=True)


def announce_failure(
    worker: Any, job: Job, text: str, *, retried: bool = False, stopped: bool = False
) -> None:
    """Tell that *job* has failed or was stopped, by the error being handled or else for *text*."""
    if JOB_FAILED and _is_first(job, _ENDED):
        error = sys.exc_info()[1]
        kind, said = "", (text.strip() or "?").splitlines()[-1]
        # other exceptions are our own, by which a worker ends a job
        if isinstance(error, Exception | SystemExit | KeyboardInterrupt) and not stopped:
            kind, said = class_of(error), text_of(error)
        facts = {"error": kind, "text": said, "retried": retried, "stopped": stopped}
        tell(JOB_FAILED, _event("job_failed", worker, job, None, **facts))


def _is_first(job: Job, mark: str) -> bool:
    return vars(job).setdefault(mark, mark_of := object()) is mark_of


def _event(name: str, worker: Any, job: Job, seconds: float | None, **facts: Any) -> JobEvent:
    if seconds is None:
        began = job.started_at
        seconds = ((job.ended_at or now()) - began).total_seconds() if began is not None else 0.0
    return JobEvent(
        name, job.id, worker._function(job), job.origin, worker.name, max(0.0, seconds), **facts
    )
