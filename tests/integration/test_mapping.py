"""map_jobs: many calls of one function, as jobs."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from pysplash import JobFailed, JobsError, map_jobs
from pysplash.worker.worker import Worker
from tests.integration import nested_jobs as jobs
from tests.integration.rq_life import aside, square, work
from tests.integration.test_helping import LONG, error_of, play
from tests.waiting import wait_until


def test_results_in_order_from_outside(queue: Queue) -> None:
    """Outside a job the calls go to the end of the queue, in order, and come back in order."""
    first = queue.enqueue(square, 1)
    mapping = aside(map_jobs, square, range(5), queue=queue)
    wait_until(lambda: queue.count == 6, 30, "the jobs")
    enqueued = [Job.fetch(name, connection=queue.connection) for name in queue.job_ids]
    assert enqueued[0].id == first.id
    assert [job.args for job in enqueued[1:]] == [(number,) for number in range(5)]
    work(queue)
    assert mapping.result(20) == [0, 1, 4, 9, 16]


def test_a_name_outside_is_looked_for_where_the_environment_says(
    queue: Queue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a queue, "default" on the server of REDIS_URL; a name means another queue there."""
    monkeypatch.setenv("REDIS_URL", url)
    mapping = aside(map_jobs, square, [3])
    wait_until(lambda: queue.count == 1, 30, "the job")
    work(queue)
    assert mapping.result(20) == [9]
    other = Queue("other", connection=queue.connection)
    mapping = aside(map_jobs, "tests.integration.rq_life.square", [4], queue="other")
    wait_until(lambda: other.count == 1, 30, "the job")
    work(other)
    assert mapping.result(20) == [16]


def test_inside_a_job_the_calls_go_in_front(redis: Redis, queue: Queue) -> None:
    """Inside, the job's own queue is meant, and its front, the first call first of all."""
    job = queue.enqueue(jobs.map_squares, 2500, help=False, max_wait=0.01, job_timeout=LONG)
    last = queue.enqueue(square, 1)
    play(Worker([queue], connection=redis), max_jobs=1)

    assert "JobsError: 2500 jobs did not all end within 0.01 s" in error_of(job)
    names = queue.job_ids
    assert names[-1] == last.id
    called = [Job.fetch(names[place], connection=redis).args for place in (0, 1, 1000, 2499)]
    assert called == [(0,), (1,), (1000,), (2499,)]


def test_inside_a_job_it_helps(redis: Redis, queue: Queue) -> None:
    """One worker runs the job and all its calls."""
    job = queue.enqueue(jobs.map_squares, 50, job_timeout=LONG)
    play(Worker([queue], connection=redis))

    assert job.return_value() == [number**2 for number in range(50)]


def test_the_jobs_serializer_is_kept(redis: Redis) -> None:
    """Calls made inside a job are written as the job itself was."""
    queue = Queue("json", connection=redis, serializer=JSONSerializer)
    job = queue.enqueue(jobs.map_squares, 2, job_timeout=LONG)
    play(Worker([queue], connection=redis, serializer=JSONSerializer))

    assert job.return_value() == [0, 1]


@pytest.mark.parametrize(
    ("on_failure", "expected"), [("none", [None, None]), ("return", [JobFailed, JobFailed])]
)
def test_failures_are_as_in_wait_jobs(queue: Queue, on_failure: str, expected: Any) -> None:
    """on_failure says what stands for a call that failed."""
    mapping = aside(map_jobs, jobs.fail, "ab", queue=queue, on_failure=on_failure)
    wait_until(lambda: queue.count == 2, 30, "the jobs")
    work(queue)
    came = mapping.result(20)
    assert [value and type(value) for value in came] == expected


def test_nothing_to_call_and_wrong_arguments(queue: Queue) -> None:
    """No items, no results; a wrong argument is refused before anything is enqueued."""
    assert map_jobs(square, [], queue=queue) == []
    with pytest.raises(ValueError, match="max_wait"):
        map_jobs(square, [1], queue=queue, max_wait=-1)
    assert queue.count == 0
    with pytest.raises(JobsError, match=r"1 jobs did not all end within 0 s"):
        map_jobs(square, [1], queue=queue, max_wait=0)
