"""A server that is there and takes nothing in: memory full, a replica now, too few replicas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job, JobStatus

from tests.acceptance import jobs
from tests.acceptance.command import QUICK, READY, Start
from tests.servers import refuses_scripts
from tests.waiting import wait_until

#: jobs that wait meanwhile
WAITING = 20
Refuse = Callable[[Redis], Any]


@pytest.mark.parametrize(
    ("refuse", "accept"),
    [
        pytest.param(
            lambda redis: redis.config_set("maxmemory", 1),
            lambda redis: redis.config_set("maxmemory", 0),
            id="memory-full",
        ),
        pytest.param(
            lambda redis: redis.replicaof("127.0.0.1", 1),
            lambda redis: redis.replicaof("NO", "ONE"),
            id="read-only",
        ),
        pytest.param(
            lambda redis: redis.config_set("min-replicas-to-write", 1),
            lambda redis: redis.config_set("min-replicas-to-write", 0),
            id="too-few-replicas",
        ),
    ],
)
def test_refused_writes_cost_nothing(
    pool: Start, redis: Redis, queue: Queue, tmp_path: Path, refuse: Refuse, accept: Refuse
) -> None:
    """No worker exits; what ended meanwhile ran once, and all ends well when writes are taken."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    command = pool(*QUICK, "-n", "3")
    workers = sorted(command.await_idle(3))
    plain, called_back, failing = held = [
        queue.enqueue(jobs.hold, str(marks), str(gate)),
        queue.enqueue(jobs.hold, str(marks), str(gate), on_success=Callback(jobs.note_success)),
        queue.enqueue(jobs.hold_and_fail, str(marks), str(gate)),
    ]
    wait_until(lambda: marks.exists() and count(marks) == len(held), READY, "the jobs at work")
    waiting = [queue.enqueue(jobs.pid) for _ in range(WAITING)]
    refuse(redis)
    gate.touch()
    if refuses_scripts(redis):
        command.says("refuses writes")
    command.await_ticks(2)
    assert sorted(command.workers()) == workers
    accept(redis)
    for job in (plain, called_back, *waiting):
        await_status(job, JobStatus.FINISHED)
    await_status(failing, JobStatus.FAILED)
    assert count(marks) == len(held)
    assert redis.get("succeeded") == called_back.id.encode()
    assert sorted(command.workers()) == workers
    assert list(redis.scan_iter("rq:execution*")) == []


def count(marks: Path) -> int:
    """Return how many marks there are."""
    return len(marks.read_text().splitlines())


def await_status(job: Job, status: JobStatus) -> None:
    """Fail unless *job* comes to have *status*."""
    wait_until(lambda: job.get_status() is status, READY, f"{status.value} of {job.func_name}")
