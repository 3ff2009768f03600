"""The parts of waiting that need no Redis: arguments, outcomes, order, circles."""

from __future__ import annotations

import math
import pickle
import zlib
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq.job import Job, JobStatus
from rq.results import Result

from pysplash.errors import JobFailed
from pysplash.jobs.results import VANISHED, ResultEntry
from pysplash.waiting.clients import Clients
from pysplash.waiting.deadlock import reaches
from pysplash.waiting.offer import Search
from pysplash.waiting.outcomes import Outcome, classify, collect
from pysplash.waiting.progress import Tally
from pysplash.waiting.wait import check, wait_jobs
from pysplash.waiting.waiter import Waiter

UNUSED = Redis()
PENDING = sorted(set(JobStatus) - {"finished", "failed", "stopped", "canceled"})


def job(name: str = "a", **settings: Any) -> Job:
    """Return a job that was never enqueued."""
    return Job.create(print, id=name, connection=UNUSED, **settings)


def entry(kind: Result.Type, value: object = None, trace: str = "") -> ResultEntry:
    """Return an entry of a result stream, as RQ writes it."""
    fields = {b"type": str(kind.value).encode()}
    if value is not None:
        fields[b"return_value"] = b64encode(pickle.dumps(value))
    if trace:
        fields[b"exc_string"] = b64encode(zlib.compress(trace.encode()))
    return b"1-0", fields


SUCCESS = entry(Result.Type.SUCCESSFUL, 7)


@pytest.mark.parametrize("status", PENDING)
def test_an_old_entry_does_not_end_a_job(status: str) -> None:
    """A job that is not in a final status is pending, whatever an earlier run left behind."""
    assert classify(job(), status.encode(), SUCCESS) is None
    assert classify(job(), status.encode(), entry(Result.Type.RETRIED, 7)) is None


def test_a_finished_job_has_its_newest_value() -> None:
    """A finished job's value is read from the newest entry."""
    outcome = classify(job(), b"finished", SUCCESS)
    assert outcome is not None
    assert outcome.ok
    assert outcome.value() == 7


@pytest.mark.parametrize("found", [None, entry(Result.Type.SUCCESSFUL)])
def test_a_finished_job_may_have_no_value(found: ResultEntry | None) -> None:
    """A finished job without a stored value gives None."""
    outcome = classify(job(), b"finished", found)
    assert outcome is not None
    assert outcome.ok
    assert outcome.value() is None


@pytest.mark.parametrize("status", ["failed", "stopped", "canceled"])
def test_a_failure_carries_job_status_and_traceback(status: str) -> None:
    """The error for a job that did not finish names it and quotes its last line."""
    mine = job("mine")
    trace = "Traceback:\n  somewhere\nValueError: no\n"
    outcome = classify(mine, status.encode(), entry(Result.Type.FAILED, trace=trace))
    assert outcome is not None
    error = outcome.failure()
    assert (error.job, error.status, error.traceback) == (mine, status, trace)
    assert str(error) == f"job mine {status}: ValueError: no"


def test_an_earlier_success_is_no_traceback() -> None:
    """A cancelled job whose newest entry is a success has an empty traceback."""
    outcome = classify(job(), b"canceled", SUCCESS)
    assert outcome is not None
    assert outcome.failure().traceback == ""


def test_a_missing_job_vanished_unless_it_keeps_no_result() -> None:
    """A missing job counts as vanished, but as finished where success removes it."""
    gone, kept_nothing = classify(job(), None, SUCCESS), classify(job(result_ttl=0), None, SUCCESS)
    assert gone is not None
    assert gone.status == VANISHED
    assert kept_nothing is not None
    assert kept_nothing.ok
    assert kept_nothing.value() is None


@given(st.lists(st.one_of(st.integers(), st.none())))
def test_results_stand_in_the_order_asked_for(values: list[int | None]) -> None:
    """Each position holds the result of its own job; None in *values* stands for a failure."""
    outcomes = [
        Outcome(job(), "failed")
        if value is None
        else Outcome(job(), "finished", entry(Result.Type.SUCCESSFUL, value))
        for value in values
    ]
    assert collect(outcomes, "none") == values
    returned = collect(outcomes, "return")
    assert [None if isinstance(item, JobFailed) else item for item in returned] == values


NODES = st.sets(st.sampled_from(range(10)))


@given(st.lists(NODES, max_size=10), NODES)
def test_a_circle_is_found_exactly_if_there_is_one(edges: list[set[int]], start: set[int]) -> None:
    """The walk answers as the transitive closure does, and asks once a level."""
    asked: list[str] = []
    graph = dict(enumerate(edges))

    def follow(nodes: list[str]) -> list[set[str]]:
        asked.extend(nodes)
        return [{str(after) for after in graph.get(int(node), ())} for node in nodes]

    closure = set(start)
    for _ in range(10):
        closure |= {after for node in closure for after in graph.get(node, ())}
    assert reaches("0", map(str, start), follow) is (0 in closure)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("wrong", [-1, -0.001, math.nan, -math.inf])
def test_a_wrong_max_wait_is_named(wrong: float) -> None:
    """A negative or NaN max_wait is refused, by value, before anything else is done."""
    with pytest.raises(ValueError, match=rf"max_wait.*{wrong!r}"):
        wait_jobs([], wrong)


@pytest.mark.parametrize("right", [None, 0, 0.5, math.inf])
def test_a_right_max_wait_passes(right: float | None) -> None:
    """None, zero, fractions and infinity are waiting times."""
    check(right, "raise")


def test_a_wrong_on_failure_is_named() -> None:
    """An unknown on_failure is refused, by value."""
    with pytest.raises(ValueError, match=r"on_failure.*'ignore'"):
        wait_jobs([], on_failure="ignore")


def test_a_search_looks_at_each_id_once() -> None:
    """Few ids at first, more while nothing is found, few again after a find; none twice."""
    search = Search([str(number) for number in range(200)])
    sizes = []
    found = iter([False, False, True, False, False, False, False])
    while names := search.batch():
        sizes.append(len(names))
        claimed = next(found)
        seen = 3 if claimed else len(names)
        search.saw(seen, claimed=claimed, beneath=["1", "199", "new"])

    assert sizes == [8, 128, 65, 8, 54]
    assert search.batch() == []


@pytest.mark.parametrize("backwards", [False, True])
def test_few_are_left_when_the_last_ends(backwards: bool) -> None:
    """Jobs that end in order, or in the reverse: few reads, and a short look after the last end."""
    jobs = [job(str(number)) for number in range(1000)]
    waiter = Waiter(jobs, None, Clients(), keep_results=False, raising=True)
    left = []
    while waiter.pending:
        (_, watched), _ = waiter._choose()
        left.append(len(waiter.pending))
        for key in list(waiter.pending):
            if (int(key[1]) >= int(watched)) if backwards else (int(key[1]) <= int(watched)):
                del waiter.pending[key]

    assert len(left) <= 4
    assert left[-1] <= Waiter.few


def test_a_tally_is_put_in_words() -> None:
    """The picture of a wait names what there is to say: failures, the rest, the rate."""
    assert Tally(total=3, queued=3).text(0.0) == "0 running, 3 queued"
    tally = Tally(total=9, done=6, failed=1, running=2, queued=1)
    assert tally.text(4.0) == "1 failed, 2 running, 1 queued, 1.5/s"


def test_no_jobs_have_all_ended() -> None:
    """An empty list is True at once, or an empty list of results, without a connection."""
    assert wait_jobs([]) is True
    assert wait_jobs(iter(()), 0, True) == []
