"""Ends of a pool: asked for once, twice, or not asked for at all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis import Redis
from rq import Queue, Worker
from rq.job import Job, JobStatus

from tests.acceptance import jobs
from tests.acceptance.command import QUICK, READY, Start, tell
from tests.waiting import wait_until

#: seconds that other tests on the machine may add to any bound
SLACK = 10.0


def lines(path: Path) -> list[str]:
    """Return the marks left so far."""
    return path.read_text().splitlines()


def await_marks(path: Path, count: int = 1) -> list[str]:
    """Return the marks as soon as there are *count*."""
    wait_until(lambda: len(lines(path)) >= count, READY, f"{count} marks")
    return lines(path)


def pass_time(seconds: float) -> None:
    """Return *seconds* later, where nothing that can be seen happens meanwhile."""
    due = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= due, seconds + 1)


def error_of(job: Job) -> str:
    """Return the text that tells why *job* failed."""
    result = job.latest_result()
    return (result.exc_string or "") if result else ""


def assert_settled(redis: Redis, job: Job) -> None:
    """Fail if RQ still takes *job* for started."""
    assert list(redis.scan_iter("rq:execution*")) == []
    assert redis.zcard(f"rq:wip:{job.origin}") == 0
    assert Worker.all(connection=redis) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_idle(pool: Start, redis: Redis, number: int) -> None:
    """An idle pool stops at once, with status 0 and no worker left in Redis."""
    command = pool("-n", "3")
    command.await_workers(3)
    wait_until(lambda: len(Worker.all(connection=redis)) == 3, READY, "three workers in Redis")
    command.signal(number)
    # an idle worker looks at its stop flag once a second
    assert command.wait(2 + SLACK) == 0
    command.await_gone(1)
    assert Worker.all(connection=redis) == []


def test_stop_at_every_moment_of_the_start(pool: Start) -> None:
    """A stop that comes while the pool is still starting is obeyed, and leaves nothing."""
    for delay in (0.4, 0.5, 0.6, 0.7, 0.8, 1.0):
        command = pool("-n", "2")
        pass_time(delay)
        command.signal(signal.SIGTERM)
        status = command.wait(5 + SLACK)
        unheard = status == -signal.SIGTERM and command.err == ""
        assert status == 0 or unheard, (delay, command.err)
        command.await_gone(1)


def test_stop_lets_the_job_finish(pool: Start, queue: Queue, marks: Path, tmp_path: Path) -> None:
    """A warm stop takes no further job, waits for the running one and stores its result."""
    command = pool(*QUICK, "-n", "1")
    gate = tmp_path / "gate"
    job = queue.enqueue(jobs.hold, str(marks), str(gate))
    later = queue.enqueue(jobs.mark, str(marks), "later")
    await_marks(marks)
    command.signal(signal.SIGTERM)
    command.await_ticks(5)
    assert command.process.poll() is None
    gate.touch()
    assert command.wait(3 + SLACK) == 0
    assert job.get_status() is JobStatus.FINISHED
    assert later.get_status() is JobStatus.QUEUED
    assert queue.job_ids == [later.id]
    assert len(lines(marks)) == 1
    assert_settled(queue.connection, job)


@pytest.mark.parametrize("function", [jobs.long, jobs.deaf])
def test_stop_kills_a_job_at_the_deadline(
    pool: Start, queue: Queue, marks: Path, function: Callable[..., object]
) -> None:
    """A job that outlasts --terminate-seconds is killed then, FAILED with the reason, not stuck."""
    command = pool(*QUICK, "-n", "1", "--terminate-seconds", "1.5")
    job = queue.enqueue(function, str(marks), 60)
    await_marks(marks)
    began = time.monotonic()
    command.signal(signal.SIGTERM)
    assert command.wait(1.5 + 2 + SLACK) == 0
    assert time.monotonic() - began >= 1.5
    assert job.get_status() is JobStatus.FAILED
    assert "killed by SIGKILL, by the pool: terminate" in error_of(job)
    assert job.id in queue.failed_job_registry.get_job_ids(cleanup=False)
    assert_settled(queue.connection, job)
    command.await_gone(1)


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGQUIT, None)],
)
def test_cold_stop(pool: Start, queue: Queue, marks: Path, first: int, second: int | None) -> None:
    """A second signal, or QUIT, ends the pool within two seconds and settles the job."""
    command = pool(*QUICK, "-n", "2")
    job = queue.enqueue(jobs.long, str(marks), 60)
    await_marks(marks)
    command.signal(first)
    if second is not None:
        command.says("warm stop")
        # sooner than half a second after the first it would be taken for the first one's echo
        pass_time(0.6)
        command.signal(second)
    assert command.wait(2 + SLACK) == 0
    assert job.get_status() is JobStatus.FAILED
    assert "cold" in error_of(job)
    assert_settled(queue.connection, job)
    command.await_gone(1)


def test_two_signals_at_once_are_one(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """One INT heard twice, as from a terminal and a supervisor, is no cold stop."""
    command = pool(*QUICK, "-n", "1")
    gate = tmp_path / "gate"
    job = queue.enqueue(jobs.hold, str(marks), str(gate))
    await_marks(marks)
    command.signal(signal.SIGINT)
    command.says("warm stop")
    command.signal(signal.SIGINT)
    command.await_ticks(3)
    gate.touch()
    assert command.wait(3 + SLACK) == 0
    assert job.get_status() is JobStatus.FINISHED


def test_interrupt_from_the_terminal_reaches_no_job(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """INT to the whole process group, as Ctrl-C sends it, lets jobs finish as TERM does."""
    command = pool(*QUICK, "-n", "1")
    gate = tmp_path / "gate"
    job = queue.enqueue(jobs.hold, str(marks), str(gate))
    await_marks(marks)
    os.killpg(command.process.pid, signal.SIGINT)
    command.says("warm stop")
    gate.touch()
    assert command.wait(3 + SLACK) == 0
    assert job.get_status() is JobStatus.FINISHED


def test_cold_stop_while_redis_is_away(pool: Start, redis: Redis) -> None:
    """A cold stop does not wait for a server that does not come back."""
    command = pool(*QUICK, "-n", "2")
    command.await_idle(2)
    server = redis.info("server")["process_id"]
    tell([server], signal.SIGSTOP)
    try:
        command.signal(signal.SIGQUIT)
        # two seconds, five in which the pool hopes to settle what its workers held, and the time
        # in which the pool's own calls to the silent server give up
        assert command.wait(2 + 5 + 4 + SLACK) == 0
    finally:
        tell([server], signal.SIGCONT)


@pytest.mark.parametrize("function", [jobs.long, jobs.deaf])
def test_killed_pool_leaves_nothing(
    splash: Start, marks: Path, function: Callable[..., object]
) -> None:
    """SIGKILL of the pool takes workers, fork server and embedded server along, deaf jobs too."""
    command = splash(
        *("start", "--embedded", "-n", "3", "--terminate-seconds", "2", *QUICK, "default")
    )
    with Redis.from_url(command.embedded_url()) as redis:
        queue = Queue(connection=redis)
        command.await_workers(3)
        for _ in range(2):
            queue.enqueue(function, str(marks), 60)
        await_marks(marks, 2)
    # the pool, its fork server, the embedded server and its guard, three workers
    assert len(command.processes()) >= 7
    command.process.kill()
    command.await_gone(2 + 2 + SLACK)


def test_killed_pool_lets_a_short_job_finish(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """Workers of a pool that was killed finish their job, within the time given, and go."""
    command = pool(*QUICK, "-n", "2", "--terminate-seconds", "10")
    gate = tmp_path / "gate"
    job = queue.enqueue(jobs.hold, str(marks), str(gate))
    later = [queue.enqueue(jobs.hold, str(marks), str(gate)) for _ in range(3)]
    await_marks(marks, 2)
    command.process.kill()
    command.process.wait(30)
    orphans = command.processes()
    assert len(orphans) == 3
    # the fork server looks for its pool once a second at the latest
    pass_time(1.5)
    gate.touch()
    command.await_gone(4 + SLACK)
    assert job.get_status() is JobStatus.FINISHED
    assert [job.get_status() for job in later[1:]] == [JobStatus.QUEUED] * 2
    assert_settled(queue.connection, job)


def test_killed_fork_server_is_replaced(pool: Start, queue: Queue, marks: Path) -> None:
    """When the fork server is killed its workers die, their job is settled, and work goes on."""
    command = pool(*QUICK, "-n", "2")
    before = command.await_idle(2)
    held = queue.enqueue(jobs.long, str(marks), 60)
    await_marks(marks)
    (server,) = command.fork_servers()
    tell([server], signal.SIGKILL)
    wait_until(lambda: held.get_status() is JobStatus.FAILED, 2 + SLACK, "the job's settlement")
    assert "fork server died" in error_of(held)
    wait_until(lambda: not any(map(psutil.pid_exists, before)), 2 + SLACK, "the workers' end")
    after = command.await_workers(2)
    assert not set(before) & set(after)
    assert server not in command.fork_servers()
    job = queue.enqueue(jobs.pid)
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, READY, "a job after it")
    command.signal(signal.SIGTERM)
    assert command.wait(3 + SLACK) == 0
    assert_settled(queue.connection, job)


def test_pid_file(pool: Start, tmp_path: Path) -> None:
    """--pid holds the pool's process id while it runs, and is gone afterwards."""
    path = tmp_path / "pool.pid"
    command = pool("-n", "1", "--pid", str(path))
    command.await_workers(1)
    assert path.read_text() == str(command.process.pid)
    command.signal(signal.SIGTERM)
    assert command.wait(2 + SLACK) == 0
    assert not path.exists()
