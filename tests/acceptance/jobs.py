"""Jobs and classes that workers of a pool under test import: well-behaved and otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from redis import Redis
from rq import Queue, get_current_job
from rq.job import Job

from pysplash import Worker, map_jobs, wait_jobs

#: seconds between two looks of a held job
LOOK = 0.02


def mark(path: str, text: str = "") -> int:
    """Leave the line *text*, or else the process id; return how many lines there are now."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, f"{text or os.getpid()}\n".encode())
    finally:
        os.close(fd)
    return len(Path(path).read_text().splitlines())


def nap(seconds: float) -> None:
    """Sleep: a job's work, not a test's wait."""
    time.sleep(seconds)  # noqa: TID251 -- this is the job


def divide(left: float, right: float) -> float:
    """Return a quotient, if there is one."""
    return left / right


def note_stop(job: Job, connection: Redis) -> None:
    """Be a callback of a job that somebody stopped."""
    connection.set("stopped", job.id)


def pid() -> int:
    """Return the worker's process id."""
    return os.getpid()


def step(path: str, number: int, deadly: bool) -> int:
    """Be brief and leave a mark; a *deadly* one ends its process."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"%d\n" % number)
    os.close(fd)
    if deadly and number % 2:
        os._exit(0)
    if deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hold(path: str, gate: str) -> int:
    """Run until the file *gate* exists."""
    mark(path)
    while not Path(gate).exists():
        nap(LOOK)
    return os.getpid()


def hold_and_fail(path: str, gate: str) -> NoReturn:
    """Run until the file *gate* exists, and fail."""
    hold(path, gate)
    raise ValueError("the gate is open")


def note_success(job: Job, connection: Redis, _result: Any) -> None:
    """Be a callback of a job that returned."""
    connection.set("succeeded", job.id)


def long(path: str, seconds: float) -> None:
    """Run for *seconds*."""
    mark(path)
    nap(seconds)


def spin(path: str, seconds: float) -> None:
    """Compute for *seconds* of CPU time, however long that takes."""
    mark(path)
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def grow(path: str, gate: str, size: int) -> int:
    """Take *size* bytes over two seconds, and keep them until the file *gate* exists."""
    mark(path)
    held = []
    for _ in range(40):
        held.append(bytes(range(256)) * (size // 40 // 256))
        nap(0.05)
    while not Path(gate).exists():
        nap(LOOK)
    return len(held)


def deaf(path: str, seconds: float) -> None:
    """Run for *seconds* and hear no polite signal."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    long(path, seconds)


def swallow(path: str, seconds: float) -> None:
    """Run for *seconds*, whatever exception a timeout raises."""
    mark(path)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            nap(LOOK)
        except Exception:
            continue


def leave(path: str, status: int) -> NoReturn:
    """End the worker's process without a word."""
    mark(path)
    os._exit(status)


def die(path: str) -> NoReturn:
    """Kill the worker."""
    mark(path)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive after SIGKILL")


def die_once(path: str) -> str:
    """Kill the worker in the first run, finish in the second."""
    if mark(path) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def parent(path: str, seconds: float) -> None:
    """Start a process that sleeps and hears no polite signal; leave its id; sleep too."""
    code = f"import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep({seconds})"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        mark(path, str(child.pid))


def escape(path: str) -> None:
    """Start a process that outlives everyone; leave its id."""
    code = "import time; time.sleep(600)"
    mark(path, str(subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid))


class Broken(Worker):
    """A worker class of which no worker can be made."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("no licence found")


class Marked(Job):
    """A job class that can be told from RQ's own."""

    def perform(self) -> Any:
        """Run, and say by which class."""
        return [type(self).__name__, super().perform()]


class Lingering(Worker):
    """A worker class that takes its time to leave."""

    def teardown(self) -> None:
        nap(1.5)
        super().teardown()


def fib(n: int) -> int:
    """Return the *n*-th Fibonacci number, by jobs that wait for jobs."""
    return n if n < 2 else sum(map_jobs(fib, (n - 1, n - 2)))


def chain(n: int) -> int:
    """Return *n*, by a chain of so many jobs, each waiting for the next."""
    job = get_current_job()
    if n == 0 or job is None:
        return 0
    queue = Queue(job.origin, connection=job.connection, default_timeout=600)
    return 1 + int(map_jobs(chain, [n - 1], queue=queue)[0])


def wait_for(path: str, *names: str) -> Any:
    """Leave a mark, then wait for jobs by id."""
    mark(path)
    job = get_current_job()
    assert job is not None
    found = Job.fetch_many(names, connection=job.connection)
    return wait_jobs([job for job in found if job], collect_results=True)
