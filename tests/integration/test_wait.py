"""wait_jobs on a real server: what it returns, raises and draws."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry, get_current_job
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from pysplash.errors import JobFailed
from pysplash.waiting.wait import wait_jobs
from tests.integration.rq_life import (
    aside,
    await_block,
    boom,
    fail,
    finish,
    square,
    work,
)
from tests.servers import own_server


def second_try() -> Any:
    """Be a job that asks to be run again, once."""
    job = get_current_job()
    assert job is not None
    return "done" if job.number_of_retries else Retry(max=1)


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
        waiting.result(30)


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


def test_jobs_of_two_servers(queue: Queue) -> None:
    """Jobs of different servers can be waited for together."""
    with own_server() as server, Redis.from_url(server.url) as elsewhere:
        there = Queue("there", connection=elsewhere)
        jobs = [there.enqueue(square, 2), queue.enqueue(square, 3), there.enqueue(square, 4)]
        waiting = aside(wait_jobs, jobs, 20, True)
        await_block(elsewhere)
        work(queue)
        work(there)
        assert waiting.result(20) == [4, 9, 16]


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
