"""How many jobs a supervisor loses when its workers are stopped at any moment, under load.

    python benchmarks/stops.py --stops 500 --against rq
    python benchmarks/stops.py --stops 500 --against pysplash

Two queues are kept full of tiny jobs, each of which appends its id to a file. SIGTERM goes to one
random worker after another, by the process ids that RQ's own records name; the supervisor replaces
them. Then the queues are left to run dry, the supervisor is stopped, and every job is looked for.

lost: in no queue and in no registry. stranded: in ``:intermediate``, or started with nobody to end
it. twice: started more than once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from redis import Redis
from rq import Queue, Worker
from rq.queue import EnqueueData

from pysplash.embedded import EmbeddedServer

ROOT = Path(__file__).parents[1]
QUEUES = ("high", "low")
WORKERS = 4
#: jobs waiting below which more are enqueued, and how many more
LOW_WATER, BATCH = 300, 200
#: longest pause in seconds between two stops; chance decides, so that every instant is hit
PAUSE = 0.02
#: seconds without any progress after which what is still missing will not come any more
STILL = 5.0
#: seconds a supervisor gets to bring up its first worker, and to end
READY, END = 30.0, 30.0
#: seconds for which the whole of a run may go on, and for each stop besides
BASE, EACH = 120.0, 2.0
MARK = "SPLASH_STOPS_RUN"


def note(path: str, name: str) -> None:
    """Be a tiny job: leave a line."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, f"{name}\n".encode())
    finally:
        os.close(fd)


