"""Job classes and queue classes that keep their jobs under keys with a prefix of their own."""

from __future__ import annotations

import contextlib

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from pysplash import Worker
from pysplash.errors import ConfigError
from pysplash.worker.scoreboard import Scoreboard, Slot


class OwnJob(Job):
    """A job that is kept elsewhere."""

    redis_job_namespace_prefix = "own:job:"


class OwnQueue(Queue):
    """A queue that is kept elsewhere."""

    redis_queue_namespace_prefix = "own:queue:"


@pytest.mark.parametrize(("jobs", "queues"), [(OwnJob, Queue), (Job, OwnQueue), (OwnJob, OwnQueue)])
def test_jobs_under_own_keys_are_run(redis: Redis, jobs: type[Job], queues: type[Queue]) -> None:
    """A worker alone runs them, by RQ's own code."""
    queue = queues("default", connection=redis, job_class=jobs)
    first = queue.enqueue("operator.add", 1, 2)
    second = queue.enqueue("operator.truediv", 1, 0)
    worker = Worker(["default"], connection=redis, job_class=jobs, queue_class=queues)
    worker.work(burst=True)

    statuses = [job.get_status() for job in (first, second)]
    assert statuses == [JobStatus.FINISHED, JobStatus.FAILED]
    assert first.return_value() == 3


def test_a_pool_refuses_own_keys(redis: Redis) -> None:
    """Its supervisor looks at RQ's usual keys, and would start no worker for such a queue."""
    with contextlib.closing(Scoreboard(1)) as board:
        worker = Worker(["default"], connection=redis, queue_class=OwnQueue)
        worker.slot = Slot(board, 0, worker.name)
        with pytest.raises(ConfigError, match="the keys of OwnQueue begin with 'own:queue:'"):
            worker.work(burst=True)
