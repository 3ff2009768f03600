"""Restoring jobs: RQ's object from a job's hash, without what makes that slow.

RQ resolves the serializer anew for every job and parses times with strptime; together that costs
more than the round trip. Here a blank job is copied and times are read by fromisoformat; every
other field is restored by RQ's own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from redis import Redis
from rq.job import Job
from rq.utils import str_to_date

#: the fields that hold a time, and the attributes they become
_TIMES = (b"created_at", b"enqueued_at", b"started_at", b"ended_at", b"last_heartbeat")


class Restorer:
    """Restores jobs of RQ's own class for one worker."""

    def __init__(self, client: Redis, serializer: Any) -> None:
        self._blank = dict(Job("blank", connection=client, serializer=serializer).__dict__)

    def restore(self, job_id: str, fields: Mapping[bytes, bytes]) -> Job:
        """Return the job; raise whatever RQ raises for a field that makes no sense."""
        job = Job.__new__(Job)
        attributes = self._blank.copy()
        attributes.update(_id=job_id, webhooks=[], _dependency_ids=[], meta={})
        job.__dict__ = attributes
        job.restore({name: value for name, value in fields.items() if name not in _TIMES})
        for name in _TIMES:
            text = fields.get(name)
            if text:
                setattr(job, name.decode(), _moment(text))
            elif name != b"created_at":
                setattr(job, name.decode(), None)
        return job


def _moment(text: bytes) -> datetime:
    """Return a time as RQ writes it, or used to."""
    try:
        return datetime.fromisoformat(text.decode())
    except ValueError:
        moment: datetime = str_to_date(text)
        return moment


def stamp(moment: datetime) -> str:
    """Return a time in UTC as RQ writes it."""
    return moment.isoformat(timespec="microseconds")[:26] + "Z"
