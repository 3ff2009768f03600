"""Jobs that wait for jobs, and what they leave for a test to see."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, NoReturn

from redis import Redis
from rq import Queue, Retry, get_current_job
from rq.job import Job
from rq.suspension import suspend
from rq.utils import as_text

from pysplash import map_jobs, wait_jobs
from pysplash.waiting.deadlock import forget
from tests.generation import at_work_on
from tests.integration.rq_life import finish, square

#: where jobs write what they saw, in order
LOG = "test:log"


def say(redis: Redis, text: str) -> None:
    """Leave a line."""
    redis.rpush(LOG, text)


def said(redis: Redis) -> list[str]:
    """Return the lines left so far."""
    return [as_text(line) for line in redis.lrange(LOG, 0, -1)]


def me() -> Job:
    """Return the job that runs."""
    job = get_current_job()
    assert job is not None
    return job


def here() -> Queue:
    """Return the queue of the job that runs."""
    job = me()
    return Queue(job.origin, connection=job.connection)


def nap(seconds: float) -> None:
    """Sleep: a job's work, not a test's wait."""
    time.sleep(seconds)  # noqa: TID251 -- this is the job


def fib(n: int) -> int:
    """Return the *n*-th Fibonacci number."""
    if n < 2:
        return n
    children = [here().enqueue(fib, n - 1, at_front=True), here().enqueue(fib, n - 2)]
    results: Any = wait_jobs(children, collect_results=True)
    return int(sum(results))


def chain(n: int, **options: Any) -> int:
    """Return *n*, by a chain of so many jobs, each waiting for the next."""
    if n == 0:
        return 0
    child = here().enqueue(chain, n - 1, job_timeout=600, at_front=True)
    results: Any = wait_jobs([child], collect_results=True, **options)
    return 1 + int(results[0])


def wait_for(*names: str, **options: Any) -> Any:
    """Wait for jobs by id; return their results."""
    jobs = Job.fetch_many(names, connection=me().connection)
    return wait_jobs([job for job in jobs if job], collect_results=True, **options)


def wait_for_all(names: list[str], **options: Any) -> Any:
    """Wait for jobs by id, and say who runs after that, as it sees it, and the results."""
    values = wait_for(*names, **options)
    present = "+".join(at_work_on(me().connection, str(me().worker_name)))
    say(me().connection, f"{me().id} {os.environ['RQ_JOB_ID']} {present} {values}")
    return values


def identity() -> str:
    """Say who runs."""
    say(me().connection, f"{me().id} {os.environ['RQ_JOB_ID']}")
    return me().id


def fail(text: str = "no luck") -> NoReturn:
    """Raise."""
    raise LookupError(text)


def leave() -> NoReturn:
    """Call sys.exit."""
    sys.exit(3)


def second_try() -> Any:
    """Ask to be run again, once."""
    return "done" if me().number_of_retries else Retry(max=1)


def fail_once() -> str:
    """Fail in the first run, finish in the second."""
    first = me().connection.incr("test:tries") == 1
    if first:
        raise LookupError("not yet")
    return "at last"


def called_back(job: Job, connection: Redis, *_outcome: Any) -> None:
    """Say that a callback was called, and for which job."""
    say(connection, f"callback {job.id}")


def finish_other(name: str) -> str:
    """End another job, as the worker that runs it would."""
    finish(Job.fetch(name, connection=me().connection), f"{name} ended")
    return "leaf"


def suspend_and_wait(name: str) -> Any:
    """Suspend RQ, then wait."""
    suspend(me().connection)
    return wait_for(name)


def in_a_thread(name: str) -> Any:
    """Wait for a job in a thread of the job's own."""
    child = Job.fetch(name, connection=me().connection)
    came: list[Any] = []
    thread = threading.Thread(target=lambda: came.append(wait_jobs([child], 1)))
    thread.start()
    thread.join()
    return came[0]


async def in_a_coroutine(name: str) -> Any:
    """Wait for a job in a coroutine."""
    child = Job.fetch(name, connection=me().connection)
    return wait_jobs([child], 1)


def sleepy(name: str, seconds: float, *, then: str = "", **options: Any) -> str:
    """Wait for a job, sleep, say how that went."""
    try:
        wait_for(name, **options)
        nap(seconds)
    except BaseException as error:
        say(me().connection, f"{me().id}: {type(error).__name__}: {error}")
        raise
    say(me().connection, f"{me().id}: slept")
    return then


def stubborn(seconds: float) -> str:
    """Sleep in short naps through two interrupts of any kind, then let the third through."""
    end, heard = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            nap(0.01)
        except BaseException:
            heard += 1
            say(me().connection, f"{me().id}: interrupt {heard}")
            if heard == 3:
                raise
    return "slept"


def stop_then_nap(connection_url: str, name: str) -> None:
    """Be stopped, or have an outer job stopped, while asleep."""
    from rq.command import send_stop_job_command  # noqa: PLC0415 -- only here

    with Redis.from_url(connection_url) as redis:
        send_stop_job_command(redis, name)
    nap(20)


def die() -> NoReturn:
    """Kill the worker."""
    os.kill(os.getpid(), 9)
    raise AssertionError("alive after SIGKILL")


def wait_over(url: str, name: str) -> Any:
    """Wait for a job over a connection of the job's own."""
    with Redis.from_url(url) as redis:
        return wait_jobs([Job.fetch(name, connection=redis)], collect_results=True)


def deep(calls: int, *names: str) -> Any:
    """Wait for jobs from so many calls down."""
    return deep(calls - 1, *names) if calls else wait_for(*names)


def slow_once(seconds: float) -> str:
    """Sleep in the first run, not in the second."""
    if me().connection.incr("test:runs") == 1:
        nap(seconds)
    return "quick"


def map_squares(count: int, **options: Any) -> Any:
    """Square so many numbers, in as many jobs."""
    return map_jobs(square, range(count), **options)


def cancel_and_delete(canceled: str, deleted: str) -> str:
    """Cancel one job and delete another."""
    Job.fetch(canceled, connection=me().connection).cancel()
    Job.fetch(deleted, connection=me().connection).delete()
    return me().id


def lose_connections() -> str:
    """Say who runs, then lose every connection of this process to the server."""
    say(me().connection, me().id)
    me().connection.client_kill_filter(_type="normal", skipme=False)
    return me().id


def end_and_wait(ended: str, other: str) -> Any:
    """End a job that waits for this one, then wait for another."""
    finish_other(ended)
    forget(me().connection, ended)
    return wait_for(other)
