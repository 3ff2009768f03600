"""A pool through the real command line: how many workers there are, when, and why."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from pysplash.control.model import Reason
from tests.acceptance import jobs
from tests.acceptance.command import QUICK, READY, Start, tell
from tests.waiting import wait_until

#: seconds for anything that hangs on the machine having CPU to spare, which other tests use too
ROOM = 60.0
#: seconds for a few short jobs
DONE = 20.0
RECORDED = {
    *("t", "cpu", "mem", "mem_bytes", "queued", "target", "reason", "actions"),
    *("starting", "idle", "busy", "waiting", "stopping"),
}


def await_finished(job: Job, bound: float = DONE) -> object:
    """Return the result of *job* as soon as it has one."""
    wait_until(job.get_status, bound)
    wait_until(
        lambda: job.get_status() is JobStatus.FINISHED,
        bound,
        f"the end of {job.func_name}, which is {job.get_status()}",
    )
    return job.return_value(refresh=True)


def lines(path: Path) -> list[str]:
    """Return the marks left so far."""
    return path.read_text().splitlines()


def test_grows_with_waiting_jobs_and_shrinks_to_the_minimum(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """Waiting jobs get workers up to --max-procs, and idle ones leave down to --min-procs."""
    gate = tmp_path / "gate"
    held = [queue.enqueue(jobs.hold, str(marks), str(gate)) for _ in range(6)]
    command = pool(
        *QUICK, "--min-procs", "1", "--max-procs", "4", "--max-cpu", "100", "--idle-seconds", "1"
    )
    most = command.await_workers(4, ROOM)
    wait_until(lambda: len(lines(marks)) == 4, DONE, "four jobs at work")
    assert sorted(map(int, lines(marks))) == sorted(most)
    wait_until(lambda: command.record()[-1]["busy"] == 4, DONE, "four busy workers on record")
    gate.touch()
    for job in held:
        await_finished(job)
    left = command.await_workers(1, DONE)
    assert set(left) <= set(most)
    # the workers are gone before the tick in which they were stopped is on record
    reasons = {"min", "backlog", "max", "idle"}
    wait_until(lambda: reasons <= {tick["reason"] for tick in command.record()}, DONE, "reasons")
    assert (
        max(
            sum(tick[state] for state in ("starting", "idle", "busy", "stopping"))
            for tick in command.record()
        )
        == 4
    )


def test_record_has_a_line_a_tick_with_every_field(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """Each tick is recorded whole, and no change of target goes without a reason for a change."""
    gate = tmp_path / "gate"
    gate.touch()
    for _ in range(4):
        queue.enqueue(jobs.hold, str(marks), str(gate))
    command = pool(*QUICK, "--max-cpu", "100", "--burst")
    assert command.wait(ROOM) == 0
    record = command.record()
    assert record
    target = 0
    for before, tick in zip([record[0], *record], record, strict=False):
        assert set(tick) >= RECORDED
        assert tick["t"] >= before["t"]
        assert tick["reason"] in set(Reason)
        assert 0 <= tick["cpu"] <= 100
        assert 0 < tick["mem"] <= 100
        assert all(action["kind"] in ("spawn", "stop", "kill") for action in tick["actions"])
        if tick["target"] != target:
            assert tick["reason"] not in (Reason.STEADY, Reason.QUIET, Reason.MAX), tick
        target = tick["target"]
    assert record[-1]["target"] == 0


def test_target_stays_when_somebody_else_stops_a_worker(pool: Start) -> None:
    """While a worker that was stopped from outside leaves, a pool of two still wants two."""
    command = pool(*QUICK, "-n", "2", "-w", "tests.acceptance.jobs.Lingering")
    victim = command.await_idle(2)[0]
    tell([victim], signal.SIGTERM)
    wait_until(lambda: victim not in command.workers(), DONE, "the end of the victim")
    command.await_workers(2)
    assert {tick["target"] for tick in command.record() if tick["stopping"]} == {2}


def test_fixed_size(pool: Start, queue: Queue, marks: Path, tmp_path: Path) -> None:
    """With -n there are that many workers, with work for more and with none."""
    command = pool(*QUICK, "-n", "7", "--idle-seconds", "0.2")
    first = command.await_workers(7)
    gate = tmp_path / "gate"
    held = [queue.enqueue(jobs.hold, str(marks), str(gate)) for _ in range(10)]
    wait_until(lambda: len(lines(marks)) == 7, DONE, "seven jobs at work")
    gate.touch()
    for job in held:
        await_finished(job)
    command.await_ticks(5)
    assert sorted(command.workers()) == sorted(first)


def test_queues_are_served_in_order_of_priority(pool: Start, redis: Redis, marks: Path) -> None:
    """No job of a later queue starts while one waits in an earlier queue."""
    low, high = Queue("low", connection=redis), Queue("high", connection=redis)
    for number in range(5):
        low.enqueue(jobs.mark, str(marks), f"low {number}")
        high.enqueue(jobs.mark, str(marks), f"high {number}")
    assert pool("-n", "1", "--burst", "high", "low").wait(READY + DONE) == 0
    assert lines(marks) == [f"{name} {number}" for name in ("high", "low") for number in range(5)]


def test_burst_ends_when_everything_is_done(pool: Start, queue: Queue, marks: Path) -> None:
    """A burst ends with status 0 after the last job, and leaves no worker behind in Redis."""
    done = [queue.enqueue(jobs.mark, str(marks), str(number)) for number in range(50)]
    command = pool(*QUICK, "--burst")
    assert command.wait(ROOM) == 0
    assert sorted(map(int, lines(marks))) == list(range(50))
    assert all(job.get_status() is JobStatus.FINISHED for job in done)
    assert Worker.all(connection=queue.connection) == []
    command.await_gone(5)


def test_signals_move_the_floor(pool: Start) -> None:
    """TTIN makes the smallest size one more, TTOU one less."""
    command = pool(*QUICK, "--min-procs", "1", "--max-procs", "3", "--idle-seconds", "0.2")
    command.await_workers(1)
    command.signal(signal.SIGTTIN)
    command.await_workers(2)
    command.signal(signal.SIGTTIN)
    command.await_workers(3)
    command.signal(signal.SIGTTOU)
    command.await_workers(2)
    command.says("minimum number of workers is now 2")


def test_hup_replaces_every_worker_and_loses_no_job(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """HUP brings new workers with the code as it is now; each job enqueued meanwhile runs once."""
    code = tmp_path / "renewed_code.py"
    code.write_text("def answer():\n    return 'old'\n")
    command = pool(*QUICK, "-n", "3", "--preload", "renewed_code")
    before = command.await_workers(3)
    assert await_finished(queue.enqueue("renewed_code.answer"), READY) == "old"
    code.write_text("def answer():\n    return 'entirely new'\n")
    command.signal(signal.SIGHUP)
    count = 0
    while set(before) & set(command.workers()):
        assert count < 5000, f"{before} not replaced: {command.workers()}"
        queue.enqueue(jobs.mark, str(marks), str(count))
        count += 1
    after = command.await_workers(3)
    assert not set(before) & set(after)
    assert await_finished(queue.enqueue("renewed_code.answer"), READY + DONE) == "entirely new"
    wait_until(lambda: len(lines(marks)) >= count, DONE, "the end of all jobs")
    assert sorted(map(int, lines(marks))) == list(range(count))
    assert len(wait_until(command.fork_servers, 30)) == 1


def test_failed_restart_leaves_the_old_workers(pool: Start, queue: Queue, tmp_path: Path) -> None:
    """HUP with code that cannot be imported any more is refused, and work goes on."""
    code = tmp_path / "broken_later.py"
    code.write_text("def answer():\n    return 'old'\n")
    command = pool(*QUICK, "-n", "2", "--preload", "broken_later")
    before = command.await_workers(2)
    code.write_text("def answer(:\n    return 'this is no Python'\n")
    command.signal(signal.SIGHUP)
    command.says("workers are not restarted: module 'broken_later' cannot be preloaded")
    assert await_finished(queue.enqueue("broken_later.answer")) == "old"
    assert sorted(command.workers()) == sorted(before)


def test_no_worker_starts_while_rq_is_suspended(pool: Start, queue: Queue, marks: Path) -> None:
    """``rq suspend`` holds jobs and spawns, ``rq resume`` lets both go."""
    suspend(queue.connection)
    job = queue.enqueue(jobs.mark, str(marks))
    command = pool(*QUICK, "-n", "2")
    command.await_ticks(5)
    assert {tick["reason"] for tick in command.record()} == {"suspended"}
    assert command.workers() == []
    assert lines(marks) == []
    resume(queue.connection)
    command.await_workers(2)
    await_finished(job)


def test_suspension_keeps_running_workers(pool: Start, queue: Queue, marks: Path) -> None:
    """Workers of a pool that is suspended stay, take no job two seconds later, and resume."""
    command = pool(*QUICK, "-n", "2")
    before = command.await_workers(2)
    await_finished(queue.enqueue(jobs.pid), READY)
    suspend(queue.connection)
    command.await_ticks(12)
    assert command.record()[-1]["reason"] == Reason.SUSPENDED
    job = queue.enqueue(jobs.mark, str(marks))
    command.await_ticks(8)
    assert lines(marks) == []
    resume(queue.connection)
    await_finished(job)
    assert sorted(command.workers()) == sorted(before)


def test_scheduler_runs_what_is_due(pool: Start, queue: Queue, marks: Path) -> None:
    """--with-scheduler enqueues a job when its time has come."""
    job = queue.enqueue_in(timedelta(seconds=1), jobs.mark, str(marks), "on time")
    command = pool(*QUICK, "-n", "1", "--with-scheduler")
    await_finished(job, READY + DONE)
    assert lines(marks) == ["on time"]
    command.signal(signal.SIGTERM)
    assert command.wait(DONE) == 0
    command.await_gone(5)


@pytest.mark.parametrize("worker_class", ["rq.worker.Worker", "rq.worker.SimpleWorker"])
def test_foreign_worker_class(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path, worker_class: str
) -> None:
    """RQ's own worker classes serve in a pool, and a warm stop lets their job finish."""
    command = pool(*QUICK, "-n", "2", "-w", worker_class)
    workers = command.await_workers(2)
    where = await_finished(queue.enqueue(jobs.pid), READY)
    assert (where in workers) == (worker_class == "rq.worker.SimpleWorker")
    gate = tmp_path / "gate"
    job = queue.enqueue(jobs.hold, str(marks), str(gate))
    wait_until(lambda: lines(marks), DONE, "the job at work")
    command.signal(signal.SIGTERM)
    command.says("warm stop")
    gate.touch()
    assert command.wait(DONE) == 0
    assert job.get_status() is JobStatus.FINISHED


