"""A job that depends on two that fail at the same time: RQ enqueues it twice, it runs once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.job import Dependency, Job, JobStatus
from rq.worker import BaseWorker

from pysplash.jobs.claim_named import words
from pysplash.jobs.rq import fail as fail_by_worker
from pysplash.jobs.rq import requeue as requeue_by_worker
from pysplash.jobs.store_and_claim import Answer, Turn
from pysplash.worker.claims import Claims
from pysplash.worker.worker import Worker
from tests.generation import since_3
from tests.integration import nested_jobs as jobs
from tests.integration.nested_jobs import said
from tests.integration.rq_life import fail, finish, square

QUEUES = ["default"]
Claim = Callable[[Claims], Turn]


def try_in_vain() -> NoReturn:
    """Say who runs, and fail."""
    jobs.identity()
    raise LookupError("no luck")


def enqueue(redis: Redis, function: Any = jobs.identity, **options: Any) -> tuple[Job, list[Job]]:
    """Return a job that waits for two others to end, however they do, and those."""
    others = [Queue("elsewhere", connection=redis).enqueue(square, n) for n in (1, 2)]
    both = Dependency(others, allow_failure=True)
    queue = Queue("default", connection=redis)
    return queue.enqueue(function, job_id="job", depends_on=both, **options), others


def release(queue: Queue, others: list[Job]) -> None:
    """Let both jobs fail at the same time: RQ stores each failure before it looks who waits."""
    for other in others:
        fail(other)
    for other in others:
        queue.enqueue_dependents(other)


def play(queue: Queue) -> None:
    """Let a worker run what there is, here and now."""
    Worker([queue], connection=queue.connection).work(burst=True, logging_level="CRITICAL")


def test_rq_enqueues_it_twice(redis: Redis, queue: Queue) -> None:
    """The race is RQ's, and needs no luck: both failures stored, each enqueues what waits."""
    job, others = enqueue(redis)
    release(queue, others)
    assert queue.job_ids == [job.id, job.id]


