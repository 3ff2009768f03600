"""Plain jobs are restored by the places of their fields, as RQ would restore them by name."""

from __future__ import annotations

import pickle
import random
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rq.job import Job

from pysplash.client.requests import NOWHERE, job_fields
from pysplash.jobs.restoring import Restorer, called, stamp, written

MOMENT = ("1763752011.123456", "2025-11-21T19:06:51.123456Z")


@given(st.integers(0, 4 * 10**15))
def test_a_time_is_written_in_both_ways(micros: int) -> None:
    """In seconds, and as RQ writes it, to the microsecond."""
    seconds, text = written(micros)
    assert round(float(seconds) * 1e6) == micros
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    assert datetime.fromisoformat(text) == moment
    assert len(text) == len(MOMENT[1])
    assert stamp(float(seconds)) == text


def hash_of(**changes: Any) -> dict[bytes, bytes]:
    """Return the hash of a plain job, but for the *changes*; None takes a field away."""
    call = pickle.dumps(("operator.abs", None, (-1,), {}))
    flat = job_fields("operator.abs", "fast", 7, (60, 90), "abs", call)
    fields = dict(zip(flat[::2], flat[1::2], strict=True)) | changes
    stored = {}
    for name, each in fields.items():
        text = each if isinstance(each, str | bytes) else str(each)
        stored[str(name).encode()] = text.encode() if isinstance(text, str) else text
    return {name: text for name, text in stored.items() if text != b"None"}


def raw(fields: dict[bytes, bytes], order: int = 0) -> list[bytes]:
    """Return *fields* as the server gives them, in some *order*."""
    pairs = list(fields.items())
    random.Random(order).shuffle(pairs)
    return [word for pair in pairs for word in pair]


def seen(job: Job | None) -> dict[str, Any]:
    """Return all that is to be seen of *job*."""
    assert job is not None
    return {name: value for name, value in vars(job).items() if name != "connection"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"description": None},
        {"result_ttl": None, "failure_ttl": None},
        {"data": pickle.dumps(("operator.neg", None, (2,), {}))},
        {"result_ttl": -1, "timeout": -1},
    ],
)
def test_a_plain_job_is_what_rq_makes_of_it(changes: dict[str, Any]) -> None:
    """All its attributes are, whatever was restored before, and no two jobs share any of them."""
    restorer = Restorer(NOWHERE, None)
    fields = hash_of(**changes)
    restorer.prepare()
    theirs = Job("same", connection=NOWHERE)
    theirs.restore(fields)
    for order in (0, 1, 1):
        ours = restorer.restore_plain("same", raw(fields, order))
        assert seen(ours) == seen(theirs)
        assert ours is not None
        ours.meta["mine"] = 1
        restorer.restore_plain("other", raw(hash_of()))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "canceled"},
        {"created_at": ""},
        {"enqueued_at": None},
        {"started_at": MOMENT[1]},
        {"group_id": "group"},
        {"success_callback_name": "f"},
        {"retries_left": 1},
        {"dependency_ids": "[]"},
        {"timeout": "9" * 300},
        {"data": None},
    ],
)
def test_what_is_special_is_left_to_rq(changes: dict[str, Any]) -> None:
    """A job is plain by its names and by its values, also where the one before was plain."""
    restorer = Restorer(NOWHERE, None)
    for _ in range(2):
        assert restorer.restore_plain("special", raw(hash_of(**changes))) is None
        assert restorer.restore_plain("plain", raw(hash_of())) is not None


def test_what_makes_no_sense_is_refused() -> None:
    """As it is by RQ: an id that is none, numbers and times that are none."""
    restorer = Restorer(NOWHERE, None)
    restorer.prepare()
    for job_id, changes in [("a b", {}), ("a", {"timeout": "soon"}), ("a", {"created_at": "now"})]:
        with pytest.raises(ValueError):  # noqa: PT011 -- each has a text of its own, RQ's
            restorer.restore_plain(job_id, raw(hash_of(**changes)))
        assert restorer.restore_plain("fine", raw(hash_of())) is not None


class Counter:
    """Something with a method."""

    def real(self) -> int:
        """Return one."""
        return 1


class Odd:
    """Something with a method whose name looks like that of a function elsewhere."""

    def __getattr__(self, name: str) -> str:
        return name


@pytest.mark.parametrize(
    ("name", "instance"),
    [
        ("operator.abs", None),
        ("len", None),
        (f"{__name__}.Counter.real", None),
        ("real", 7),
        ("operator.abs", Odd()),
    ],
)
def test_what_a_job_calls_is_what_rq_calls(name: str, instance: Any) -> None:
    """A function of a module, a built-in one, one of a class, a method of an object by any name."""
    job = Job.create(name, connection=NOWHERE)
    job._instance = instance
    assert called(job) == job.func


def test_what_a_job_calls_may_be_replaced() -> None:
    """It is looked up each time."""
    job = Job.create(f"{__name__}.NAMED", connection=NOWHERE)
    before = called(job)
    globals()["NAMED"] = zlib.crc32
    assert (before, called(job)) == (len, zlib.crc32)


NAMED: Any = len
