"""The calls into RQ's worker that RQ 3 changes: the one place to change with them.

RQ 2 keeps one execution on the worker and its methods find it there; RQ 3 hands it to each. What
RQ 3 changes in Redis, a worker's executions for its current job, is in the scripts of
:mod:`pysplash.turn` and :mod:`pysplash.heartbeats`.
"""

from __future__ import annotations

import inspect
from typing import Any

from redis.client import Pipeline
from rq.job import Job, JobStatus, Retry
from rq.queue import Queue
from rq.worker import BaseWorker

from .dependents import releasing_once

#: what RQ 2's methods take besides the worker; those that are not called here are overridden
_TAKEN = {
    "handle_job_success": "job queue started_job_registry",
    "handle_job_failure": "job queue started_job_registry exc_string",
    "handle_job_retry": "job queue retry started_job_registry execution",
    "handle_execution_ended": "job queue heartbeat_ttl",
    "handle_exception": "job exc_info",
    "cleanup_execution": "job pipeline",
    "prepare_execution": "job",
    "prepare_job_execution": "job remove_from_intermediate_queue",
    "perform_job": "job queue",
    "execute_job": "job queue",
    "get_current_job_id": "pipeline",
}
_STATUSES = frozenset(
    [
        "created",
        "queued",
        "finished",
        "failed",
        "started",
        "deferred",
        "scheduled",
        "stopped",
        "canceled",
    ]
)


def succeed(worker: BaseWorker, job: Job, queue: Queue) -> None:
    """Store a success with all that follows from it."""
    worker.handle_job_success(job=job, queue=queue, started_job_registry=queue.started_job_registry)


def fail(worker: BaseWorker, job: Job, queue: Queue, text: str) -> None:
    """Store a failure, or the retry that follows from it."""
    worker.handle_job_failure(
        job=job,
        queue=releasing_once(queue),
        started_job_registry=queue.started_job_registry,
        exc_string=text,
    )


def retry(worker: BaseWorker, job: Job, queue: Queue, wish: Retry) -> None:
    """Store that a job returned a Retry."""
    assert worker.execution is not None
    worker.handle_job_retry(
        job=job,
        queue=releasing_once(queue),
        retry=wish,
        started_job_registry=queue.started_job_registry,
        execution=worker.execution,
    )


def close_execution(worker: BaseWorker, job: Job, pipeline: Pipeline) -> None:
    """Let the worker let go of a job."""
    worker.cleanup_execution(job, pipeline=pipeline)


def current_job_id(worker: BaseWorker) -> str:
    """Return what the worker is at, as Redis has it; "" if nothing."""
    return worker.get_current_job_id() or ""


def strange(worker_class: type[Any] = BaseWorker, statuses: type[Any] = JobStatus) -> list[str]:
    """Say, a line each, where RQ's worker is not the one these calls are made for."""
    lines = []
    for name, taken in _TAKEN.items():
        method = getattr(worker_class, name, None)
        takes = " ".join(list(inspect.signature(method).parameters)[1:]) if method else "nothing"
        if takes != taken:
            lines.append(f"{name} takes {takes}, not {taken}: adapt pysplash/rq_calls.py")
    new = {status.value for status in statuses} - _STATUSES
    if new:
        lines.append(f"a job may be {', '.join(sorted(new))}: adapt pysplash/outcome.py")
    return lines
