"""The fast loop and the memory ladder on real workers: held, never left so, put back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from redis import Redis
from rq import Queue
from rq.command import send_stop_job_command
from rq.job import JobStatus

from pysplash.control.throttle import TURN
from tests.acceptance import jobs
from tests.acceptance.command import QUICK, Command, Start
from tests.waiting import wait_until

#: seconds for anything that hangs on the machine having CPU to spare, which other tests use too
ROOM = 60.0
#: seconds that workers get when the pool is gone, and that other tests may add to that
TERMINATE, SLACK = 25.0, 5.0


def stopped(pid: int) -> bool:
    """Return whether the process *pid* is stopped right now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def await_held(command: Command) -> int:
    """Return the process id of a worker at the moment it is held."""
    return wait_until(
        lambda: next((pid for pid in command.workers() if stopped(pid)), 0), ROOM, "a held worker"
    )


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds that processes have used."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(used.user + used.system for used in times)


def test_jobs_are_kept_at_the_limit(pool: Start, queue: Queue, marks: Path) -> None:
    """Two jobs that compute get no more of the machine than --max-cpu, though each could.

    Where others take the whole machine, the loop itself runs late: the quietest two seconds count.
    """
    for _ in range(2):
        queue.enqueue(jobs.spin, str(marks), 600)
    command = pool(*QUICK, "-n", "2", "--max-cpu", "20")
    wait_until(lambda: len(marks.read_text().splitlines()) == 2, ROOM, "two jobs at work")
    workers = command.workers()
    await_held(command)
    allowed = 1.25 * 0.20 * len(os.sched_getaffinity(0))

    def kept() -> bool:
        began, before = time.monotonic(), cpu_seconds(workers)
        command.await_ticks(20, ROOM)
        return (cpu_seconds(workers) - before) / (time.monotonic() - began) <= allowed

    wait_until(kept, 2 * ROOM, "two seconds within the limit")
    assert max(tick["held"] for tick in command.record()) > 0


def test_a_killed_pool_leaves_nobody_stopped(pool: Start, queue: Queue, marks: Path) -> None:
    """Killed while a worker is held: it is let go, finishes its job in time, and all are gone."""
    job = queue.enqueue(jobs.spin, str(marks), 3.0)
    command = pool(*QUICK, "-n", "1", "--max-cpu", "5", "--terminate-seconds", f"{TERMINATE:g}")
    held = await_held(command)
    command.processes()
    command.signal(signal.SIGKILL)
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, TERMINATE, "the end of the job")
    command.await_gone(TERMINATE + 2 + SLACK)

    assert not stopped(held)


def test_a_killed_fork_server_leaves_nobody_stopped(pool: Start, queue: Queue, marks: Path) -> None:
    """Who is held when the fork server dies goes with it; the job is settled."""
    job = queue.enqueue(jobs.spin, str(marks), 600)
    command = pool(*QUICK, "-n", "1", "--max-cpu", "5")
    held = await_held(command)
    (server,) = command.fork_servers()
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(held), ROOM, "the end of the worker")
    wait_until(lambda: job.get_status() is JobStatus.FAILED, ROOM, "a settled job")


def test_a_warm_stop_waits_for_held_jobs(pool: Start, queue: Queue, marks: Path) -> None:
    """A worker that is held when the pool is asked to stop finishes its job and leaves."""
    job = queue.enqueue(jobs.spin, str(marks), 0.5)
    command = pool(*QUICK, "-n", "1", "--max-cpu", "5", "--terminate-seconds", "60")
    await_held(command)
    command.signal(signal.SIGTERM)

    assert command.wait(ROOM + SLACK) == 0
    assert job.get_status() is JobStatus.FINISHED


def test_held_time_counts_against_no_timeout(pool: Start, queue: Queue, marks: Path) -> None:
    """A job that is held for longer than its timeout finishes: it did not have that time.

    Where others take the whole machine, the loop runs late and holds it for less: then again.
    """
    command = pool(*QUICK, "-n", "1", "--max-cpu", "1")
    took, ends = 0.0, (JobStatus.FINISHED, JobStatus.FAILED)
    for _ in range(4):
        # nine tenths of the time it is held; of the rest a busy machine may well take half
        job = queue.enqueue(jobs.spin, str(marks), 0.9, job_timeout=3)
        wait_until(lambda job=job: job.get_status() is JobStatus.STARTED, ROOM, "its start")  # type: ignore[misc]
        began = time.monotonic()
        wait_until(lambda job=job: job.get_status() in ends, ROOM, "its end")  # type: ignore[misc]
        took = time.monotonic() - began

        assert job.get_status(refresh=True) is JobStatus.FINISHED, command.err
        if took > 3:
            break
    assert took > 3


