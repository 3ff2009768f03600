"""The real commands on servers that refuse ``CLIENT TRACKING``, or ``CLIENT``, or are a cluster."""

from __future__ import annotations

import time
from functools import partial

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from pysplash.errors import EXIT_CONNECTION
from tests.acceptance.command import QUICK, Start
from tests.integration.redis_servers import CLUSTER, redis_server
from tests.integration.refusing import add_user
from tests.integration.rq_life import square
from tests.waiting import wait_until

#: seconds in which an idle worker has a job done, however busy the machine is: by itself it would
#: look after ten
WOKEN = 5.0


def is_finished(job: Job) -> bool:
    """Return whether *job* has finished."""
    return bool(job.get_status() == JobStatus.FINISHED)


@pytest.mark.parametrize("user", ["no_tracking", "no_client"])
def test_idle_workers_are_woken(splash: Start, redis: Redis, queue: Queue, user: str) -> None:
    """The pool looks for them, and says so once."""
    command = splash("start", "-u", add_user(redis, user), "--record", "record.jsonl", *QUICK)
    command.await_idle(1)
    for number in range(3):
        began = time.monotonic()
        job = queue.enqueue(square, number)
        wait_until(partial(is_finished, job), 20.0, "the job's end")
        assert time.monotonic() - began < WOKEN
    command.signal(15)
    assert command.wait(30.0) == 0
    assert command.err.count("does not tell of new jobs") == 1


@pytest.mark.parametrize("words", [("start",), ("status",), ("health",)])
def test_a_cluster_is_named(splash: Start, words: tuple[str, ...]) -> None:
    """RQ's keys must be on one server: status 1 and one line that says so."""
    with redis_server(*CLUSTER) as url:
        command = splash(*words, "-u", url)
        assert command.wait(20.0) == EXIT_CONNECTION, command.err
        (line,) = command.err.splitlines()
        assert line.startswith("pysplash: ")
        assert "is a cluster" in line
