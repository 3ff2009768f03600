"""Worker classes other than PySplash's, with -w: they run, or are refused with a line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from tests.acceptance.command import Start
from tests.waiting import wait_until

OWN = """
from rq import Queue, Worker
from rq.job import Job
import os, time
from rq.worker import HerokuWorker, SimpleWorker, SpawnWorker

class Kind(type):
    pass

class Spawning(SpawnWorker, metaclass=Kind):
    def __init__(self, *arguments, greeting="hello", **settings):
        super().__init__(*arguments, **settings)
        self.greeting = greeting

class MyJob(Job):
    pass

class MyQueue(Queue):
    job_class = MyJob

class Simple(SimpleWorker):
    def execute_job(self, job, queue):
        job.meta["seen"] = True
        job.save_meta()
        super().execute_job(job, queue)

class Hasty(HerokuWorker):
    imminent_shutdown_delay = 0

class Narrow(Worker):
    def __init__(self, queues, connection):
        super().__init__(queues, connection=connection)

class Needy(Worker):
    def __init__(self, *arguments, tenant, **settings):
        super().__init__(*arguments, **settings)

def fail(*_):
    raise RuntimeError("as asked")

def wait():
    open("waits", "w").close()
    time.sleep(60)
"""
RQS = ["Worker", "SimpleWorker", "SpawnWorker", "HerokuWorker", "RoundRobinWorker", "RandomWorker"]


@pytest.mark.parametrize(
    "worker", [*(f"rq.worker.{name}" for name in RQS), "own.Spawning", "own.Simple"]
)
def test_worker_classes_run_jobs(
    pool: Start, redis: Redis, queue: Queue, tmp_path: Path, worker: str
) -> None:
    """Jobs of two queues finish, one that fails fails as it should, and the pool ends with 0."""
    (tmp_path / "own.py").write_text(OWN)
    other = Queue("other", connection=redis)
    good = [each.enqueue("operator.add", 1, 2) for each in (queue, other, queue)]
    bad = queue.enqueue("own.fail")
    command = pool("-b", "-n", "1", "-w", worker, "-P", str(tmp_path), "default", "other")
    assert command.wait(60) == 0, command.err
    states = [str(job.get_status()).lower().rpartition(".")[2] for job in good]
    assert states == ["finished"] * 3, command.out
    assert bad.get_status() == JobStatus.FAILED
    result = bad.latest_result()
    assert result is not None
    assert "as asked" in (result.exc_string or "")


def test_a_spawning_class_runs_jobs_of_other_classes(
    pool: Start, redis: Redis, tmp_path: Path
) -> None:
    """Classes of jobs and queues, and a serializer, are the user's in the spawned process, too."""
    (tmp_path / "own.py").write_text(OWN)
    queue = Queue(connection=redis, serializer="rq.serializers.JSONSerializer")
    job = queue.enqueue("operator.add", 1, 2)
    given = ("-w", "own.Spawning", "-j", "own.MyJob", "--queue-class", "own.MyQueue", "-S", "json")
    command = pool("-b", "-n", "1", *given)
    assert command.wait(60) == 0, command.err
    assert Job.fetch(job.id, redis, serializer=queue.serializer).return_value() == 3


def test_a_heroku_worker_tells_its_job_of_a_warm_stop(
    pool: Start, queue: Queue, tmp_path: Path
) -> None:
    """The job ends by RQ's ShutDownImminentException, long before it would be killed."""
    (tmp_path / "own.py").write_text(OWN)
    job = queue.enqueue("own.wait")
    command = pool("-n", "1", "-w", "own.Hasty")
    wait_until((tmp_path / "waits").exists, 20, "the job")
    command.signal(signal.SIGTERM)
    assert command.wait(20) == 0
    result = job.latest_result()
    assert result is not None
    assert "ShutDownImminentException" in (result.exc_string or "")


@pytest.mark.parametrize(
    ("worker", "why"), [("Narrow", "unexpected keyword argument"), ("Needy", "'tenant'")]
)
def test_a_class_that_cannot_be_made_is_refused(
    pool: Start, tmp_path: Path, worker: str, why: str
) -> None:
    """A line says what its __init__ lacks, before anything is started."""
    (tmp_path / "own.py").write_text(OWN)
    command = pool("-b", "-w", f"own.{worker}")
    assert command.wait(30) == 2
    (line,) = command.err.splitlines()
    assert f"'own.{worker}' cannot be made with the arguments RQ gives its workers" in line
    assert why in line
