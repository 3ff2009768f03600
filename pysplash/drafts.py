"""Drafts: a call as the job RQ would make of it, without making one for each call.

Most of a job's fields are alike for all calls of a task. Those are taken once from a job that RQ
itself has made; the id, the arguments and the times are filled in.
"""

from __future__ import annotations

import os
import time
import zlib
from functools import lru_cache
from typing import Any

from redis import Redis
from rq.job import Job, JobStatus

from .restoring import stamp

#: never connected: RQ's job wants a client where it only keeps one
NOWHERE = Redis()
#: bytes up to which arguments are not made smaller: that would take longer than all the rest
SMALL = 1024
#: bytes from which on they are made smaller in a hurry; and whoever has others to see to lets a
#: thread pack or read them
LARGE = 2**16
#: fields that differ from call to call
_OWN = ("created_at", "enqueued_at", "data")
#: what a stored block in zlib's form begins with
_STORED = b"\x78\x01\x01"


def job_fields(
    function: str, queue: str, timeout: int, ttls: tuple[int, int], description: str, data: bytes
) -> list[str | bytes | int | float]:
    """Return the names and values of a job's fields, enqueued now with serialised *data*.

    *ttls* are the seconds for which a result and a failure are kept.
    """
    now = stamp(time.time())
    alike = _alike(function, queue, timeout, ttls, description)
    return ["created_at", now, "enqueued_at", now, "data", packed(data), *alike]


def new_id() -> str:
    """Return an id that no other job has."""
    return os.urandom(16).hex()


@lru_cache(maxsize=1024)
def _alike(
    function: str, queue: str, timeout: int, ttls: tuple[int, int], description: str
) -> tuple[Any, ...]:
    """Return the fields that all such jobs share, name after value after name."""
    job = Job.create(
        function,
        connection=NOWHERE,
        origin=queue,
        timeout=timeout,
        result_ttl=ttls[0],
        failure_ttl=ttls[1],
        description=description,
        status=JobStatus.QUEUED,
    )
    fields = job.to_dict()
    return tuple(word for name in fields if name not in _OWN for word in (name, fields[name]))


def packed(data: bytes) -> bytes:
    """Return *data* in the form of zlib, as RQ keeps it; what is small is not made smaller."""
    size = len(data)
    if size > SMALL:
        return zlib.compress(data, 1 if size > LARGE else -1)
    length = size.to_bytes(2, "little")
    inverse = (size ^ 0xFFFF).to_bytes(2, "little")
    return b"".join((_STORED, length, inverse, data, zlib.adler32(data).to_bytes(4, "big")))
