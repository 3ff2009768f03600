"""What differs between RQ 2 and RQ 3, chosen once: everything else calls RQ through here.

:mod:`pysplash.rq_two` and :mod:`pysplash.rq_three` have the same names: how a worker's methods are
called, and what the scripts of a turn write where the two keep Redis differently.
"""

from __future__ import annotations

import inspect
from typing import Any

from rq.job import JobStatus
from rq.version import VERSION
from rq.worker import BaseWorker

if VERSION.startswith("2."):
    from .rq_two import (
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
    from .rq_three import (
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
    "strange",
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


def strange(worker_class: type[Any] = BaseWorker, statuses: type[Any] = JobStatus) -> list[str]:
    """Say, a line each, where RQ's worker is not the one these calls are made for."""
    lines = []
    for name, taken in TAKEN.items():
        method = getattr(worker_class, name, None)
        takes = " ".join(list(inspect.signature(method).parameters)[1:]) if method else "nothing"
        if takes != taken:
            lines.append(f"{name} takes {takes}, not {taken}: adapt {succeed.__module__}")
    new = {status.value for status in statuses} - _STATUSES - STATUSES
    if new:
        lines.append(f"a job may be {', '.join(sorted(new))}: adapt pysplash.outcome")
    return lines
