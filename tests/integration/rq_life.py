"""What happens to jobs, by hand or by a worker in a thread, for tests that watch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job, JobStatus
from rq.timeouts import BaseDeathPenalty

from tests.waiting import wait_until


def square(number: int) -> int:
    """Be a job with a result."""
    return number * number


def boom() -> None:
    """Be a job that fails."""
    raise LookupError("no such thing")


class Untimed(BaseDeathPenalty):
    """No timeout: RQ's for threads changes its exception's text for the whole process."""

    def setup_death_penalty(self) -> None:
        """Set nothing."""

    def cancel_death_penalty(self) -> None:
        """Take nothing away."""


class ThreadWorker(SimpleWorker):
    """A worker that can run in any thread: without signals, and sharing its connections."""

    death_penalty_class: type[BaseDeathPenalty] = Untimed

    def _install_signal_handlers(self) -> None:
        pass

    def _set_ip_address(self, connection: Redis) -> None:
        self.ip_address = "unknown"


def work(queue: Queue, max_jobs: int | None = None) -> None:
    """Run the jobs in *queue* here and now, at most *max_jobs* of them."""
    ThreadWorker([queue], connection=queue.connection).work(
        burst=True, max_jobs=max_jobs, logging_level="ERROR"
    )


def finish(job: Job, value: object = None, ttl: int = 500) -> None:
    """Let *job* end with *value*, as a worker would."""
    job._result = value
    with job.connection.pipeline() as pipe:
        job._handle_success(ttl, pipeline=pipe)
        pipe.execute()


def fail(job: Job, trace: str = "", status: JobStatus = JobStatus.FAILED) -> None:
    """Let *job* end in *status*, as a worker would."""
    with job.connection.pipeline() as pipe:
        job.set_status(status, pipeline=pipe)
        job._handle_failure(trace, pipeline=pipe)
        pipe.execute()


def aside(function: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    """Call *function* in a thread of its own, which cannot keep a failed test from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def blocked(client: Redis) -> list[str]:
    """Return the ids of the connections blocked in a read of a stream."""
    return [c["id"] for c in client.client_list() if c["cmd"] == "xread" and "b" in c["flags"]]


def await_block(client: Redis) -> list[str]:
    """Return those ids as soon as there are some."""
    return wait_until(lambda: blocked(client), 30, "a waiter blocked in a read")


def calls(client: Redis, command: str) -> int:
    """Return how often the server has run *command*."""
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


@contextmanager
def workers(queue: Queue, count: int) -> Iterator[None]:
    """Run *count* workers in threads for the length of the block."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            work(queue, max_jobs=1)
            stop.wait(0.005)

    running = [aside(run) for _ in range(count)]
    try:
        yield
    finally:
        stop.set()
        for future in running:
            future.result(20)
