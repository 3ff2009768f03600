"""What a wait costs: time, round trips and connections, with Redis there and away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.results import Result

from pysplash.embedded import EmbeddedServer
from pysplash.errors import JobFailed
from pysplash.waiting.wait import wait_jobs
from pysplash.waiting.waiter import Waiter
from tests.integration.rq_life import (
    aside,
    await_block,
    blocked,
    boom,
    calls,
    fail,
    finish,
    square,
    work,
)
from tests.waiting import wait_until


def test_a_waiter_is_woken_by_the_end_of_a_job(queue: Queue, redis: Redis) -> None:
    """The end of the last job wakes the waiter, not the next look a second later."""
    delays = []
    for _ in range(5):
        job = queue.enqueue(square, 1)
        waiting = aside(wait_jobs, [job])
        await_block(redis)
        ended = time.monotonic()
        finish(job)
        assert waiting.result(20) is True
        delays.append(time.monotonic() - ended)
    assert min(delays) < 0.2


def test_an_end_between_look_and_read_is_seen(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ends after the look and before the blocking read does not cost a whole block."""
    sleep = Waiter._sleep
    job = queue.enqueue(square, 6)

    def end_first(waiter: Waiter) -> None:
        finish(job, 36)
        sleep(waiter)

    monkeypatch.setattr("pysplash.waiting.waiter.BLOCK", 40.0)
    monkeypatch.setattr(Waiter, "_sleep", end_first)
    began = time.monotonic()
    assert wait_jobs([job], 50, True) == [36]
    assert time.monotonic() - began < 20


def test_zero_looks_once(queue: Queue, redis: Redis) -> None:
    """max_wait 0 says whether all have ended and never blocks."""
    job = queue.enqueue(square, 2)
    assert wait_jobs([job], 0) is False
    assert wait_jobs([job], 0, True) is False
    work(queue)
    assert wait_jobs([job], 0) is True
    assert calls(redis, "xread") == 0


@pytest.mark.parametrize("block", [20.0, 0.1])
def test_max_wait_is_kept(queue: Queue, monkeypatch: pytest.MonkeyPatch, block: float) -> None:
    """The wait ends when its time is over, be it shorter or longer than one blocking read."""
    monkeypatch.setattr("pysplash.waiting.waiter.BLOCK", block)
    began = time.monotonic()
    assert wait_jobs([queue.enqueue(square, 1)], 0.3, True) is False
    assert 0.3 <= time.monotonic() - began < 5  # a read that is not cut short takes six


def test_a_lost_connection_is_replaced(queue: Queue, redis: Redis) -> None:
    """A connection killed in the middle of the wait costs nothing but a moment."""
    job = queue.enqueue(square, 5)
    waiting = aside(wait_jobs, [job], 20, True)
    killed = await_block(redis)
    for number in killed:
        redis.client_kill_filter(_id=number)
    wait_until(lambda: set(blocked(redis)) - set(killed), 30, "a read on a new connection")
    work(queue)
    assert waiting.result(20) == [25]


def test_max_wait_is_kept_without_redis(server: EmbeddedServer, queue: Queue, redis: Redis) -> None:
    """While Redis is away the wait goes on, but not past its time."""
    waiting = aside(wait_jobs, [queue.enqueue(square, 5)], 1.5)
    await_block(redis)
    began = time.monotonic()
    server.stop()
    assert waiting.result(20) is False
    assert time.monotonic() - began < 15


def test_no_connection_is_left_behind(queue: Queue, redis: Redis) -> None:
    """After the wait there are as many connections as before, whichever way it ended."""
    jobs = [queue.enqueue(square, 1), queue.enqueue(boom)]
    work(queue, max_jobs=1)
    before = len(redis.client_list())
    assert wait_jobs(jobs, 0.05) is False
    fail(jobs[1])
    with pytest.raises(JobFailed) as caught:
        wait_jobs(jobs)
    wait_until(lambda: len(redis.client_list()) == before, 30, "the end of the connections")
    assert caught.tb is not None  # it keeps the waiter from being collected


def test_many_finished_jobs_cost_few_round_trips(redis: Redis) -> None:
    """Ten thousand jobs that have ended are seen in ten round trips, without a blocking read."""
    jobs = [Job.create(square, connection=redis, id=str(n)) for n in range(10_000)]
    with redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.hset(job.key, "status", "finished")
            pipe.xadd(Result.get_key(job.id), {"type": 1})
        pipe.execute()
    assert wait_jobs(jobs, 60, True) == [None] * 10_000
    assert calls(redis, "eval") == 10
    assert calls(redis, "xread") == 0


@pytest.mark.parametrize(
    ("order", "most"), [("first to last", 3), ("last to first", 4), ("any", 25)]
)
def test_many_ends_cost_few_round_trips(
    queue: Queue, redis: Redis, trips: Callable[[], int], order: str, most: int
) -> None:
    """Jobs that end one by one in either order cost next to none, in any their logarithm."""
    jobs = [queue.enqueue(square, number) for number in range(200)]
    ending = (
        random.Random(1).sample(jobs, 200)
        if order == "any"
        else jobs[:: 1 if order == "first to last" else -1]
    )
    waiting = aside(wait_jobs, jobs, 60)
    began = time.monotonic()
    for job in ending:
        await_block(redis)
        finish(job)
    assert waiting.result(60) is True
    assert trips() <= most + (time.monotonic() - began)


def nearly_in_order(jobs: list[Job], apart: int) -> list[Job]:
    """Return *jobs* as so many workers end them."""
    chance = random.Random(4)
    return [
        job for _, job in sorted((n + chance.uniform(0, apart), job) for n, job in enumerate(jobs))
    ]


def test_a_thousand_jobs_cost_ten_round_trips(
    queue: Queue, redis: Redis, trips: Callable[[], int]
) -> None:
    """A wait for a thousand jobs that eight workers end: at most one round trip a hundred."""
    jobs = queue.enqueue_many([Queue.prepare_data(square, (n,)) for n in range(1000)])
    waiting = aside(wait_jobs, jobs, 60)
    await_block(redis)
    began = time.monotonic()
    for job in nearly_in_order(jobs, 8):
        finish(job)
    assert waiting.result(60) is True
    assert trips() <= 10 + (time.monotonic() - began)
