"""wait_jobs on a real server."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry, get_current_job
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.timeouts import UnixSignalDeathPenalty

from pysplash.embedded import EmbeddedServer
from pysplash.errors import JobFailed
from pysplash.scoreboard import Scoreboard, Slot, attach
from pysplash.state import WorkerState
from pysplash.wait import _Waiter, wait_jobs
from tests.integration.rq_life import (
    aside,
    await_block,
    blocked,
    calls,
    fail,
    finish,
    work,
    workers,
)
from tests.waiting import wait_until


def square(number: int) -> int:
    """Be a job with a result."""
    return number * number


def boom() -> None:
    """Be a job that fails."""
    raise LookupError("no such thing")


def second_try() -> Any:
    """Be a job that asks to be run again, once."""
    job = get_current_job()
    assert job is not None
    return "done" if job.number_of_retries else Retry(max=1)


def wait_for(*names: str, max_wait: float = 10) -> Any:
    """Be a job that waits for others, by id."""
    me = get_current_job()
    assert me is not None
    jobs = Job.fetch_many(names, connection=me.connection)
    return wait_jobs([job for job in jobs if job], max_wait, True)


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """A queue of the test's own."""
    return Queue("default", connection=redis)


def error_of(job: Job) -> str:
    """Return the remote traceback of a failed job."""
    result = job.latest_result()
    assert result is not None
    return result.exc_string or ""


def test_results_of_a_worker(queue: Queue) -> None:
    """Jobs run by a worker give their results in the order asked for; without collecting, True."""
    jobs = [queue.enqueue(square, number, at_front=True) for number in range(20)]
    waiting = aside(wait_jobs, jobs, 20, True)
    work(queue)
    assert waiting.result(20) == [number**2 for number in range(20)]
    assert wait_jobs(jobs) is True


@pytest.mark.parametrize("seed", range(3))
def test_results_in_order_whatever_ends_first(queue: Queue, redis: Redis, seed: int) -> None:
    """The order in which jobs end does not show in the results."""
    jobs = [queue.enqueue(square, number) for number in range(10)]
    waiting = aside(wait_jobs, jobs, 20, True)
    for number in random.Random(seed).sample(range(10), 10):
        await_block(redis)
        finish(jobs[number], number)
    assert waiting.result(20) == list(range(10))


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
    sleep_on_one = _Waiter._sleep_on_one
    job = queue.enqueue(square, 6)

    def end_first(waiter: _Waiter) -> None:
        finish(job, 36)
        sleep_on_one(waiter)

    monkeypatch.setattr("pysplash.wait.BLOCK", 5.0)
    monkeypatch.setattr(_Waiter, "_sleep_on_one", end_first)
    began = time.monotonic()
    assert wait_jobs([job], 20, True) == [36]
    assert time.monotonic() - began < 3


def test_a_failure_is_raised_with_its_traceback(queue: Queue) -> None:
    """JobFailed carries the very job, its status and the remote traceback."""
    jobs = [queue.enqueue(square, 1), queue.enqueue(boom)]
    work(queue)
    with pytest.raises(JobFailed, match="failed: LookupError: no such thing") as caught:
        wait_jobs(jobs)
    assert caught.value.job is jobs[1]
    assert "in boom" in caught.value.traceback


def test_a_failure_is_raised_while_others_run(queue: Queue, redis: Redis) -> None:
    """The first failure ends the wait, though other jobs are pending."""
    jobs = [queue.enqueue(square, number) for number in range(3)]
    waiting = aside(wait_jobs, jobs)
    await_block(redis)
    fail(jobs[0], "oh")
    with pytest.raises(JobFailed):
        waiting.result(5)


def stop(job: Job) -> None:
    """Let *job* be stopped by command."""
    fail(job, "stopped", JobStatus.STOPPED)


