"""The calls into RQ that differ between RQ 2 and RQ 3, chosen once for all other modules.

:mod:`pysplash.jobs.rq2` and :mod:`pysplash.jobs.rq3` have the same names: how a worker's methods
are called, and what the scripts that claim jobs write where the two keep Redis differently.
"""

from __future__ import annotations

import inspect
from typing import Any

from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.version import VERSION
from rq.worker import BaseWorker

if VERSION.startswith("2."):
    from .rq2 import (
        ABSENT,
        PRESENT,
        PROLONGED,
        RECORDS,
        STATUSES,
        TAKEN,
        call_back_failure,
        call_back_stop,
        call_back_success,
        claimed,
        close_execution,
        current_job_ids,
        enter,
        fail,
        held,
        hold,
        leave,
        perform,
        recover,
        retry,
        run,
        succeed,
        unclaimed,
    )
else:
    from .rq3 import (
        ABSENT,
        PRESENT,
        PROLONGED,
        RECORDS,
        STATUSES,
        TAKEN,
        call_back_failure,
        call_back_stop,
        call_back_success,
        claimed,
        close_execution,
        current_job_ids,
        enter,
        fail,
        held,
        hold,
        leave,
        perform,
        recover,
        retry,
        run,
        succeed,
        unclaimed,
    )

__all__ = [
    "ABSENT",
    "PRESENT",
    "PROLONGED",
    "RECORDS",
    "call_back_failure",
    "call_back_stop",
    "call_back_success",
    "claimed",
    "close_execution",
    "current_job_ids",
    "enter",
    "fail",
    "held",
    "hold",
    "leave",
    "perform",
    "recover",
    "retry",
    "run",
    "incompatibilities",
    "succeed",
    "unclaimed",
]

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


def incompatibilities(
    worker_class: type[Any] = BaseWorker, statuses: type[Any] = JobStatus
) -> list[str]:
    """Return a line for each way in which the installed RQ differs from what these calls expect."""
    lines = []
    for name, taken in TAKEN.items():
        method = getattr(worker_class, name, None)
        takes = " ".join(list(inspect.signature(method).parameters)[1:]) if method else "nothing"
        if takes != taken:
            lines.append(f"{name} takes {takes}, not {taken}: adapt {succeed.__module__}")
    new = {status.value for status in statuses} - _STATUSES - STATUSES
    if new:
        lines.append(f"a job may be {', '.join(sorted(new))}: adapt pysplash.waiting.outcomes")
    return lines


def requeue(worker: BaseWorker, job: Job, queue: Queue) -> None:
    """Requeue a job at the front of its queue, and close *worker*'s execution of it."""
    with worker.connection.pipeline() as pipeline:
        close_execution(worker, job, pipeline)
        pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
        pipeline.lrem(queue.key, 1, job.id)
        job.set_status(JobStatus.QUEUED, pipeline=pipeline)
        pipeline.lpush(queue.key, job.id)
        pipeline.execute()
