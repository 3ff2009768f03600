"""A job whose worker died: its failure callback, exception handlers and listeners are called."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import Any

import psutil
import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.job import Job, JobStatus

from tests.acceptance import callback_jobs as jobs
from tests.acceptance.command import QUICK, READY, Command, Start, tell
from tests.waiting import wait_until

#: seconds until all is called, on a machine that runs other tests too
BOUND = 20.0
HANDLERS = [
    word
    for name in ("first", "last", "never")
    for word in ("--exception-handler", f"tests.acceptance.callback_jobs.{name}")
]
PRELOAD = ("--preload", "tests.acceptance.callback_jobs")


def called(redis: Redis) -> list[dict[str, Any]]:
    """Return what was called so far, in order."""
    return [json.loads(line) for line in redis.lrange(jobs.CALLED, 0, -1)]


def await_calls(redis: Redis, count: int, bound: float = BOUND) -> list[dict[str, Any]]:
    """Return what was called, as soon as there are *count* calls."""
    wait_until(lambda: len(called(redis)) >= count, bound, f"{count} calls, of {called(redis)}")
    return called(redis)


def await_failed(job: Job, bound: float = BOUND) -> None:
    """Fail unless *job* fails soon."""
    wait_until(lambda: job.get_status() is JobStatus.FAILED, bound, f"the failure of {job}")


def start(pool: Start, *arguments: str, size: int = 1, **environment: str) -> Command:
    """Start a pool of idle workers."""
    command = pool(*QUICK, "-n", str(size), *arguments, **environment)
    command.await_idle(size)
    return command


def test_callback_and_handlers_are_called_in_a_worker_process(
    pool: Start, queue: Queue, redis: Redis
) -> None:
    """As RQ 3 calls them: AbandonedJobError, no arguments, no traceback; False ends the chain."""
    command = start(pool, *HANDLERS)
    job = queue.enqueue(jobs.die, on_failure=Callback(jobs.report))
    told, *handled = await_calls(redis, 3)
    (server,) = command.fork_servers()

    assert [call["who"] for call in (told, *handled)] == ["callback", "first", "last"]
    assert (told["kind"], told["arguments"], told["trace"]) == ("AbandonedJobError", [], None)
    assert handled[0]["kind"] == "AbandonedJobError"
    assert "killed by SIGKILL" in told["notes"][0]
    assert told["function"].endswith("callback_jobs.die")
    assert {call["parent"] for call in (told, *handled)} == {server}
    assert told["pid"] not in (command.process.pid, server)
    # the job is as RQ would give it, and its outcome stands, though the callback saved it
    assert (told["status"], told["stored"]) == (str(JobStatus.STARTED), "failed")
    job.refresh()
    assert (job.get_status(), job.meta) == (JobStatus.FAILED, {"reported": True})
    wait_until(lambda: len(command.workers()) == 1, BOUND, "the end of the callback's process")
    assert len(called(redis)) == 3


def test_each_death_is_called_once_with_the_retries_left(
    pool: Start, queue: Queue, redis: Redis
) -> None:
    """RQ calls them before it retries, too; the third death fails the job, whatever is left."""
    start(pool, *PRELOAD, CALLED_URL=url_of(redis))
    job = queue.enqueue(jobs.die, on_failure=Callback(jobs.report), retry=Retry(max=9))
    await_failed(job)
    calls = await_calls(redis, 6)

    assert [call["retries_left"] for call in calls if call["who"] == "callback"] == [9, 8, 0]
    listened = [call for call in calls if call["who"] == "listener"]
    assert [call["retried"] for call in listened] == [True, True, False]
    assert {call["error"] for call in listened} == {"rq.exceptions.AbandonedJobError"}
    assert "death no. 3" in listened[-1]["text"]


def url_of(redis: Redis) -> str:
    """Return the address of a server."""
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"


def test_a_worker_that_the_pool_killed(pool: Start, queue: Queue, redis: Redis) -> None:
    """A job that ignores its timeout is ended with its worker, and its callback is called."""
    start(pool)
    job = queue.enqueue(jobs.nap, 60, job_timeout=1, on_failure=Callback(jobs.report))
    (told,) = await_calls(redis, 1, BOUND + 6)

    await_failed(job)
    assert "by the pool" in told["notes"][0]


def test_a_requeued_job_has_not_failed(pool: Start, queue: Queue, redis: Redis) -> None:
    """Nothing is called for it until it fails: here by its third death."""
    start(pool, "--on-crash", "requeue")
    await_failed(queue.enqueue(jobs.die, on_failure=Callback(jobs.report)))
    (told,) = await_calls(redis, 1)

    assert "death no. 3" in told["notes"][0]


def test_jobs_inside_jobs_are_called_innermost_first(
    pool: Start, queue: Queue, redis: Redis
) -> None:
    """Both have failed with their worker."""
    start(pool)
    outer = queue.enqueue(jobs.wait_for_death, job_id="outer", on_failure=Callback(jobs.report))
    calls = await_calls(redis, 2)

    assert [call["job"] for call in calls] == ["inner", "outer"]
    await_failed(outer)


@pytest.mark.parametrize(
    ("callback", "line"),
    [
        (jobs.raise_, "its failure callback failed, its outcome stands: LookupError: nobody"),
        (jobs.exit_, "its failure callback failed, its outcome stands: SystemExit: 3"),
        (jobs.doze, "its failure callback failed, its outcome stands: rq.timeouts.JobTimeout"),
        (jobs.kill, "may not have run to their end and are not run again: killed by SIGKILL"),
    ],
)
def test_a_callback_that_breaks_changes_nothing(
    pool: Start, queue: Queue, redis: Redis, callback: Any, line: str
) -> None:
    """It is called once and named in the log; the job has failed, and others go on."""
    command = start(pool)
    job = queue.enqueue(jobs.die, on_failure=Callback(callback, timeout=1))
    command.says(rf"job {job.id}: .*{line}")
    next_one = queue.enqueue("operator.add", 1, 2)

    wait_until(lambda: next_one.return_value() == 3, BOUND, "the next job")
    assert job.get_status() is JobStatus.FAILED
    assert [call["who"] for call in called(redis)] == ["callback"]


def test_handlers_are_called_though_the_callback_failed(
    pool: Start, queue: Queue, redis: Redis
) -> None:
    """As in RQ."""
    start(pool, *HANDLERS)
    queue.enqueue(jobs.die, on_failure=Callback(jobs.raise_))

    assert [call["who"] for call in await_calls(redis, 3)] == ["callback", "first", "last"]


def test_handlers_are_called_for_a_job_without_a_callback(
    pool: Start, queue: Queue, redis: Redis
) -> None:
    """They are for every job."""
    start(pool, *HANDLERS)
    queue.enqueue(jobs.die)

    assert [call["who"] for call in await_calls(redis, 2)] == ["first", "last"]


def test_a_pool_that_ends_calls_first(pool: Start, queue: Queue, redis: Redis) -> None:
    """A job that a stop has ended: its callback is called before the pool has gone."""
    command = start(pool)
    job = queue.enqueue(jobs.nap, 60, on_failure=Callback(jobs.report))
    wait_until(lambda: job.get_status() is JobStatus.STARTED, READY, "the start of the job")
    command.signal(signal.SIGQUIT)

    assert command.wait(BOUND) == 0
    assert [call["job"] for call in called(redis)] == [job.id]
    assert "may not have run" not in command.err


def test_a_pool_that_cannot_wait_names_the_job(pool: Start, queue: Queue, redis: Redis) -> None:
    """It ends in time, whatever a callback does, and nothing of it is left."""
    command = start(pool)
    job = queue.enqueue(jobs.die, on_failure=Callback(jobs.hang))
    await_calls(redis, 1)
    command.signal(signal.SIGTERM)

    assert command.wait(BOUND + 10) == 0
    command.says(rf"job {job.id}: .* not run again: the pool has ended meanwhile")
    command.await_gone(BOUND)


def test_a_callback_goes_with_its_fork_server(pool: Start, queue: Queue, redis: Redis) -> None:
    """The log names the job; it is not called again, and the pool goes on."""
    command = start(pool)
    job = queue.enqueue(jobs.die, on_failure=Callback(jobs.hang))
    await_calls(redis, 1)
    tell(command.fork_servers(), signal.SIGKILL)
    command.says(rf"job {job.id}: .* not run again: its fork server died")
    next_one = queue.enqueue("operator.add", 1, 2)

    wait_until(lambda: next_one.return_value() == 3, READY, "the next job")
    assert len(called(redis)) == 1


def test_every_death_of_many_is_called_once(pool: Start, queue: Queue, redis: Redis) -> None:
    """Forty workers die, some at once; a callback each, never two, and no process is left."""
    command = start(pool, size=4)
    made = [queue.enqueue(jobs.die, on_failure=Callback(jobs.report)) for _ in range(40)]
    calls = await_calls(redis, len(made), 60 + BOUND)

    assert Counter(call["job"] for call in calls) == Counter(job.id for job in made)
    command.await_idle(4)
    assert not [p for p in psutil.Process(command.process.pid).children() if p.status() == "zombie"]


def test_what_a_killed_pool_has_left(
    pool: Start, splash: Start, queue: Queue, redis: Redis
) -> None:
    """``purge`` settles the job, and has its callback and the handlers it is given called."""
    command = start(pool, "--terminate-seconds", "1")
    job = queue.enqueue(jobs.nap, 60, on_failure=Callback(jobs.report))
    wait_until(lambda: job.get_status() is JobStatus.STARTED, READY, "the start of the job")
    tell([*command.fork_servers(), command.process.pid], signal.SIGKILL)
    command.await_gone(BOUND)
    assert called(redis) == []
    wait_until(lambda: not redis.keys("pysplash:pool:*"), 60, "the end of the pool's word")
    purge = splash("purge", "-u", url_of(redis), *HANDLERS)

    assert purge.wait(BOUND) == 0, purge.err
    assert "its job failed" in purge.out
    assert [call["who"] for call in called(redis)] == ["callback", "first", "last"]
