"""What a job leaves: the result as RQ stores it, and what its function changed of the job."""

from __future__ import annotations

from binascii import b2a_base64
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

from rq.job import Job

#: longest result in bytes, serialised
MAX_RESULT = 16 * 2**20

#: what a job's function returns that has stored its own outcome, and whether it runs in a worker
#: that knows what this means
SETTLED = "settled by the job itself"
SETTLES: ContextVar[bool] = ContextVar("SETTLES", default=False)

_attributes = attrgetter(
    "description",
    "timeout",
    "result_ttl",
    "failure_ttl",
    "retries_left",
    "retry_intervals",
    "repeats_left",
    "group_id",
    "origin",
    "worker_name",
    "ttl",
    "number_of_retries",
    "enqueue_at_front_on_retry",
    "enqueue_at_front",
    "_data",
)


class ResultTooLarge(Exception):
    """A job returned more than may be stored."""


def portrait(job: Job) -> tuple[Any, ...]:
    """Return what of a job its own function may change, and RQ then saves."""
    return (len(job.webhooks), *_attributes(job))


def serialised(job: Job, value: Any, limit: int) -> bytes | None:
    """Return the result as RQ stores it, b"" for None; None if it cannot be serialised.

    Raise :class:`ResultTooLarge` for one of more than *limit* bytes.
    """
    if value is None:
        return b""
    try:
        raw = job.serializer.dumps(value)
    except Exception:
        return None
    if len(raw) > limit:
        raise ResultTooLarge(
            f"the result has {len(raw)} bytes, {limit} are allowed: "
            "store it elsewhere and return where"
        )
    return b2a_base64(raw, newline=False)
