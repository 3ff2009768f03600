"""A pool that speaks for its workers: few connections, no threads, and commands that work."""

from __future__ import annotations

from pathlib import Path

import psutil
from redis import Redis
from rq import Queue, Worker
from rq.command import (
    send_command,
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_job_command,
)
from rq.job import Job, JobStatus

from tests.acceptance import jobs
from tests.acceptance.command import QUICK, Start
from tests.waiting import wait_until

#: seconds for anything that hangs on the machine having CPU to spare, which other tests use too
ROOM = 30.0


def test_one_connection_and_no_thread_a_worker(pool: Start, redis: Redis, queue: Queue) -> None:
    """Idle and busy alike; the pool's own connections do not grow with its workers."""
    command = pool(*QUICK, "-n", "4")
    pids = command.await_idle(4)
    names = {worker.name for worker in Worker.all(connection=redis)}

    def connected() -> list[str]:
        return sorted(c["name"] for c in redis.client_list() if c["name"] in names)

    wait_until(lambda: connected() == sorted(names), ROOM, "one connection each")
    assert {psutil.Process(pid).num_threads() for pid in pids} == {1}
    for _ in range(20):
        queue.enqueue(jobs.pid)
    wait_until(lambda: queue.finished_job_registry.count == 20, ROOM)
    assert connected() == sorted(names)
    assert len(redis.client_list()) <= len(names) + 6


def test_leases_and_heartbeats_are_renewed(
    pool: Start, redis: Redis, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """A running job's lease is short, and moves on; so does the heartbeat of its worker."""
    command = pool(*QUICK, "-n", "1")
    command.await_idle(1)
    gate = tmp_path / "gate"
    job = queue.enqueue(jobs.hold, str(marks), str(gate), job_timeout=3600)
    wait_until(marks.read_text, ROOM, "the job at work")
    (execution,) = job.get_executions()
    (worker,) = Worker.all(connection=redis)

    def lease() -> float:
        return redis.zscore("rq:wip:default", f"{job.id}:{execution.id}") or 0.0

    def beat() -> bytes | str | None:
        return redis.hget(worker.key, "last_heartbeat")

    first, first_beat = lease(), beat()
    assert 0 < redis.ttl(execution.key) <= 90
    wait_until(lambda: lease() > first, ROOM, "a renewal")
    wait_until(lambda: beat() != first_beat, ROOM, "a heartbeat")
    gate.touch()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, ROOM)
    assert redis.zcard("rq:wip:default") == 0


def test_commands_work_through_rqs_calls(
    pool: Start, redis: Redis, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """Stop-job and RQ 3's stop-execution stop, kill-horse fails, only shutdown ends a worker."""
    command = pool(*QUICK, "-n", "1")
    (pid,) = command.await_idle(1)

    def hold() -> Job:
        marks.write_text("")
        job = queue.enqueue(jobs.hold, str(marks), str(tmp_path / "gate"))
        wait_until(marks.read_text, ROOM, "the job at work")
        return job

    stopped = hold()
    send_stop_job_command(redis, stopped.id)
    wait_until(lambda: stopped.get_status() is JobStatus.STOPPED, ROOM)
    (worker,) = Worker.all(connection=redis)
    stopped = hold()
    (execution,) = stopped.get_executions()
    for execution_id in ("one that is over", execution.id):
        ids = {"job_id": stopped.id, "execution_id": execution_id}
        send_command(redis, worker.name, "stop-execution", **ids)
    wait_until(lambda: stopped.get_status() is JobStatus.STOPPED, ROOM)
    killed = hold()
    send_kill_horse_command(redis, worker.name)
    wait_until(lambda: killed.get_status() is JobStatus.FAILED, ROOM)
    assert command.workers() == [pid]
    send_shutdown_command(redis, worker.name)
    wait_until(lambda: command.workers() not in ([pid], []), ROOM, "a worker in its place")
