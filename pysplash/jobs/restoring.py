"""Restoring jobs: RQ's object from a job's hash, without what makes that slow.

RQ resolves the serializer anew for every job, looks for some forty fields and parses times with
strptime; together that costs more than the round trip. Here a blank job is copied. A plain job,
one whose hash holds nothing but what every job has, is filled in directly; any other field, one
of a later RQ included, is left to RQ's own code.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
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
#: the fields of a plain job in the order in which they are looked at
_ORDER = (
    *(b"status", b"data", b"created_at", b"enqueued_at", b"origin", b"description"),
    *(name for name, _ in _NUMBERS),
    *_EMPTY,
)
_iso = datetime.fromisoformat
#: digits of a plain job's numbers at most: more are no seconds
_DIGITS = 18


class Restorer:
    """Restores jobs of RQ's own class for one worker."""

    def __init__(self, client: Redis, serializer: Any) -> None:
        self._blank = dict(Job("blank", connection=client, serializer=serializer).__dict__)
        #: a job to be, if there is one
        self._spare: Job | None = None
        #: the names of the last plain job's fields, which the next one's probably are, and where
        #: among their values those are that are looked at
        self._names: Sequence[bytes] = ()
        self._pick: Callable[[Sequence[bytes]], tuple[bytes, ...]] = tuple

    def restore_plain(self, job_id: str, raw: Sequence[bytes]) -> Job | None:
        """Return the job whose hash is *raw*, names and values in turn; None if it is not plain.

        Raises what :meth:`restore` does.
        """
        names = raw[::2]
        if names != self._names and not self._learn(names):
            return None
        picked = self._pick((*raw[1::2], b""))
        status, data, created, enqueued, origin, description, *numbers = picked[:9]
        if status != b"queued" or not created or not enqueued or any(picked[9:]):
            return None
        if max(map(len, numbers)) > _DIGITS:
            return None
        job = self._blank_job(job_id)
        attributes = job.__dict__
        try:
            attributes["_data"] = zlib.decompress(data)
        except zlib.error:
            attributes["_data"] = data
        try:
            attributes["created_at"] = _iso(created.decode())
            attributes["enqueued_at"] = _iso(enqueued.decode())
        except ValueError:
            attributes["created_at"] = str_to_date(created)
            attributes["enqueued_at"] = str_to_date(enqueued)
        attributes["origin"] = origin.decode()
        attributes["description"] = description.decode() or None
        attributes["_status"] = JobStatus.QUEUED
        for (_, attribute), text in zip(_NUMBERS, numbers, strict=True):
            if text:
                attributes[attribute] = int(text)
        return job

    def _learn(self, names: Sequence[bytes]) -> bool:
        """Learn where the fields of a plain job are; return whether all *names* are such fields."""
        if not _NEEDED <= set(names) <= _ALL:
            return False
        places = {name: place for place, name in enumerate(names)}
        self._pick = itemgetter(*(places.get(name, len(names)) for name in _ORDER))
        self._names = names
        return True

    def prepare(self) -> None:
        """Make a blank job in advance."""
        if self._spare is None:
            self._spare = self._make()

    def _make(self) -> Job:
        job = Job.__new__(Job)
        job.__dict__ = attributes = self._blank.copy()
        attributes.update(webhooks=[], _dependency_ids=[], meta={})
        return job

    def _blank_job(self, job_id: str) -> Job:
        validate_job_id(job_id)
        job, self._spare = self._spare or self._make(), None
        job._id = job_id
        return job

    def restore(self, job_id: str, fields: Mapping[bytes, bytes]) -> Job:
        """Return the job; raise whatever RQ raises for an id or a field that makes no sense."""
        job = self._blank_job(job_id)
        job.restore({name: value for name, value in fields.items() if name not in _TIMES})
        for name in _TIMES:
            text = fields.get(name)
            if text:
                setattr(job, name.decode(), _moment(text))
            elif name != b"created_at":
                setattr(job, name.decode(), None)
        return job


def called(job: Job) -> Any:
    """Return the function that *job* calls; a module that is loaded is not imported again."""
    module, _, attribute = (job.func_name or "").rpartition(".")
    function = None
    if module in sys.modules and not job._instance:
        function = getattr(sys.modules[module], attribute, None)
    if function is None:
        function = job.func
    if function is None:
        raise ValueError("Cannot execute job: function is None")
    return function


def _moment(text: bytes) -> datetime:
    """Return a time as RQ writes it, or used to."""
    try:
        return _iso(text.decode())
    except ValueError:
        moment: datetime = str_to_date(text)
        return moment


class _Second:
    """The last second that was written out, and its text: most stamps share it."""

    digits = ""
    text = ""


def written(micros: int) -> tuple[str, str]:
    """Return a time, in microseconds since the epoch, in seconds, and in UTC as RQ writes it."""
    digits = str(micros).zfill(7)
    second, micro = digits[:-6], digits[-6:]
    if second != _Second.digits:
        _Second.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(second)))
        _Second.digits = second
    return f"{second}.{micro}", f"{_Second.text}.{micro}Z"


def stamp(moment: float) -> str:
    """Return a time, in seconds since the epoch, in UTC as RQ writes it."""
    return written(round(moment * 1e6))[1]
