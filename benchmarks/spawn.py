"""How fast workers start and what idle ones cost, beside ``rq worker-pool``, in one run.

``python benchmarks/spawn.py`` brings its own server (``pysplash[embedded]``), lets both
supervisors take turns and prints medians with their spread, and the ratio of the medians.
Needs Linux for proportional set sizes and exact CPU seconds.

A worker is ready once it is registered in Redis and waits for a job. Starts are timed twice:
from the start of the supervisor's process, by its own command line; and without all imports,
from the decision (PySplash: the request to the fork server; RQ: the call of
``WorkerPool.start``) on. Of PySplash the latter is read from its scoreboard, all else by asking
Redis every few milliseconds, which costs both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.servers import add_server, version_at
from pysplash import EmbeddedServer

QUEUE = "default"
#: seconds a start, a stop, or an answer may take before the benchmark gives up
PATIENCE = 60.0
#: seconds between two looks at Redis
LOOK = 0.004
#: seconds between readiness and the measurement of what idling costs
CALM = 3.0
SINGLES = 20

#: tells of every idle worker, each tick, when it was asked for and when it was ready
POOL = """
import json, os, sys
from pysplash import Pool
from pysplash.control.model import WorkerState

url, fd, least = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def tell(view, decision):
    idle = [w for w in view.workers if w.state is WorkerState.IDLE]
    os.write(fd, json.dumps([(w.spawned_at, w.since) for w in idle]).encode() + b"\\n")

pool = Pool(["default"], url=url, min_procs=least, logging_level="INFO", observer=tell)
sys.exit(pool.start())
"""
#: tells when it begins to start its workers
PEER_POOL = """
import json, os, sys, time
from redis import Redis
from rq.worker_pool import WorkerPool

url, fd, least = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pool = WorkerPool(["default"], connection=Redis.from_url(url), num_workers=least)
os.write(fd, json.dumps(time.monotonic()).encode() + b"\\n")
pool.start()
"""
#: starts one worker for each line it reads, and tells when
PEER_SINGLE = """
import json, os, sys, time
from redis import Redis
from rq.worker_pool import WorkerPool

url, fd = sys.argv[1], int(sys.argv[2])
pool = WorkerPool(["default"], connection=Redis.from_url(url))
for line in sys.stdin:
    os.write(fd, json.dumps(time.monotonic()).encode() + b"\\n")
    pool.start_worker(burst=False)
pool.stop_workers()
while not pool.all_workers_have_stopped():
    pass
"""


class GaveUp(Exception):
    """Something did not happen in time."""


def until(what: str, holds: Callable[[], bool], pause: float = LOOK) -> float:
    """Look until *holds* is true; return that moment on the monotonic clock."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise GaveUp(f"{what}: not within {PATIENCE:g} s")
        time.sleep(pause)
    return time.monotonic()


class Site:
    """The server, as seen by the benchmark."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = Redis.from_url(url)
        self.pid = int(self.client.info("server")["process_id"])

    def clear(self) -> None:
        """Forget all that earlier rounds have left."""
        self.client.flushall()

    def idle(self, number: int) -> bool:
        """Whether *number* workers are registered and wait for a job."""
        if self.client.scard("rq:workers") != number:
            return False
        with self.client.pipeline(transaction=False) as pipeline:
            for key in self.client.smembers("rq:workers"):
                pipeline.hget(key, "state")
            return all(state == b"idle" for state in pipeline.execute())

    def connections(self) -> int:
        """Connections of others."""
        return len(self.client.client_list()) - 1


class Supervisor:
    """One process under test, and what it has started."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )
        self._of_it = psutil.Process(self.process.pid)

    def descendants(self) -> list[psutil.Process]:
        """All processes below it; known by pid and time of birth, so never a stranger."""
        return self._of_it.children(recursive=True)

    def end(self) -> None:
        """Ask it to stop, wait, and kill what is left of it."""
        try:
            family = self.descendants()
        except psutil.NoSuchProcess:
            family = []
        try:
            self.process.terminate()
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _, left = psutil.wait_procs(family, timeout=5)
        for process in left:
            process.kill()


@contextmanager
def running(site: Site, command: Sequence[str], **options: Any) -> Iterator[Supervisor]:
    """Run a supervisor for the length of a block, on a server that holds nothing."""
    site.clear()
    supervisor = Supervisor(command, **options)
    try:
        yield supervisor
    finally:
        supervisor.end()