def expire(job: Job) -> None:
    """Let *job*'s time to live pass."""
    job.connection.pexpire(job.key, 1)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (fail, "failed"),
        (stop, "stopped"),
        (Job.cancel, "canceled"),
        (Job.delete, "vanished"),
        (expire, "vanished"),
    ],
)
def test_every_bad_end_is_seen(
    queue: Queue, redis: Redis, end: Callable[[Job], None], status: str
) -> None:
    """Each way not to finish ends the wait, and stands where on_failure says."""
    jobs = [queue.enqueue(square, 2), queue.enqueue(square, 3)]
    waiting = aside(wait_jobs, jobs, 20, True, on_failure="return")
    await_block(redis)
    finish(jobs[0], 4)
    end(jobs[1])
    first, second = waiting.result(20)
    assert first == 4
    assert isinstance(second, JobFailed)
    assert (second.job, second.status) == (jobs[1], status)
    assert wait_jobs(jobs, 0, True, on_failure="none") == [4, None]
    assert wait_jobs(jobs, 0, on_failure="none") is True
    with pytest.raises(JobFailed, match=status):
        wait_jobs(jobs, 0)


def test_a_job_that_keeps_no_result_finishes(queue: Queue, redis: Redis) -> None:
    """A job with result_ttl=0 writes nothing and disappears: it finished, with None."""
    jobs = [queue.enqueue(square, 2), queue.enqueue(square, 3, result_ttl=0)]
    waiting = aside(wait_jobs, jobs, 20, True)
    await_block(redis)
    work(queue)
    assert waiting.result(20) == [4, None]


def test_a_returned_retry_is_not_the_end(queue: Queue, redis: Redis) -> None:
    """A job that returns Retry is waited for until it has been run again."""
    job = queue.enqueue(second_try)
    waiting = aside(wait_jobs, [job], 20, True)
    await_block(redis)
    work(queue, max_jobs=1)
    result = job.latest_result()
    assert result is not None
    assert result.type is Result.Type.RETRIED
    assert wait_jobs([job], 0) is False
    await_block(redis)
    work(queue)
    assert waiting.result(20) == ["done"]


@pytest.mark.parametrize("before", [fail, finish])
def test_an_old_result_of_a_requeued_job_is_not_taken(
    queue: Queue, redis: Redis, before: Callable[[Job, str], None]
) -> None:
    """A job put back in its queue is waited for anew, though its old result is still there."""
    job = queue.enqueue(square, 3)
    before(job, "old")
    queue.enqueue_job(job)
    assert wait_jobs([job], 0) is False
    waiting = aside(wait_jobs, [job], 20, True)
    await_block(redis)
    work(queue)
    assert waiting.result(20) == [9]


def test_none_is_a_result(queue: Queue) -> None:
    """A job that returned None has ended."""
    job = queue.enqueue(print)
    work(queue)
    assert wait_jobs([job], 0, True) == [None]


def test_the_jobs_serializer_is_used(redis: Redis) -> None:
    """Results are read with the serializer of their job."""
    queue = Queue("json", connection=redis, serializer=JSONSerializer)
    job = queue.enqueue(square, 4)
    finish(job, {"a": [1, None]})
    assert wait_jobs([job], 0, True) == [{"a": [1, None]}]


def test_a_job_may_be_named_twice(queue: Queue) -> None:
    """Each position of a job named more than once is filled, by whichever object it is named."""
    one, two = queue.enqueue(square, 2), queue.enqueue(square, 3)
    again = Job.fetch(one.id, connection=queue.connection)
    work(queue)
    assert wait_jobs([one, two, one, again], 0, True) == [4, 9, 4, 4]


def test_zero_looks_once(queue: Queue, redis: Redis) -> None:
    """max_wait 0 says whether all have ended and never blocks."""
    job = queue.enqueue(square, 2)
    assert wait_jobs([job], 0) is False
    assert wait_jobs([job], 0, True) is False
    work(queue)
    assert wait_jobs([job], 0) is True
    assert calls(redis, "xread") == 0


@pytest.mark.parametrize("max_wait", [0.2, 1.3])
def test_max_wait_is_kept(queue: Queue, max_wait: float) -> None:
    """The wait ends when its time is over, be it shorter or longer than one blocking read."""
    began = time.monotonic()
    assert wait_jobs([queue.enqueue(square, 1)], max_wait, True) is False
    assert max_wait <= time.monotonic() - began < max_wait + 0.5


