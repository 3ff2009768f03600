"""Restoring jobs: RQ's object from a job's hash, without what makes that slow.

RQ resolves the serializer anew for every job, looks for some forty fields and parses times with
strptime; together that costs more than the round trip. Here a blank job is copied. A plain job,
one whose hash holds nothing but what every job has, is filled in directly; any other field, one
of a later RQ included, is left to RQ's own code.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from redis import Redis
from rq.job import Job, JobStatus, validate_job_id
from rq.utils import str_to_date

#: the fields that hold a time, and the attributes they become
_TIMES = (b"created_at", b"enqueued_at", b"started_at", b"ended_at", b"last_heartbeat")
#: fields that hold a number, where there are any
_NUMBERS = ((b"timeout", "timeout"), (b"result_ttl", "result_ttl"), (b"failure_ttl", "failure_ttl"))
#: what every job has, and what is empty until something comes of it
_NEEDED = frozenset((b"status", b"created_at", b"data", b"origin", b"enqueued_at"))
_EMPTY = (
    b"success_callback_name",
    b"failure_callback_name",
    b"stopped_callback_name",
    b"started_at",
    b"ended_at",
    b"last_heartbeat",
    b"worker_name",
    b"group_id",
)
_ALL = frozenset((*_NEEDED, *_EMPTY, b"description", *(name for name, _ in _NUMBERS)))


def is_plain(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a job's hash holds what every queued job has, and nothing else."""
    return (
        _NEEDED <= fields.keys() <= _ALL
        and fields[b"status"] == b"queued"
        and fields[b"created_at"] != b""
        and fields[b"enqueued_at"] != b""
        and not any(map(fields.get, _EMPTY))
    )


class Restorer:
    """Restores jobs of RQ's own class for one worker."""

    def __init__(self, client: Redis, serializer: Any) -> None:
        self._blank = dict(Job("blank", connection=client, serializer=serializer).__dict__)

    def restore(self, job_id: str, fields: Mapping[bytes, bytes], plain: bool) -> Job:
        """Return the job; raise whatever RQ raises for an id or a field that makes no sense.

        *plain* is what :func:`is_plain` says of the fields.
        """
        validate_job_id(job_id)
        job = Job.__new__(Job)
        attributes = self._blank.copy()
        attributes.update(_id=job_id, webhooks=[], _dependency_ids=[], meta={})
        job.__dict__ = attributes
        if plain:
            _fill(attributes, fields)
            return job
        job.restore({name: value for name, value in fields.items() if name not in _TIMES})
        for name in _TIMES:
            text = fields.get(name)
            if text:
                setattr(job, name.decode(), _moment(text))
            elif name != b"created_at":
                setattr(job, name.decode(), None)
        return job


def _fill(attributes: dict[str, Any], fields: Mapping[bytes, bytes]) -> None:
    data = fields[b"data"]
    try:
        attributes["_data"] = zlib.decompress(data)
    except zlib.error:
        attributes["_data"] = data
    attributes["created_at"] = _moment(fields[b"created_at"])
    attributes["enqueued_at"] = _moment(fields[b"enqueued_at"])
    attributes["origin"] = fields[b"origin"].decode()
    attributes["description"] = fields.get(b"description", b"").decode() or None
    attributes["_status"] = JobStatus.QUEUED
    for name, attribute in _NUMBERS:
        text = fields.get(name)
        if text:
            attributes[attribute] = int(text)


def _moment(text: bytes) -> datetime:
    """Return a time as RQ writes it, or used to."""
    try:
        return datetime.fromisoformat(text.decode())
    except ValueError:
        moment: datetime = str_to_date(text)
        return moment


class _Second:
    """The last second that was written out, and its text: most stamps share it."""

    number = -1
    text = ""


def stamp(moment: float) -> str:
    """Return a time, in seconds since the epoch, in UTC as RQ writes it."""
    second, micro = divmod(round(moment * 1e6), 1_000_000)
    if second != _Second.number:
        _Second.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _Second.number = second
    return f"{_Second.text}.{micro:06d}Z"
