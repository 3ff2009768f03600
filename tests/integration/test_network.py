"""Outcomes of which the request or the reply is lost: each is stored once, and what follows is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry as Again
from rq import Callback, Queue, Repeat, Retry
from rq.job import Dependency, Job

from benchmarks.network import Relay
from pysplash.embedded import EmbeddedServer
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.worker import Worker
from tests.generation import RQ_3, since_3

#: what the transaction holds by which RQ's code stores an outcome, and what the script of a turn
FAILURE = (b"\r\nEXEC\r\n", b"\r\nXADD\r\n")
BY_RQ, BY_SCRIPT = (b"\r\nEXEC\r\n", b"\r\nHINCRBY\r\n"), (b"\r\nEVALSHA\r\n", b"\r\njob\r\n")


class Snare:
    """What is to befall the outcome of the first run of a job, and what was run."""

    relay: ClassVar[Relay]
    words: ClassVar[tuple[bytes, ...]]
    trouble: ClassVar[str]
    runs: ClassVar[Counter[str]]


def act(name: str, *, fails: bool = False, again: bool = False) -> Any:
    """Be a job: its first run's outcome runs into trouble."""
    Snare.runs[name] += 1
    if Snare.runs[name] == 1 and name == "job":
        Snare.relay.await_words(Snare.words, Snare.trouble)
    if fails:
        raise ValueError(name)
    return Retry(max=1) if again and Snare.runs[name] == 1 else name


def told(*_: Any) -> None:
    """Be a callback."""
    Snare.runs["callback"] += 1


class Counted(Worker):
    """A worker that looks at its counters before it leaves."""

    counted = (0, 0)

    def teardown(self) -> None:
        """Look, then leave."""
        names = ("successful_job_count", "failed_job_count")
        found: Any = self.connection.hmget(self.key, *names)
        self.counted = (int(found[0] or 0), int(found[1] or 0))
        super().teardown()


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """A board of one row."""
    board = Scoreboard(1)
    yield board
    board.close()


@pytest.fixture
def relay(server: EmbeddedServer) -> Iterator[Relay]:
    """A relay in front of the test's own server."""
    with Relay(server.url.removeprefix("unix://")) as relay:
        yield relay


class End(NamedTuple):
    """How a job ends: how often it and its callback run, what is kept and counted of that."""

    status: str
    runs: int = 1
    calls: int = 0
    results: int = 1
    successes: int = 0
    failures: int = 0


FAILS = {"fails": True}
#: what a job is enqueued with, and how it ends
CASES: dict[str, tuple[dict[str, Any], End]] = {
    "plain": ({}, End("finished", successes=1)),
    "followed": ({"on_success": Callback(told)}, End("finished", calls=1, successes=1)),
    "failing": (
        {"kwargs": FAILS, "on_failure": Callback(told)},
        End("failed", calls=1, failures=1),
    ),
    "retried": ({"kwargs": FAILS, "retry": Retry(max=1)}, End("failed", runs=2, failures=2)),
    "asking": (
        {"kwargs": {"again": True}},  # which RQ counts as a failure
        End("finished", runs=2, results=2, successes=1, failures=1),
    ),
    "repeated": ({"repeat": Repeat(times=1)}, End("finished", runs=2, results=2, successes=2)),
}


@pytest.mark.parametrize("trouble", ["cut", "request in part", "reply lost"])
@pytest.mark.parametrize("case", CASES)
def test_an_outcome_is_stored_once(
    redis: Redis, relay: Relay, board: Scoreboard, case: str, trouble: str
) -> None:
    """Whether it was on its way to Redis or back: one result, one count, and what waits goes on."""
    options, end = CASES[case]
    Snare.relay, Snare.trouble, Snare.runs = relay, trouble, Counter()
    Snare.words = BY_SCRIPT if case == "plain" else FAILURE if case == "failing" else BY_RQ
    queue = Queue("default", connection=redis)
    job = queue.enqueue_call(act, ("job",), job_id="job", **options)
    waiting: dict[str, Job] = {}
    if case != "plain":  # what depends on it makes it RQ's business, which the others are anyway
        for name, fine in (("strict", False), ("lenient", True)):
            after = Dependency(job, allow_failure=fine)
            waiting[name] = queue.enqueue_call(act, (name,), depends_on=after)

    client = Redis.from_url(relay.url, retry=Again(NoBackoff(), 0))
    worker = Counted([Queue("default", connection=client)], connection=client, name="w")
    worker.slot = Slot(board, 0, "w")
    worker.work(burst=True)
    client.close()

    assert relay.sprung
    assert job.get_status() == end.status
    assert (Snare.runs["job"], Snare.runs["callback"]) == (end.runs, end.calls)
    assert len(job.results()) == end.results
    for name, dependent in waiting.items():
        met = end.status == "finished" or name == "lenient"
        assert dependent.get_status() == ("finished" if met else "deferred")
        assert Snare.runs[name] == met
    ran = sum(Snare.runs[name] for name in waiting)
    successes, failures = worker.counted
    # RQ 2 counts a failure by itself, whether it could store it or not.
    assert failures == end.failures or (not RQ_3 and case == "failing")
    assert successes == end.successes + ran
    assert redis.keys("rq:execution*") == []
    assert redis.zcard("rq:wip:default") == redis.llen("rq:queue:default") == 0


@since_3  # RQ 2 stores a failure and its counters apart
def test_what_is_never_stored_is_set_aside(redis: Redis, board: Scoreboard) -> None:
    """Redis is there and refuses one of the commands: the job fails, and keeps no other waiting."""
    queue = Queue("default", connection=redis)
    Snare.runs, Snare.words, Snare.trouble = Counter({"job": 1}), (b"nothing",), "cut"
    job = queue.enqueue(act, "job", fails=True)
    later = queue.enqueue(act, "later")
    redis.acl_setuser("default", enabled=True, nopass=True, commands=["-hincrbyfloat"])
    worker = Worker([queue], connection=redis, name="w")
    worker.slot = Slot(board, 0, "w")
    worker._outcomes.most_tries = 2
    worker.work(burst=True)

    assert job.get_status() == "failed"
    (result,) = job.results()
    assert "its outcome cannot be stored" in str(result.exc_string)
    assert redis.lrange("pysplash:quarantine:default", 0, -1) == [job.id.encode()]
    assert later.get_status() == "finished"
    assert redis.zcard("rq:wip:default") == 0