class Words:
    """JSON lines from a process, over a pipe of its own."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        self._lines = os.fdopen(self._read, "rb", buffering=0)

    def next(self) -> Any:
        """Wait for the next line."""
        if not select.select([self._read], [], [], PATIENCE)[0]:
            raise GaveUp(f"no word within {PATIENCE:g} s")
        line = self._lines.readline()
        if not line:
            raise GaveUp("the process under test has ended")
        return json.loads(line)

    def close(self) -> None:
        """Close this end."""
        self._lines.close()


@contextmanager
def script(site: Site, code: str, *arguments: int, **options: Any) -> Iterator[Any]:
    """Run *code*, given the server, its end of a pipe and *arguments*; yield it and the pipe."""
    words = Words()
    command = [sys.executable, "-c", code, site.url, str(words.fd), *map(str, arguments)]
    try:
        with running(site, command, pass_fds=(words.fd,), **options) as supervisor:
            os.close(words.fd)
            yield supervisor, words
    finally:
        words.close()


# --- what is measured --------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """One of the two supervisors, as its users start it."""

    name: str
    program: str
    arguments: tuple[str, ...]
    imports: str

    def command(self, url: str, number: int) -> list[str]:
        """Return its command line for *number* workers."""
        program = str(Path(sys.executable).with_name(self.program))
        return [program, *self.arguments, "-u", url, "-n", str(number), QUEUE]


OURS = Peer("PySplash", "pysplash", ("start",), "pysplash.cli.commands")
RQ = Peer("rq worker-pool", "rq", ("worker-pool",), "rq.cli")


@dataclass
class Figures:
    """All values measured of one peer, by measure."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def note(self, measure: str, value: float) -> None:
        """Add one value."""
        self.values.setdefault(measure, []).append(value)


FROM_START = "{} ready, from process start"
IMPORTS = "   of that, interpreter and imports"
FROM_DECISION = "{} ready, from the decision"
SINGLE = "one more worker ready"
PSS = "PSS per idle worker (of {})"
PSS_ALL = "   with the supervisor's share"
CONNECTIONS = "connections per worker (of {})"
SUPERVISOR = "supervisor, {} idle workers"
SERVER = "   fork server"
WORKERS = "   workers together"
REDIS = "   Redis server"