@dataclass(slots=True)
class Storm:
    """Load and stops: what was enqueued, and how often a worker was stopped."""

    redis: Redis
    marks: Path
    seed: int = 1
    number: int = signal.SIGTERM
    enqueued: list[str] = field(default_factory=list)
    stops: int = 0

    def run(self, stops: int) -> None:
        """Stop *stops* workers under load, then wait until everything that will end has ended."""
        chance = random.Random(self.seed)
        deadline = time.monotonic() + BASE + EACH * stops
        self._feed()
        _until(lambda: bool(self.marks.exists() and self.marks.stat().st_size), READY)
        last: set[int] = set()
        while self.stops < stops and time.monotonic() < deadline:
            self._feed()
            pids = sorted(set(live_workers(self.redis, self.number == signal.SIGKILL)) - last)
            if pids:
                victim = chance.choice(pids)
                last = {victim, *(last if len(last) < WORKERS else ())}
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, self.number)
                    self.stops += 1
            time.sleep(chance.uniform(0, PAUSE))
        self.drain(deadline)

    def _feed(self) -> None:
        for name in QUEUES:
            queue = Queue(name, connection=self.redis)
            if queue.count < LOW_WATER // len(QUEUES):
                batch = [self._job(queue) for _ in range(BATCH // len(QUEUES))]
                queue.enqueue_many(batch)
                self.enqueued += [str(data.job_id) for data in batch]

    def _job(self, queue: Queue) -> EnqueueData:
        name = secrets.token_hex(8)
        arguments = (str(self.marks), name)
        return queue.prepare_data("benchmarks.stops.note", arguments, job_id=name, result_ttl=-1)

    def drain(self, deadline: float) -> None:
        """Wait until nothing waits and nothing runs, or nothing has moved for a while."""
        before, moved = -1, time.monotonic()
        while time.monotonic() < deadline:
            left = len(self.enqueued) - ended(self.redis)
            if left == 0 or time.monotonic() - moved > STILL:
                return
            if left != before:
                before, moved = left, time.monotonic()
            time.sleep(0.1)


def _until(predicate: Callable[[], bool], bound: float) -> None:
    deadline = time.monotonic() + bound
    while not predicate():
        if time.monotonic() > deadline:
            raise SystemExit(f"no job was run within {bound:g} s")
        time.sleep(0.02)


def ended(redis: Redis) -> int:
    """Return how many jobs are in a registry of jobs that have ended."""
    return sum(
        int(redis.zcard(f"rq:{registry}:{name}"))
        for registry in ("finished", "failed")
        for name in QUEUES
    )


def live_workers(redis: Redis, proven: bool = False) -> list[int]:
    """Return the process ids of the workers that RQ knows on this host and that are alive.

    *proven*: only of those that have done a job. Whoever kills workers that are only just starting
    measures how long a supervisor then waits before the next start.
    """
    here = socket.gethostname()
    found = [w for w in Worker.all(connection=redis) if w.death_date is None]
    known = [(w.pid, w.hostname) for w in found if w.successful_job_count or not proven]
    return [pid for pid, host in known if pid and host == here and psutil.pid_exists(pid)]


@dataclass(frozen=True, slots=True)
class Report:
    """Where every job is."""

    jobs: int
    #: ids by what is wrong with them
    lost: tuple[str, ...]
    stranded: tuple[str, ...]
    twice: tuple[str, ...]
    failed: tuple[str, ...]
    #: in more than one place at once
    double: tuple[str, ...]
    #: finished and never run, or run and never finished
    false: tuple[str, ...]
    #: names of workers that RQ takes for alive and that are not
    ghosts: tuple[str, ...]

    def clean(self) -> bool:
        """Whether each job is in one place and was run once, and no worker is a ghost."""
        return (
            not any((self.lost, self.stranded, self.twice, self.failed, self.double, self.false))
            and not self.ghosts
        )


def inspect(redis: Redis, enqueued: Sequence[str], marks: Path) -> Report:
    """Look for every job, once nothing runs any more."""
    places = {name: Counter(_members(redis, name)) for name in ("finished", "failed")}
    places["queued"] = Counter(_listed(redis, "rq:queue:{}"))
    places["intermediate"] = Counter(_listed(redis, "rq:queue:{}:intermediate"))
    places["started"] = Counter(name.partition(":")[0] for name in _members(redis, "wip"))
    everywhere = sum(places.values(), Counter())
    runs = Counter(marks.read_text().split())
    workers = Worker.all(connection=redis)
    return Report(
        jobs=len(enqueued),
        lost=tuple(name for name in enqueued if not everywhere[name]),
        stranded=tuple(
            name for name in enqueued if places["intermediate"][name] or places["started"][name]
        ),
        twice=tuple(name for name in enqueued if runs[name] > 1),
        failed=tuple(places["failed"]),
        double=tuple(name for name in enqueued if everywhere[name] > 1),
        false=tuple(
            name for name in enqueued if bool(runs[name]) != bool(places["finished"][name])
        ),
        ghosts=tuple(w.name for w in workers if w.pid and not psutil.pid_exists(w.pid)),
    )


def _members(redis: Redis, registry: str) -> list[str]:
    found: list[Any] = [redis.zrange(f"rq:{registry}:{name}", 0, -1) for name in QUEUES]
    return [member.decode() for members in found for member in members]


def _listed(redis: Redis, key: str) -> list[str]:
    found: list[Any] = [redis.lrange(key.format(name), 0, -1) for name in QUEUES]
    return [member.decode() for members in found for member in members]


# --- as a program ------------------------------------------------------------------------------

COMMANDS = {
    "pysplash": ["pysplash", "-q", "--scale-frequency", "0.1", "--quiet-period", "0"],
    "rq": ["rq.cli", "worker-pool", "-q"],
}


@contextlib.contextmanager
def supervisor(against: str, url: str) -> Iterator[None]:
    """Run a supervisor for the length of the block; nothing of it is left afterwards."""
    mark = secrets.token_hex(8)
    command = [*COMMANDS[against], "-u", url, "-n", str(WORKERS), *QUEUES]
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SPT_NOENV": "1", MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END)
            for left in marked(mark):
                with contextlib.suppress(psutil.Error):
                    left.kill()


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that have *mark* in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def measure(against: str, stops: int, seed: int, number: int) -> tuple[Storm, Report]:
    """Return what became of the jobs under *stops* stops of workers of the supervisor *against*."""
    with (
        EmbeddedServer() as server,
        tempfile.TemporaryDirectory() as folder,
        Redis.from_url(server.url) as redis,
    ):
        storm = Storm(redis, Path(folder) / "marks", seed, number)
        with supervisor(against, server.url):
            storm.run(stops)
        return storm, inspect(redis, storm.enqueued, storm.marks)


def main() -> None:
    """Measure and print one row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stops", type=int, default=500)
    parser.add_argument("--against", choices=sorted(COMMANDS), default="pysplash")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--signal", choices=("TERM", "KILL"), default="TERM")
    given = parser.parse_args()
    number = signal.Signals[f"SIG{given.signal}"]
    began = time.monotonic()
    storm, report = measure(given.against, given.stops, given.seed, number)
    print(
        f"{'supervisor':<12}{'stops':>7}{'jobs':>8}{'lost':>6}{'stranded':>10}{'twice':>7}", end=""
    )
    print(f"{'failed':>8}{'ghosts':>8}{'seconds':>9}")
    counts = (report.lost, report.stranded, report.twice, report.failed, report.ghosts)
    lost, stranded, twice, failed, ghosts = map(len, counts)
    print(f"{given.against:<12}{storm.stops:>7}{report.jobs:>8}{lost:>6}{stranded:>10}", end="")
    print(f"{twice:>7}{failed:>8}{ghosts:>8}{time.monotonic() - began:>9.0f}")


if __name__ == "__main__":
    main()
