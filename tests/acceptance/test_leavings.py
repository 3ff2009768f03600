"""What a job leaves behind in its worker: put back, ended, or a reason to replace the worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from tests.acceptance import jobs, leaving_jobs
from tests.acceptance.command import READY, Start
from tests.waiting import wait_until

#: seconds that other tests on the machine may add to any bound
SLACK = 10.0


def lines(path: Path) -> list[str]:
    """Return the marks left so far."""
    return path.read_text().splitlines()


def ended(job: Job) -> object:
    """Return what a job has returned, once it has."""
    wait_until(lambda: job.get_status() in ("finished", "failed"), READY, "the job's end")
    result = job.latest_result()
    assert job.is_finished, result and result.exc_string
    return job.return_value()


@pytest.mark.parametrize(
    "kind", ["pysplash.Worker", "rq.worker.SimpleWorker", "tests.acceptance.leaving_jobs.Own"]
)
def test_each_job_starts_with_what_the_first_one_had(pool: Start, queue: Queue, kind: str) -> None:
    """Signals, streams, folder, limits and environment are put back, with a line that says who."""
    command = pool("-n", "1", "-w", kind)
    (pid,) = command.await_workers(1)
    first = ended(queue.enqueue(leaving_jobs.describe))
    assert isinstance(first, dict)
    assert first["environment"]["SET_BY_AN_IMPORT"] == "kept"
    wrong = {}
    for what in leaving_jobs.KINDS:
        ended(queue.enqueue(leaving_jobs.change, what))
        now = ended(queue.enqueue(leaving_jobs.describe))
        assert isinstance(now, dict)
        differs = {name: now[name] for name in first if now[name] != first[name]}
        if "environment" in differs:
            pairs = set(now["environment"].items()) ^ set(first["environment"].items())
            differs["environment"] = sorted(pairs)
        if differs:
            wrong[what] = differs
    assert wrong == {}, command.err[-2000:]
    assert command.workers() == [pid], "the worker was replaced"
    name = "tests.acceptance.leaving_jobs.change changed"
    command.says(rf"{name} the handler of SIGTERM: put back")
    command.says(rf"{name} the environment \(.*TENANT.*\): put back")
    command.says(rf"{name} the working folder: put back")
    assert "a secret" not in command.err


def test_what_cannot_be_put_back_costs_the_worker(pool: Start, queue: Queue) -> None:
    """The job's outcome is stored, the next job runs in another process, the log says why."""
    command = pool("-n", "1")
    first = queue.enqueue(leaving_jobs.leave_for_good)
    second = queue.enqueue(jobs.pid)
    assert ended(first) != ended(second)
    command.says(r"leave_for_good changed .*, which cannot be put back")
    assert "died" not in command.err


def test_a_worker_leaves_though_its_job_handles_the_stop(
    pool: Start, queue: Queue, marks: Path
) -> None:
    """A warm stop that only the job has heard ends the worker after that job all the same."""
    command = pool("-n", "1")
    first = queue.enqueue(leaving_jobs.hear_terms, str(marks), 2.0)
    second = queue.enqueue(jobs.mark, str(marks), "second")
    wait_until(lambda: "begun" in lines(marks), READY, "the job")
    command.signal(signal.SIGTERM)
    assert command.wait(2.0 + SLACK) == 0
    assert lines(marks) == ["begun", "term"]
    assert (first.get_status(), second.get_status()) == (JobStatus.FINISHED, JobStatus.QUEUED)


def test_a_job_inside_another_starts_with_what_the_first_one_had(
    pool: Start, queue: Queue, url: str
) -> None:
    """The job that waits gets its own folder and environment back as it goes on."""
    pool("-n", "1")
    place = ended(queue.enqueue(leaving_jobs.place))
    found = ended(queue.enqueue(leaving_jobs.around, url))
    assert isinstance(found, tuple)
    before, inner, after = found
    assert inner == place
    assert before == after
    assert before["tenant"] == "outer"


@pytest.mark.parametrize(("how", "status"), [("return", 0), ("raise", 1), ("exit", 7)])
def test_a_forked_process_does_not_come_back(
    pool: Start, queue: Queue, marks: Path, redis: Redis, how: str, status: int
) -> None:
    """It ends where it leaves the job's function; the worker stores one outcome and goes on."""
    command = pool("-n", "1")
    (pid,) = command.await_workers(1)
    job = queue.enqueue(leaving_jobs.fork, str(marks), how)
    assert ended(job) == status
    assert len(job.results()) == 1
    child = int(lines(marks)[0])
    assert not psutil.pid_exists(child)
    assert ended(queue.enqueue(jobs.pid)) == pid
    if how != "exit":
        command.says(rf"process {child}, forked by a job of .*leaving_jobs\.fork, came back")


def test_children_of_a_job_can_be_terminated(pool: Start, queue: Queue) -> None:
    """A process that multiprocessing has forked from a worker does not inherit its handlers."""
    pool("-n", "1")
    assert ended(queue.enqueue(leaving_jobs.terminate_child)) == -signal.SIGTERM


def test_children_nobody_waits_for_cost_the_worker(pool: Start, queue: Queue) -> None:
    """So that they do not use up the process ids of the machine."""
    command = pool("-n", "1")
    pid = ended(queue.enqueue(leaving_jobs.leave_children, 120))

    def replaced() -> bool:
        return ended(queue.enqueue(leaving_jobs.leave_children, 1)) != pid

    wait_until(replaced, READY, "another worker")
    command.says("child processes have ended that no job waits for")
    assert os.getpid() != pid