def test_it_runs_once(redis: Redis, queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """The id that is left over is passed over, and the log says so."""
    job, others = enqueue(redis)
    release(queue, others)
    with caplog.at_level(logging.WARNING, "pysplash"):
        play(queue)

    assert said(redis) == ["job job"]
    assert queue.job_ids == []
    assert job.get_status() is JobStatus.FINISHED
    assert [r.getMessage() for r in caplog.records if getattr(r, "action", "") == "surplus"] == [
        "job job was enqueued more than once in queue default: skipped"
    ]


def test_it_is_retried_as_often_as_it_may(redis: Redis, queue: Queue) -> None:
    """A second run that is a retry is none too many, a third is; the last failure stays."""
    job, others = enqueue(redis, try_in_vain, retry=Retry(max=1))
    release(queue, others)
    play(queue)

    assert said(redis) == ["job job"] * 2
    assert queue.job_ids == []
    assert job.get_status() is JobStatus.FAILED
    assert job.id in queue.failed_job_registry


# --- claims by hand ---


@pytest.fixture
def claims(redis: Redis) -> Iterator[list[Claims]]:
    """The claims of two workers."""

    def away(error: Exception, pause: float) -> float:
        raise error

    options: Any = {"idle_ttl": 480, "leaving": lambda: False, "away": away}
    claims = [Claims(redis, name, **options) for name in ("w1", "w2")]
    yield claims
    for each in claims:
        each.close()


def in_turn(claims: Claims) -> Turn:
    """Claim what comes next."""
    return claims.take(None, QUEUES)


def by_name(claims: Claims) -> Turn:
    """Claim the job as one that waits for it does."""
    return claims.take_named(None, words("keeper", 1, "keeper:e", "w", QUEUES, ["job"]), 0.0).turn


claiming = pytest.mark.parametrize("claim", [in_turn, by_name])


@claiming
@pytest.mark.parametrize("early", [True, False], ids=["before it starts", "while it runs"])
def test_it_is_not_claimed_while_it_runs(
    redis: Redis, queue: Queue, claims: list[Claims], claim: Claim, early: bool
) -> None:
    """Neither by a worker's turn nor by name; whatever RQ writes meanwhile, it is started."""
    job, others = enqueue(redis)
    for other in others:
        fail(other)
    queue.enqueue_dependents(others[0])
    if early:
        queue.enqueue_dependents(others[1])
    assert in_turn(claims[0]).answer is Answer.JOB
    if not early:
        queue.enqueue_dependents(others[1])
        assert job.get_status() is JobStatus.QUEUED
    redis.hset(job.key, "status", "queued")  # else who claims by name looks no further

    turn = claim(claims[1])

    assert turn.answer is Answer.EMPTY
    assert turn.skipped == [[b"surplus", b"default", b"job"]]
    assert queue.job_ids == []
    assert job.get_status() is JobStatus.STARTED
    assert len(redis.keys("rq:execution:job:*")) == redis.zcard("rq:wip:default") == 1


def test_who_helps_says_what_is_passed_over(
    redis: Redis, queue: Queue, claims: list[Claims], caplog: pytest.LogCaptureFixture
) -> None:
    """A job that waits for one that runs elsewhere takes its second id away, and says so."""
    job, others = enqueue(redis)
    release(queue, others)
    assert in_turn(claims[0]).answer is Answer.JOB
    redis.hset(job.key, "status", "queued")
    keeper = queue.enqueue(jobs.wait_for, job.id, max_wait=0.1, at_front=True, job_timeout=60)
    with caplog.at_level(logging.WARNING, "pysplash"):
        Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL", max_jobs=1)

    assert keeper.return_value() is False
    assert said(redis) == queue.job_ids == []
    assert "job job was enqueued more than once in queue default" in caplog.text


@claiming
@pytest.mark.parametrize("lapsed", ["rq:execution:job:*", "rq:wip:default"])
def test_a_lapsed_execution_is_in_nobodys_way(
    redis: Redis, queue: Queue, claims: list[Claims], claim: Claim, lapsed: str
) -> None:
    """A worker that died, or that RQ's cleaning took for dead, runs nothing that counts."""
    job, others = enqueue(redis)
    release(queue, others)
    assert in_turn(claims[0]).answer is Answer.JOB
    redis.delete(*redis.keys(lapsed))
    redis.hset(job.key, "status", "queued")

    assert claim(claims[1]).answer is Answer.JOB


def requeue(job: Job, queue: Queue) -> None:
    """Fail it, and put it back as RQ's tools do."""
    fail(job)
    job.requeue()


def enqueue_again(job: Job, queue: Queue) -> None:
    """Finish it, and enqueue the same once more."""
    finish(job)
    queue.enqueue_job(job)


def return_it(job: Job, queue: Queue) -> None:
    """Put it back as a pool does whose worker died."""
    requeue_by_worker(BaseWorker([queue], connection=queue.connection), job, queue)


@claiming
@pytest.mark.parametrize("again", [requeue, enqueue_again, return_it])
def test_who_is_put_back_runs_again(
    redis: Redis,
    queue: Queue,
    claims: list[Claims],
    claim: Claim,
    again: Callable[[Job, Queue], None],
) -> None:
    """Each way in which a job that depends on others comes to be enqueued anew."""
    job, others = enqueue(redis)
    for other in others:
        finish(other)
    queue.enqueue_dependents(others[1])
    queue.remove(job)
    job.refresh()
    again(job, queue)

    assert claim(claims[0]).answer is Answer.JOB


@pytest.mark.parametrize("status", ["created", "deferred", "finished", "failed"])
def test_what_is_pushed_by_hand_runs(
    redis: Redis, queue: Queue, claims: list[Claims], status: str
) -> None:
    """A job that depends on none runs as often as its id is pushed, as by RQ's worker."""
    job = queue.enqueue(square, 2)
    redis.hset(job.key, "status", status)
    assert in_turn(claims[0]).job_id == job.id.encode()


# --- failing ---


class Slow(Queue):
    """A queue in which something happens before it is looked who waits for a job that failed."""

    meanwhile: list[Callable[[], None]]

    def enqueue_dependents(self, job: Job, *arguments: Any, **options: Any) -> Any:
        """Take a while."""
        if self.meanwhile:
            self.meanwhile.pop()()
        return super().enqueue_dependents(job, *arguments, **options)


class Slower(Queue):
    """A queue in which something happens before what waits is enqueued, all being looked at."""

    meanwhile: list[Callable[[], None]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.log = logging.Logger("slower", logging.DEBUG)
        self.log.addFilter(self._take_a_while)

    def _take_a_while(self, record: logging.LogRecord) -> bool:
        if "dependent jobs" in record.msg and self.meanwhile:
            self.meanwhile.pop()()
        return False


@pytest.mark.parametrize("kind", [Slow, Slower])
def test_who_fails_late_enqueues_nobody_again(
    redis: Redis, queue: Queue, kind: type[Slow | Slower]
) -> None:
    """What waits was released, and has come to its end, between a failure and a look who waits."""
    job, (first, second) = enqueue(redis)

    def all_else() -> None:
        queue.enqueue_dependents(first)
        play(queue)

    late = kind("default", connection=redis)
    late.meanwhile = [all_else]
    fail(first)
    fail_by_worker(BaseWorker([queue], connection=redis), second, late, "no luck")

    assert late.meanwhile == []
    assert said(redis) == ["job job"]
    assert queue.job_ids == []
    assert job.get_status() is JobStatus.FINISHED


@since_3
@pytest.mark.parametrize("function", [square, try_in_vain])
def test_who_waits_is_enqueued_beside_others(
    redis: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch, function: Any
) -> None:
    """RQ 3 gives a ready job up if another one becomes ready in the same moment; we do not."""
    others = ["one", "two", "three"]
    enqueue_job = Queue._enqueue_job

    def beside(self: Queue, job: Job, *arguments: Any, **options: Any) -> Job:
        if others and job.id == "job":
            redis.zadd("rq:ready:default", {others.pop(): 1})
        return enqueue_job(self, job, *arguments, **options)

    first = queue.enqueue(function, *[2] * (function is square))
    on_it = Dependency(first, allow_failure=True)
    queue.enqueue(jobs.identity, job_id="job", depends_on=on_it)
    monkeypatch.setattr(Queue, "_enqueue_job", beside)
    play(queue)

    assert others == []
    assert said(redis)[-1:] == ["job job"]


def test_who_fails_last_enqueues_who_waits(redis: Redis, queue: Queue) -> None:
    """All the same the last failure releases what waits for it."""
    job, others = enqueue(redis)
    worker = BaseWorker([queue], connection=redis)
    for other, after in zip(others, ([], [job.id]), strict=True):
        fail_by_worker(worker, other, Queue("elsewhere", connection=redis), "no luck")
        assert queue.job_ids == after
    assert job.id not in queue.deferred_job_registry
