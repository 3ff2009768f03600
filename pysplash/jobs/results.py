"""Results as RQ stores them, how a job's records say it ended, and what its function changed."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

from rq.job import Job, JobStatus
from rq.results import Result

#: one entry of a job's result stream: its id and its fields
ResultEntry = tuple[bytes, Mapping[bytes, bytes]]
#: the status given to a job of which Redis keeps nothing
VANISHED = "vanished"
#: the statuses of jobs that have ended
ENDED = frozenset(
    status.value
    for status in (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)
)

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


def job_key(job_id: str) -> str:
    """Return the key of a job."""
    return str(Job.key_for(job_id))


def results_key(job_id: str) -> str:
    """Return the key of a job's result stream."""
    return str(Result.get_key(job_id))


def as_entry(number: bytes, words: Sequence[bytes]) -> ResultEntry:
    """Return an entry from its raw form, in which names and values take turns."""
    return number, dict(zip(words[::2], words[1::2], strict=True))


class ResultTooLarge(Exception):
    """A job returned more than may be stored."""


def portrait(job: Job) -> tuple[Any, ...]:
    """Return those attributes of a job that its function may change and RQ then saves."""
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
