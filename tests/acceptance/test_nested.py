"""Trees of jobs that wait for jobs, in a pool that is smaller than the tree."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from tests.acceptance import jobs
from tests.acceptance.command import QUICK, READY, Start
from tests.waiting import wait_until

#: seconds for a tree of a thousand jobs, on a machine that runs other tests too
BOUND = 90.0


def error_of(job: Job) -> str:
    """Return the text that tells why *job* failed."""
    result = job.latest_result()
    return (result.exc_string or "") if result else ""


def places(job: Job) -> list[str]:
    """Return every place where RQ has *job* now."""
    queue = Queue(job.origin, connection=job.connection)
    registries = {
        "queue": queue.job_ids,
        "started": queue.started_job_registry.get_job_ids(cleanup=False),
        "failed": queue.failed_job_registry.get_job_ids(cleanup=False),
        "finished": queue.finished_job_registry.get_job_ids(cleanup=False),
    }
    return [name for name, ids in registries.items() for found in ids if found == job.id]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_tree_ends_in_a_pool_of_any_size(pool: Start, queue: Queue, size: int) -> None:
    """fib(12), 465 jobs, fifteen deep: the right answer, and never more workers than allowed."""
    job = queue.enqueue(jobs.fib, 12, job_timeout=600)
    command = pool(*QUICK, "-n", str(size), "--burst", "default")

    assert command.wait(BOUND) == 0, command.err
    assert job.return_value() == 144
    states = ("starting", "idle", "busy", "waiting", "stopping")
    most = max(sum(tick[state] for state in states) for tick in command.record())
    assert most == size


@pytest.mark.parametrize("size", [1, 4])
def test_a_long_chain_ends_in_a_pool_of_any_size(pool: Start, queue: Queue, size: int) -> None:
    """Three hundred jobs, each waiting for the next."""
    job = queue.enqueue(jobs.chain, 300, job_timeout=600)
    command = pool(*QUICK, "-n", str(size), "--burst", "default")

    assert command.wait(BOUND) == 0, command.err
    assert job.return_value() == 300


def test_a_killed_worker_loses_none_of_its_jobs(
    pool: Start, redis: Redis, queue: Queue, marks: Path
) -> None:
    """Three jobs inside one another: all are failed, each once, and the pool goes on."""
    last = queue.enqueue(jobs.long, str(marks), 60, job_id="2", job_timeout=600)
    middle = queue.enqueue(jobs.wait_for, str(marks), "2", job_id="1", at_front=True)
    first = queue.enqueue(jobs.wait_for, str(marks), "1", job_id="0", at_front=True)
    command = pool(*QUICK, "-n", "1", "default")
    wait_until(lambda: len(marks.read_text().splitlines()) == 3, READY, "three jobs")
    os.kill(int(marks.read_text().splitlines()[-1]), signal.SIGKILL)

    for job in (last, middle, first):
        wait_until(lambda job=job: places(job) == ["failed"], READY, f"{job.id} failed")  # type: ignore[misc]
        assert "killed by SIGKILL" in error_of(job)
    left = ("rq:execution*", "pysplash:stack:*")
    wait_until(lambda: not any(redis.keys(pattern) for pattern in left), READY, "nothing left")
    after = queue.enqueue(jobs.pid)
    wait_until(lambda: after.get_status() is JobStatus.FINISHED, READY, "another job")
    assert command.process.poll() is None


@pytest.mark.parametrize(("seconds", "status"), [("30", "finished"), ("0.5", "failed")])
def test_a_stop_in_the_middle_of_a_wait(
    pool: Start, queue: Queue, marks: Path, seconds: str, status: str
) -> None:
    """A warm stop lets a tree end that ends in time; else all its jobs are settled."""
    child = queue.enqueue(jobs.long, str(marks), 3, job_id="child", job_timeout=600)
    parent = queue.enqueue(jobs.wait_for, str(marks), "child", job_id="parent", at_front=True)
    command = pool(*QUICK, "-n", "1", "--terminate-seconds", seconds, "default")
    wait_until(lambda: len(marks.read_text().splitlines()) == 2, READY, "two jobs")
    command.signal(signal.SIGTERM)

    assert command.wait(40) == 0, command.err
    assert [places(job) for job in (parent, child)] == [[status], [status]]