@pytest.mark.parametrize(
    "arguments", [("--no-throttle",), ("-w", "tests.acceptance.jobs.Lingering")], ids=str
)
def test_off_means_off(pool: Start, queue: Queue, marks: Path, arguments: tuple[str, ...]) -> None:
    """Asked not to, or with a class of the user's own, the pool holds nobody."""
    queue.enqueue(jobs.spin, str(marks), 600)
    command = pool(*QUICK, "-n", "1", "--max-cpu", "5", *arguments)
    wait_until(marks.read_text, ROOM, "a job at work")
    seen: set[bool] = set()

    def watched() -> bool:
        seen.update(stopped(pid) for pid in command.workers())
        return len(command.record()) >= ticks

    ticks = len(command.record()) + 20
    wait_until(watched, ROOM)

    assert seen == {False}
    assert {tick["held"] for tick in command.record()} <= {0.0}


def test_what_is_killed_for_memory_is_put_back(
    pool: Start, queue: Queue, marks: Path, redis: Redis, tmp_path: Path
) -> None:
    """Two jobs that grow past the budget together: the newer is killed, waits, and runs again."""
    gate = tmp_path / "gate"
    both = [queue.enqueue(jobs.grow, str(marks), str(gate), 150 * 2**20) for _ in range(2)]
    command = pool(*QUICK, "-n", "2", "--mem-budget", "250MB", "--no-throttle")
    command.says(r"by the pool: memory", ROOM)
    command.says(r": requeued", ROOM)
    assert len(command.workers()) >= 1
    gate.touch()
    for job in both:
        wait_until(lambda job=job: job.get_status() is JobStatus.FINISHED, ROOM, "its end")  # type: ignore[misc]

    assert len(marks.read_text().splitlines()) >= 3
    assert not [job for job in both if redis.exists(f"pysplash:deaths:{job.id}")]


def test_what_grows_waits_for_what_is_older(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """Two jobs that together would pass the budget, and sleep as they grow: nobody is killed."""
    gate = tmp_path / "gate"
    gate.touch()
    both = [queue.enqueue(jobs.grow, str(marks), str(gate), 150 * 2**20) for _ in range(2)]
    command = pool(*QUICK, "-n", "2", "--mem-budget", "250MB")
    for job in both:
        wait_until(lambda job=job: job.get_status() is JobStatus.FINISHED, ROOM, "its end")  # type: ignore[misc]

    assert len(marks.read_text().splitlines()) == 2
    assert "by the pool: memory" not in command.err


def test_who_is_held_for_long_hears_a_signal(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path, redis: Redis
) -> None:
    """A job that is held until another has ended can be stopped long before it has a turn.

    On a busy machine stopping itself may take that long: then again.
    """
    gate = tmp_path / "gate"
    first = queue.enqueue(jobs.grow, str(marks), str(gate), 150 * 2**20)
    command = pool(*QUICK, "-n", "2", "--mem-budget", "250MB")
    wait_until(marks.read_text, ROOM, "a job at work")
    took = TURN
    for _ in range(3):
        second = queue.enqueue(jobs.grow, str(marks), str(gate), 150 * 2**20)
        await_held(command)
        began = time.monotonic()
        send_stop_job_command(redis, second.id)
        wait_until(
            lambda job=second: job.get_status() is JobStatus.STOPPED,  # type: ignore[misc]
            ROOM,
            "a stopped job",
        )
        took = min(took, time.monotonic() - began)
        if took < TURN / 2:
            break
    gate.touch()
    wait_until(lambda: first.get_status() is JobStatus.FINISHED, ROOM, "the end of the first")

    assert took < TURN / 2


def test_a_worker_dies_before_the_pool(pool: Start) -> None:
    """Should the machine run out of memory, the kernel is told to take a worker first."""
    command = pool(*QUICK, "-n", "2")
    workers = command.await_idle(2)
    others = [command.process.pid, *command.fork_servers()]

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    assert min(map(score, workers)) > max(map(score, others))
