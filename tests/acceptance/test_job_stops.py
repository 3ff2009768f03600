"""Jobs that are asked to end: each does, whatever it is at, and what is behind it runs."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis import Redis
from rq import Callback, Queue
from rq.command import send_kill_horse_command, send_stop_job_command
from rq.job import Job, JobStatus

from pysplash import Client
from pysplash.supervisor.job_stops import GRACE
from tests.acceptance import jobs, leaving_jobs
from tests.acceptance.command import READY, Start
from tests.waiting import wait_until

#: seconds that other tests on the machine may add to any bound
SLACK = 10.0


def begun(path: Path) -> bool:
    """Return whether the job has begun."""
    return "begun" in path.read_text()


def await_status(job: Job, status: JobStatus, bound: float = GRACE + SLACK) -> None:
    """Wait until a job has a status; fail if it takes long."""
    wait_until(lambda: job.get_status() is status, bound, f"{status} of job {job.id}")


@pytest.mark.parametrize("function", [leaving_jobs.blocked, leaving_jobs.heedless])
def test_a_job_that_does_not_notice_is_stopped(
    pool: Start, queue: Queue, redis: Redis, marks: Path, function: Callable[[str], object]
) -> None:
    """Inside a call in C, or catching everything: stopped, called back, and the next one run."""
    command = pool("-n", "1")
    job = queue.enqueue(function, str(marks), on_stopped=Callback(jobs.note_stop))
    behind = queue.enqueue(jobs.pid)
    wait_until(lambda: begun(marks), READY, "the job")
    send_stop_job_command(redis, job.id)
    await_status(job, JobStatus.STOPPED)
    await_status(behind, JobStatus.FINISHED)
    wait_until(lambda: redis.get("stopped") == job.id.encode(), READY, "the callback")
    command.says(rf"job {job.id} went on for \d s after stop-job: worker .* is killed")
    assert "sleep" not in [process.name() for process in command.processes()]


def test_a_job_that_does_not_notice_is_killed(
    pool: Start, queue: Queue, redis: Redis, marks: Path
) -> None:
    """``kill-horse`` fails the job, also with ``--on-crash requeue``, and the next one runs."""
    pool("-n", "1", "--on-crash", "requeue")
    job = queue.enqueue(leaving_jobs.blocked, str(marks))
    behind = queue.enqueue(jobs.pid)
    wait_until(lambda: begun(marks), READY, "the job")
    job.refresh()
    assert job.worker_name
    send_kill_horse_command(redis, job.worker_name)
    await_status(job, JobStatus.FAILED)
    await_status(behind, JobStatus.FINISHED)


def test_a_job_inside_another_is_stopped(
    pool: Start, queue: Queue, redis: Redis, url: str, marks: Path
) -> None:
    """It is stopped by name, though the worker shows the job around it."""
    pool("-n", "1")
    outer = queue.enqueue(leaving_jobs.around_blocked, url, str(marks))
    wait_until(lambda: begun(marks), READY, "the job")
    send_stop_job_command(redis, "inner")
    await_status(Job.fetch("inner", redis), JobStatus.STOPPED)
    await_status(outer, JobStatus.FAILED)  # it ends with its worker, as in a crash


def test_a_stop_that_is_heeded_may_take_its_time(
    pool: Start, queue: Queue, redis: Redis, marks: Path
) -> None:
    """A callback for the stop is let run to its end."""
    command = pool("-n", "1")
    (pid,) = command.await_workers(1)
    callback = Callback(leaving_jobs.note_stop_slowly)
    job = queue.enqueue(leaving_jobs.hear_terms, str(marks), 60.0, on_stopped=callback)
    wait_until(lambda: begun(marks), READY, "the job")
    send_stop_job_command(redis, job.id)
    await_status(job, JobStatus.STOPPED, 5 + GRACE + SLACK)
    assert redis.get("told") == job.id.encode()
    assert psutil.pid_exists(pid)


def test_a_stop_reaches_a_job_from_its_first_moment(
    pool: Start, queue: Queue, redis: Redis
) -> None:
    """The pool hears commands for a worker before the worker takes a job."""
    job = queue.enqueue(jobs.nap, 60.0)
    pool("-n", "1")
    wait_until(lambda: job.get_status() is JobStatus.STARTED, READY, "the job")
    send_stop_job_command(redis, job.id)
    await_status(job, JobStatus.STOPPED)


def test_a_call_that_is_cancelled_is_ended(
    pool: Start, queue: Queue, url: str, redis: Redis
) -> None:
    """A client's cancel ends a call inside C, and the worker takes the next one."""
    command = pool("-n", "1", "--preload", "tests.acceptance.blocking_task")
    command.await_workers(1)
    with Client(url) as client:
        call = client.submit("blocking")
        wait_until(lambda: call.status() == "started", READY, "the call")
        assert call.cancel()
        wait_until(lambda: call.status() == "stopped", GRACE + SLACK, "its end")
    await_status(queue.enqueue(jobs.pid), JobStatus.FINISHED)


def test_a_pool_started_again_settles_what_the_killed_one_left(
    pool: Start, queue: Queue, redis: Redis, marks: Path
) -> None:
    """Under the same name, without ``pysplash purge``; the living pool's job goes on."""
    first = pool("-n", "1", "--name", "web")
    lost = queue.enqueue(leaving_jobs.blocked, str(marks), job_timeout=600)
    wait_until(lambda: begun(marks), READY, "the job")
    for process in first.processes():
        process.send_signal(signal.SIGKILL)
    second = pool("-n", "1", "--name", "web")
    going_on = queue.enqueue(jobs.nap, 60.0)
    wait_until(lambda: going_on.get_status() is JobStatus.STARTED, READY, "the second job")
    await_status(lost, JobStatus.FAILED, 30 + SLACK)
    second.says("of an earlier pool web is gone: its jobs are settled")
    listed = functools.partial(redis.scard, "rq:workers")
    wait_until(lambda: listed() == 1, READY, "one worker in the list")
    assert going_on.get_status() is JobStatus.STARTED
    send_stop_job_command(redis, going_on.id)
