"""How long the first job of an idle worker waits, on several servers, and what idling costs.

    python benchmarks/waking.py --server /usr/bin/redis-server

Medians of jobs that come alone, after the worker's start, after a failed job and after an outcome
that RQ's own code stored; and of an ``AsyncClient``'s calls. With ``--refuse`` the server refuses
``CLIENT TRACKING``, and the CPU of a pool with 32 idle workers is measured, too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from redis import Redis
from rq import Callback, Queue
from rq.worker import Worker

sys.path.append(str(Path(__file__).parents[1]))

import pysplash
from benchmarks.servers import add_server, on_port, version_at

#: seconds until a pool must be ready, and until a job must be done
READY, DONE = 30.0, 30.0
#: seconds a worker rests before the next job
REST = 0.3
#: idle workers whose CPU is measured, and for how many seconds
CROWD, WATCHED = 32, 30.0
APPLICATION = """\
import pysplash

@pysplash.task
def nothing():
    return 1

def fails():
    raise ValueError("as it is to")

def note(job, connection, result, *_):
    pass
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_server(parser)
    parser.add_argument("--refuse", action="store_true", help="refuse CLIENT TRACKING")
    parser.add_argument("--starts", type=int, default=5, help="pools started (default: 5)")
    parser.add_argument("--jobs", type=int, default=15, help="jobs after each rest (default: 15)")
    options = parser.parse_args()
    with on_port(options.server) as port, tempfile.TemporaryDirectory() as folder:
        url = f"redis://127.0.0.1:{port}/0"
        (Path(folder) / "application.py").write_text(APPLICATION)
        if options.refuse:
            rules = ("on", ">pw", "~*", "&*", "+@all", "-client|tracking")
            with Redis.from_url(url) as client:
                client.execute_command("ACL", "SETUSER", "some", *rules)
            url = f"redis://some:pw@127.0.0.1:{port}/0"
        print(f"server: {version_at(url)}{', CLIENT TRACKING refused' * options.refuse}")
        waits(url, Path(folder), options.starts, options.jobs)
        if options.refuse:
            idling(url, Path(folder))


@contextlib.contextmanager
def pool(url: str, folder: Path, workers: int) -> Iterator[psutil.Process]:
    """Run a pool of *workers*, from when all of them are idle."""
    words = ("-u", url, "-n", str(workers), "--preload", "application")
    with Redis.from_url(url) as client:
        client.flushdb()
        process = subprocess.Popen(
            [sys.executable, "-m", "pysplash", "start", *words, "-P", str(folder), "default"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await_that(lambda: idle(client) == workers, READY)
            time.sleep(REST)
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(READY)


def idle(client: Redis) -> int:
    """Return how many workers say that they are idle."""
    return sum(worker.get_state() == "idle" for worker in Worker.all(connection=client))


def await_that(condition: Callable[[], bool], bound: float) -> None:
    """Wait until *condition* holds; raise TimeoutError after *bound* seconds."""
    until = time.monotonic() + bound
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {bound:g} s")
        time.sleep(0.02)


def waits(url: str, folder: Path, starts: int, jobs: int) -> None:
    """Print the medians of what jobs and calls take that meet an idle worker."""
    series: dict[str, list[float]] = {}
    with Redis.from_url(url) as client:
        queue = Queue("default", connection=client)
        for _ in range(starts):
            with pool(url, folder, 2):
                series.setdefault("after the worker's start", []).append(one(queue))
        with pool(url, folder, 1):
            back: dict[str, Any] = {"on_success": Callback("application.note")}
            before: dict[str, tuple[str, dict[str, Any]]] = {
                "after a job that failed": ("application.fails", {}),
                "after an outcome that RQ stored": ("application.nothing", back),
                "after a plain job": ("application.nothing", {}),
            }
            for name, (function, settings) in before.items():
                for _ in range(jobs):
                    first = queue.enqueue(function, **settings)
                    assert first.latest_result(timeout=int(DONE)) is not None
                    time.sleep(REST)
                    series.setdefault(name, []).append(one(queue))
            series["an AsyncClient's call"] = asyncio.run(calls(url, jobs))
    for name, seconds in series.items():
        most = 1000 * max(seconds)
        print(f"{name:34} p50 {1000 * statistics.median(seconds):8.1f} ms  most {most:8.1f} ms")


def one(queue: Queue) -> float:
    """Return the seconds from before a job is enqueued until its result is there."""
    began = time.perf_counter()
    assert queue.enqueue("application.nothing").latest_result(timeout=int(DONE)) is not None
    return time.perf_counter() - began


async def calls(url: str, number: int) -> list[float]:
    """Return the seconds that each of some calls took, one after another with rests between."""
    seconds = []
    async with pysplash.AsyncClient(url, timeout=DONE) as client:
        await client.nothing()
        for _ in range(number):
            await asyncio.sleep(REST)
            began = time.perf_counter()
            await client.nothing()
            seconds.append(time.perf_counter() - began)
    return seconds


def idling(url: str, folder: Path) -> None:
    """Print the CPU of a pool with many idle workers, all its processes together."""
    with pool(url, folder, CROWD) as process:
        time.sleep(5.0)  # the interpreters have settled
        before = cpu(process)
        time.sleep(WATCHED)
        used = (cpu(process) - before) / WATCHED
    print(f"{f'a pool with {CROWD} idle workers':34} {100 * used:.2f} % of a core")


def cpu(process: psutil.Process) -> float:
    """Return the seconds of CPU of *process* and all that came of it."""
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


if __name__ == "__main__":
    main()
