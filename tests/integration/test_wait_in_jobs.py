"""wait_jobs inside a job: circles, edges, timeouts and the scoreboard."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue, get_current_job
from rq.job import Job
from rq.timeouts import UnixSignalDeathPenalty

from pysplash.control.model import WorkerState
from pysplash.waiting.offer import attach
from pysplash.waiting.wait import wait_jobs
from pysplash.worker.scoreboard import Scoreboard, Slot
from tests.integration.rq_life import (
    ThreadWorker,
    aside,
    await_block,
    fail,
    finish,
    square,
    work,
    workers,
)
from tests.waiting import wait_until


def wait_for(*names: str, max_wait: float = 10) -> Any:
    """Be a job that waits for others, by id."""
    me = get_current_job()
    assert me is not None
    jobs = Job.fetch_many(names, connection=me.connection)
    return wait_jobs([job for job in jobs if job], max_wait, True)


def error_of(job: Job) -> str:
    """Return the remote traceback of a failed job."""
    result = job.latest_result()
    assert result is not None
    return result.exc_string or ""


def test_waiting_for_oneself_is_an_error(queue: Queue) -> None:
    """A job that waits for itself fails at once."""
    job = queue.enqueue(wait_for, "me", job_id="me")
    work(queue)
    assert "WouldDeadlock: job me waits for itself" in error_of(job)


@pytest.mark.parametrize("between", [[], ["b"], ["b", "c", "d"]])
def test_a_circle_is_an_error(queue: Queue, redis: Redis, between: list[str]) -> None:
    """A job fails at once that waits for a job waiting for it, through any number of others."""
    circle = ["a", *between, "z", "a"]
    for waiting, waited in itertools.pairwise(circle[1:]):
        redis.sadd(f"pysplash:waits:{waiting}", waited)
    for name in circle[1:-1]:
        queue.enqueue(square, 1, job_id=name)
    job = queue.enqueue(wait_for, circle[1], job_id="a", at_front=True)
    work(queue, max_jobs=1)
    assert "WouldDeadlock" in error_of(job)
    assert not redis.exists("pysplash:waits:a")


def test_two_jobs_that_wait_for_each_other_end(queue: Queue) -> None:
    """Of two jobs that wait for each other one sees the circle; the other sees that one fail."""
    with queue.connection.pipeline() as pipe:
        one = queue.enqueue(wait_for, "two", job_id="one", pipeline=pipe)
        two = queue.enqueue(wait_for, "one", job_id="two", pipeline=pipe)
        pipe.execute()
    with workers(queue, 2):
        assert wait_jobs([one, two], 20, on_failure="none") is True
    assert "WouldDeadlock" in error_of(one) + error_of(two)


def test_a_tree_of_waiting_jobs_is_no_circle(queue: Queue) -> None:
    """Two jobs may wait for the same one, and one of them for the other."""
    queue.enqueue(wait_for, "middle", "leaf", job_id="top")
    queue.enqueue(wait_for, "leaf", job_id="middle")
    queue.enqueue(square, 3, job_id="leaf")
    with workers(queue, 3):
        top = Job.fetch("top", connection=queue.connection)
        assert wait_jobs([top], 20, True) == [[[9], 9]]


@pytest.mark.parametrize(
    ("end", "max_wait"), [(finish, 10), (fail, 10), (Job.delete, 10), (print, 0.3)]
)
def test_edges_last_as_long_as_the_wait(
    queue: Queue, redis: Redis, end: Callable[[Job], None], max_wait: float
) -> None:
    """While a job waits its edges are in Redis, with a time to live; afterwards they are not."""
    child = queue.enqueue(square, 3, job_id="child")
    queue.enqueue(wait_for, "child", max_wait=max_wait, job_id="me", at_front=True)
    working = aside(work, queue, max_jobs=1)
    wait_until(lambda: redis.exists("pysplash:waits:me"), 30, "the edges")
    assert redis.smembers("pysplash:waits:me") == {b"child"}
    assert 0 < redis.ttl("pysplash:waits:me") <= 60
    await_block(redis)
    end(child)
    working.result(20)
    assert not redis.exists("pysplash:waits:me")


def test_a_timeout_ends_the_wait(queue: Queue, redis: Redis) -> None:
    """The waiting job's own timeout breaks the blocking read, and the edges are withdrawn."""

    class AlarmWorker(ThreadWorker):
        death_penalty_class = UnixSignalDeathPenalty

    queue.enqueue(square, 3, job_id="child")
    job = queue.enqueue(wait_for, "child", at_front=True, job_timeout=1)
    AlarmWorker([queue], connection=redis).work(burst=True, max_jobs=1, logging_level="ERROR")
    assert "JobTimeoutException" in error_of(job)
    assert redis.keys("pysplash:*") == []


def test_a_waiting_worker_says_so(queue: Queue, redis: Redis) -> None:
    """The worker's row says waiting during the wait, and what it said before after it."""
    board = Scoreboard(1)
    slot = Slot(board, 0, "w")
    slot.claimed("parent", None)
    attach(slot)
    try:
        job = queue.enqueue(square, 1)
        waiting = aside(wait_jobs, [job])
        await_block(redis)
        row = board.read(0)
        finish(job)
        waiting.result(20)
        after = board.read(0)
    finally:
        attach(None)
        board.close()
    assert row is not None
    assert row.state is WorkerState.WAITING
    assert after is not None
    assert after.state is WorkerState.BUSY
