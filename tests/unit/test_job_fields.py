"""Jobs made from a template: what RQ reads of them is what RQ would have written."""

from __future__ import annotations

import os
import pickle
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rq.job import Job, JobStatus

from pysplash.client.requests import LARGE, NOWHERE, SMALL, TRIED, job_fields, packed


@given(st.binary(max_size=SMALL + 50))
def test_what_is_packed_is_unpacked(data: bytes) -> None:
    """RQ's own way to unpack gives the same bytes back, whatever they are."""
    assert zlib.decompress(packed(data)) == data


def test_what_is_large_is_made_smaller() -> None:
    """Bytes in plenty are packed in earnest; of any size, they come back."""
    for size in (0, 1, SMALL, SMALL + 1, LARGE, LARGE + 1, 10 * LARGE):
        data = b"x" * size
        assert zlib.decompress(packed(data)) == data
        assert len(packed(data)) <= max(SMALL + 11, size // 20)


def test_what_is_dense_is_left_as_it_is() -> None:
    """That would take long and save nothing: it comes back, hardly longer than it was."""
    for size in (TRIED, TRIED + 1, LARGE, 10 * LARGE):
        data = os.urandom(size)
        assert zlib.decompress(packed(data)) == data
        assert len(packed(data)) <= size + 100


def read(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what RQ's job makes of *fields* as Redis would give them."""
    job = Job("same", connection=NOWHERE)
    stored = {}
    for name, each in fields.items():
        text = each if isinstance(each, str | bytes) else str(each)
        stored[name] = text.encode() if isinstance(text, str) else text
    job.restore(stored)
    return {name: value for name, value in vars(job).items() if name != "connection"}


def test_rq_reads_the_job_it_would_have_made() -> None:
    """All of a job's attributes are those of a job that RQ itself has made, but for the moment."""
    call = ("f.g", None, (1, "a"), {"b": [2]})
    words = job_fields("f.g", "fast", 7, (60, 90), "f", pickle.dumps(call))
    ours: dict[Any, Any] = dict(zip(words[::2], words[1::2], strict=True))
    job = Job.create(
        "f.g",
        (1, "a"),
        {"b": [2]},
        NOWHERE,
        result_ttl=60,
        failure_ttl=90,
        timeout=7,
        origin="fast",
        description="f",
        status=JobStatus.QUEUED,
        id="same",
    )
    theirs = job.to_dict() | {name: ours[name] for name in ("created_at", "enqueued_at")}
    assert pickle.loads(zlib.decompress(ours["data"])) == call
    theirs["data"] = ours["data"]
    assert read(ours) == read(theirs)
