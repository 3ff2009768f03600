"""Loads for real pools, and how a pool is put under one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness import GaveUp, Session, Site
from benchmarks.peers import CELERY, PYSPLASH, RQ_POOL, Command, Peer
from benchmarks.watch import Watch
from pysplash.control.simulation.trace import Trace
from pysplash.recording.reader import Recording, parse

#: the program that uses a core for a while
OTHERS = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pass
"""
#: seconds a pool may take until its first worker is there
READY = 30.0
#: seconds between two looks whether all is done
LOOK = 0.05


@dataclass(frozen=True)
class Load:
    """Jobs for a pool under limits."""

    name: str
    says: str
    #: what is enqueued when: seconds, kind, jobs a core
    plan: tuple[tuple[float, str, int], ...]
    seconds: float
    flags: tuple[str, ...] = ("--max-cpu", "80")
    #: bytes of --mem-budget, where there is one
    budget: int | None = None
    #: from when to when another program uses a core
    others: tuple[float, float] | None = None

    @property
    def watches_memory(self) -> bool:
        """Whether it is memory that is judged."""
        return self.budget is not None


@dataclass(frozen=True)
class Run:
    """What was seen of a load: from outside, and what the pool itself recorded."""

    load: Load
    trace: Trace
    recording: Recording
    finished: int
    versions: dict[str, str]


GB = 2**30
BUDGET = ("--mem-budget", "2GB", "--max-cpu", "100")
LOADS = {
    load.name: load
    for load in (
        Load("cpu", "jobs of 5 s on one core", ((0, "burn", 40),), 120),
        Load(
            "cpu-slow",
            "the same without the fast loop",
            ((0, "burn", 40),),
            120,
            ("--max-cpu", "80", "--no-throttle"),
        ),
        Load("duty", "jobs that compute 30 % of their time", ((0, "duty", 200),), 120),
        Load("wave", "15 s asleep, 10 s computing", ((0, "wave", 60),), 240),
        Load(
            "wave-slow",
            "the same without the fast loop",
            ((0, "wave", 60),),
            240,
            ("--max-cpu", "80", "--no-throttle"),
        ),
        Load("memory", "300 MB in 5 s, 2 GB", ((0, "ramp", 200),), 120, BUDGET, 2 * GB),
        Load("memory-heavy", "log-normal, 2 GB", ((0, "heavy", 200),), 120, BUDGET, 2 * GB),
        Load(
            "external",
            "jobs of 5 s; others use a core for 30 s",
            ((0, "burn", 40),),
            120,
            others=(60, 90),
        ),
        Load(
            "bursts",
            "three bursts of jobs of 1 s",
            tuple((40.0 * i, "brief", 10) for i in range(3)),
            120,
        ),
    )
}
#: mixes whose makespan is compared: kind and jobs a core
MIXES = {"cpu": ("burn", 10), "duty": ("duty", 20), "wave": ("wave", 6)}


class Alone(Session):
    """A session whose pool has run nothing before the load: what it learned would help it."""

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY
        while not self.site.broker.scard("rq:workers"):
            if time.monotonic() > deadline or any(p.poll() is not None for p in self._started):
                raise GaveUp(f"its workers are not ready: {self._last_words('workers.log')}")
            time.sleep(LOOK)

    def pids(self) -> list[int]:
        """Return the processes of the pool."""
        return [process.pid for process in self._family()]


def pysplash(flags: tuple[str, ...], record: Path) -> Peer:
    """Return a pool that sizes itself."""

    def commands(number: int, url: str) -> list[Command]:
        start = ["python", "-m", "pysplash", "start", "-q", "-u", url, "--record", str(record)]
        return [[*start, *flags, "default"]]

    return replace(PYSPLASH, commands=commands)


def celery_autoscale(most: int) -> Peer:
    """Return Celery with as many processes as jobs wait, up to *most*."""

    def commands(number: int, url: str) -> list[Command]:
        (command,) = CELERY.commands(1, url)
        where = command.index("-c")
        return [[*command[:where], f"--autoscale={most},1", *command[where + 2 :]]]

    return replace(CELERY, title=f"Celery, autoscale {most}", commands=commands)


def first_rule() -> Peer:
    """Return a pool that is sized as the first PySplash was."""

    def commands(number: int, url: str) -> list[Command]:
        return [["python", str(Path(__file__).with_name("first_pool.py")), url, "default"]]

    return replace(PYSPLASH, title="the first PySplash's rule", commands=commands)


@contextmanager
def recorded(site: Site, flags: tuple[str, ...]) -> Iterator[tuple[Alone, Path]]:
    """Run a pool that records, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        record = Path(folder) / "run.jsonl"
        with Alone(site, pysplash(flags, record), 1) as session:
            yield session, record


def play(site: Site, load: Load, seconds: float, cores: int) -> Run:
    """Put a pool under a load for so many seconds."""
    with recorded(site, load.flags) as (session, record):
        watch = Watch(
            session.pids,
            lambda: int(site.broker.llen("rq:queue:default")),
            memory=load.watches_memory,
        )
        with watch.open() as trace:
            _follow(session, load, seconds, cores)
        with record.open() as lines:
            recording = parse(lines, load.name)
        return Run(load, trace, recording, session.count(), session.versions)


def _follow(session: Session, load: Load, seconds: float, cores: int) -> None:
    """Enqueue and disturb as planned."""
    steps: list[tuple[float, str, int]] = [(at, kind, n * cores) for at, kind, n in load.plan]
    if load.others is not None:
        steps.append((load.others[0], "", 0))
    begin = time.monotonic()
    others: subprocess.Popen[bytes] | None = None
    try:
        for at, kind, count in sorted(steps):
            if at >= seconds:
                break
            time.sleep(max(0.0, begin + at - time.monotonic()))
            if kind:
                session.ask("fill", kind, count)
            elif load.others is not None:
                span = load.others[1] - load.others[0]
                others = subprocess.Popen([sys.executable, "-c", OTHERS, str(span)])
        time.sleep(max(0.0, begin + seconds - time.monotonic()))
    finally:
        if others is not None:
            others.kill()
            others.wait()


def makespan(session: Session, kind: str, jobs: int, bound: float) -> float:
    """Return the seconds from enqueuing *jobs* jobs until all are done."""
    before, begin = session.count(), time.monotonic()
    session.ask("fill", kind, jobs)
    while (done := session.count() - before) < jobs:
        if time.monotonic() > begin + bound:
            raise GaveUp(f"{done} of {jobs} {kind} jobs done after {bound:g} s")
        time.sleep(LOOK)
    return time.monotonic() - begin


def rq_pool(number: int) -> Peer:
    """Return `rq worker-pool` with so many workers."""
    return replace(RQ_POOL, title=f"rq worker-pool -n {number}")