def measure_command(site: Site, peer: Peer, number: int, figures: Figures) -> None:
    """Time the command line, and weigh its workers."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {peer.imports}"], check=True, timeout=PATIENCE)
    figures.note(IMPORTS, time.monotonic() - begin)
    with running(site, peer.command(site.url, number)) as supervisor:
        ready = until(f"{number} workers of {peer.name}", lambda: site.idle(number))
        figures.note(FROM_START.format(number), ready - supervisor.started)
        time.sleep(CALM)
        figures.note(CONNECTIONS.format(number), site.connections() / number)
        family, pids = supervisor.descendants(), registered(site)
        workers = [p for p in family if p.pid in pids]
        figures.note(PSS.format(number), sum(map(pss, workers)) / number)
        everything = [psutil.Process(supervisor.process.pid), *family]
        figures.note(PSS_ALL, sum(map(pss, everything)) / number)


def registered(site: Site) -> set[int]:
    """Return the process ids of the workers Redis knows."""
    with site.client.pipeline(transaction=False) as pipeline:
        for key in site.client.smembers("rq:workers"):
            pipeline.hget(key, "pid")
        return {int(pid) for pid in pipeline.execute()}


def pss(process: psutil.Process) -> float:
    """Return the proportional set size in bytes."""
    return float(process.memory_full_info().pss)


def measure_decision(site: Site, number: int, ours: Figures, theirs: Figures) -> None:
    """Time both from their decision on, imports left out."""
    with script(site, POOL, number) as (_, words):
        until(f"{number} workers", lambda: site.idle(number))
        times: list[tuple[float, float]] = []
        while len(times) < number:
            times = words.next()
        ready, asked = max(at for _, at in times), min(at for at, _ in times)
        ours.note(FROM_DECISION.format(number), ready - asked)
    with script(site, PEER_POOL, number) as (_, words):
        asked = words.next()
        ready = until(f"{number} workers of RQ", lambda: site.idle(number))
        theirs.note(FROM_DECISION.format(number), ready - asked)


def measure_single_ours(site: Site, figures: Figures) -> None:
    """Raise the floor by one again and again; read request and readiness from the scoreboard."""
    with script(site, POOL, 1) as (supervisor, words):
        for number in range(1, SINGLES + 2):
            times: list[tuple[float, float]] = []
            while len(times) < number:
                times = words.next()
            asked, ready = max(times)
            if number > 1:
                figures.note(SINGLE, ready - asked)
            time.sleep(0.2)
            supervisor.process.send_signal(signal.SIGTTIN)


def measure_single_theirs(site: Site, figures: Figures) -> None:
    """Start one worker after the other as ``WorkerPool`` does."""
    with script(site, PEER_SINGLE, stdin=subprocess.PIPE) as (supervisor, words):
        for number in range(1, SINGLES + 2):
            supervisor.process.stdin.write(b"\n")
            supervisor.process.stdin.flush()
            asked = words.next()
            ready = until("one worker of RQ", partial(site.idle, number), LOOK / 2)
            if number > 1:
                figures.note(SINGLE, ready - asked)
            time.sleep(0.2)


def measure_idle(site: Site, peer: Peer, number: int, seconds: float, figures: Figures) -> None:
    """Take CPU seconds per second, as per cent of one core, of all who have a part."""
    with running(site, peer.command(site.url, number)) as supervisor:
        until(f"{number} workers of {peer.name}", lambda: site.idle(number), 0.05)
        time.sleep(CALM)
        workers = registered(site)
        others = {p.pid for p in supervisor.descendants()} - workers
        parts = {
            SUPERVISOR.format(number): {supervisor.process.pid},
            WORKERS: workers if peer is OURS else workers | others,
            REDIS: {site.pid},
        }
        if peer is OURS:
            parts[SERVER] = others
        begin, before = time.monotonic(), {name: cpu(pids) for name, pids in parts.items()}
        time.sleep(seconds)
        after = {name: cpu(pids) for name, pids in parts.items()}
        elapsed = time.monotonic() - begin
        for name in parts:
            figures.note(name, 100 * (after[name] - before[name]) / elapsed)


def cpu(pids: set[int]) -> float:
    """CPU seconds of processes so far, to the nanosecond where the kernel says it."""
    total = 0.0
    for pid in pids:
        threads = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
        if threads:
            total += sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
        else:
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


# --- the table ---------------------------------------------------------------------------------

Row = tuple[str, float, str]


def rows(workers: int, idle: int) -> list[Row]:
    """Return measures in the order of the table, each with its scale and unit."""
    return [
        (FROM_START.format(workers), 1e3, "ms"),
        (IMPORTS, 1e3, "ms"),
        (FROM_DECISION.format(workers), 1e3, "ms"),
        (SINGLE, 1e3, "ms"),
        (PSS.format(workers), 2**-20, "MiB"),
        (PSS_ALL, 2**-20, "MiB"),
        (CONNECTIONS.format(workers), 1.0, ""),
        (SUPERVISOR.format(idle), 1.0, "%"),
        (SERVER, 1.0, "%"),
        (WORKERS, 1.0, "%"),
        (REDIS, 1.0, "%"),
    ]


def cell(values: list[float], scale: float, unit: str) -> str:
    """Return median and spread."""
    if not values:
        return "-"
    low, middle, high = (scale * f(values) for f in (min, statistics.median, max))
    digits = 0 if high >= 100 else 1 if high >= 10 else 2
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})"


def print_table(workers: int, idle: int, ours: Figures, theirs: Figures) -> None:
    """Print medians, spread and ratio (of PySplash to RQ: smaller is better)."""
    print(f"{'':36}{OURS.name:>28}{RQ.name:>28}{'ratio':>8}")
    for name, scale, unit in rows(workers, idle):
        mine, other = ours.values.get(name, []), theirs.values.get(name, [])
        ratio = ""
        if mine and other and statistics.median(other) > 0:
            ratio = f"{statistics.median(mine) / statistics.median(other):.2f}"
        cells = f"{cell(mine, scale, unit):>28}{cell(other, scale, unit):>28}"
        print(f"{name:36}{cells}{ratio:>8}")
    print("Medians (least to most). CPU in per cent of one core.")


def run(site: Site, workers: int, idle: int, runs: int, seconds: float) -> None:
    """Measure everything, the peers taking turns."""
    ours, theirs = Figures(), Figures()
    for _ in range(runs):
        measure_command(site, OURS, workers, ours)
        measure_command(site, RQ, workers, theirs)
        measure_decision(site, workers, ours, theirs)
    measure_single_ours(site, ours)
    measure_single_theirs(site, theirs)
    for _ in range((runs + 1) // 2):
        measure_idle(site, OURS, idle, seconds, ours)
        measure_idle(site, RQ, idle, seconds, theirs)
    print_table(workers, idle, ours, theirs)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=32, help="workers to start")
    parser.add_argument("--idle", type=int, default=128, help="workers that idle")
    parser.add_argument("--runs", type=int, default=5, help="rounds; half as many of idling")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of one idling")
    add_server(parser)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what runs is ended on the way out
    load = os.getloadavg()[0]
    print(f"{psutil.cpu_count()} CPUs, load {load:.1f} at the start, {options.runs} runs")
    with EmbeddedServer(program=options.server) as server:
        print(f"server: {version_at(server.url)}")
        run(Site(server.url), options.workers, options.idle, options.runs, options.seconds)


if __name__ == "__main__":
    main()