def test_job_class_and_serializer(pool: Start, redis: Redis) -> None:
    """-j and -S reach the workers."""
    queue = Queue(connection=redis, job_class=jobs.Marked, serializer=JSONSerializer)
    job = queue.enqueue("builtins.abs", -3)
    command = pool(
        "-n", "1", "-j", "tests.acceptance.jobs.Marked", "-S", "json", "--burst", "default"
    )
    assert command.wait(READY + DONE) == 0
    assert job.return_value(refresh=True) == ["Marked", 3]


@pytest.mark.parametrize(
    ("option", "value"), [("--max-jobs", "2"), ("--max-age", "1"), ("--max-job-memory", "1KB")]
)
def test_worn_out_workers_are_replaced(pool: Start, queue: Queue, option: str, value: str) -> None:
    """A worker past its jobs, its age or its growth makes room for another, and no job is lost."""
    command = pool(*QUICK, "-n", "1", option, value)
    first = command.await_workers(1)
    done = []
    while command.workers() in (first, []):
        done.append(queue.enqueue("tests.acceptance.jobs.pid"))
        await_finished(done[-1], READY)
        assert len(done) < 5000, "the worker was not replaced"
    assert "could not start" not in command.err
    assert all(job.get_status() is JobStatus.FINISHED for job in done)