def test_a_lost_connection_is_replaced(queue: Queue, redis: Redis) -> None:
    """A connection killed in the middle of the wait costs nothing but a moment."""
    job = queue.enqueue(square, 5)
    waiting = aside(wait_jobs, [job], 20, True)
    killed = await_block(redis)
    for number in killed:
        redis.client_kill_filter(_id=number)
    wait_until(lambda: set(blocked(redis)) - set(killed), 5, "a read on a new connection")
    work(queue)
    assert waiting.result(20) == [25]


def test_max_wait_is_kept_without_redis(server: EmbeddedServer, queue: Queue, redis: Redis) -> None:
    """While Redis is away the wait goes on, but not past its time."""
    waiting = aside(wait_jobs, [queue.enqueue(square, 5)], 1.5)
    await_block(redis)
    began = time.monotonic()
    server.stop()
    assert waiting.result(20) is False
    assert time.monotonic() - began < 2.0


def test_jobs_of_two_servers(queue: Queue) -> None:
    """Jobs of different servers can be waited for together."""
    with EmbeddedServer() as server, Redis.from_url(server.url) as elsewhere:
        there = Queue("there", connection=elsewhere)
        jobs = [there.enqueue(square, 2), queue.enqueue(square, 3), there.enqueue(square, 4)]
        waiting = aside(wait_jobs, jobs, 20, True)
        await_block(elsewhere)
        work(queue)
        work(there)
        assert waiting.result(20) == [4, 9, 16]


def test_no_connection_is_left_behind(queue: Queue, redis: Redis) -> None:
    """After the wait there are as many connections as before, whichever way it ended."""
    jobs = [queue.enqueue(square, 1), queue.enqueue(boom)]
    work(queue, max_jobs=1)
    before = len(redis.client_list())
    assert wait_jobs(jobs, 0.05) is False
    fail(jobs[1])
    with pytest.raises(JobFailed) as caught:
        wait_jobs(jobs)
    wait_until(lambda: len(redis.client_list()) == before, 5, "the end of the connections")
    assert caught.tb is not None  # it keeps the waiter from being collected


def test_many_finished_jobs_cost_few_round_trips(redis: Redis) -> None:
    """Ten thousand jobs that have ended are seen in ten round trips, without a blocking read."""
    jobs = [Job.create(square, connection=redis, id=str(n)) for n in range(10_000)]
    with redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.hset(job.key, "status", "finished")
            pipe.xadd(Result.get_key(job.id), {"type": 1})
        pipe.execute()
    before = calls(redis, "exec")
    assert wait_jobs(jobs, 60, True) == [None] * 10_000
    assert calls(redis, "exec") - before == 10
    assert calls(redis, "xread") == 0


@pytest.mark.parametrize("order", ["first to last", "last to first", "any"])
def test_many_ends_cost_few_reads(queue: Queue, redis: Redis, order: str) -> None:
    """The reads needed for jobs that end one by one grow as the logarithm of their number."""
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
    assert calls(redis, "xread") <= 40 + (time.monotonic() - began)


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
    wait_until(lambda: redis.exists("pysplash:waits:me"), 5, "the edges")
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


@pytest.mark.parametrize("progress", [None, True, False])
def test_progress_is_drawn_on_a_terminal(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, progress: bool | None
) -> None:
    """On a terminal a bar counts ended and failed jobs, unless progress is off."""
    jobs = [queue.enqueue(square, 1), queue.enqueue(boom)]
    work(queue)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        wait_jobs(jobs, on_failure="none", progress=progress)
        terminal.write(".")
        terminal.flush()
        drawn = ""
        while not drawn.endswith("."):
            drawn += os.read(ours, 100_000).decode(errors="replace")
    os.close(ours)
    assert ("2/2" in drawn and "1 failed" in drawn) is (progress is not False)


def test_no_progress_without_a_terminal(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is drawn where standard error is no terminal, not even on request."""
    job = queue.enqueue(square, 1)
    work(queue)
    assert wait_jobs([job], progress=True) is True
    assert capsys.readouterr().err == ""
