"""A server, a peer's workers on it, and the same way to load them for every peer.

All peers meet the same server, a fresh one on a free port of the loopback interface: broker in
database 0; results, where a peer can separate them, in database 1, so that counting them costs one
word. Both databases are flushed before each peer's turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil
from redis import Redis

from benchmarks import apps, servers
from benchmarks.peers import Peer, Unavailable

#: seconds workers get to be ready, a feeder to answer, and all to end
PATIENCE, END = 30.0, 3.0
#: seconds without any result after which a run is given up
STILL = 10.0
#: variables that would change what workers do
OWN = ("RQ_", "PYSPLASH_")
#: seconds between two looks
LOOK = 0.01


class GaveUp(Unavailable):
    """Something did not happen in time."""


@dataclass(frozen=True)
class Site:
    """The server, as the benchmark sees it."""

    url: str
    results_url: str
    broker: Redis
    results: Redis
    pid: int
    #: the program that was named by ``--server``; None: the embedded server's
    program: str | None = None

    def clear(self) -> None:
        """Forget everything."""
        self.broker.flushall()

    def version(self) -> str:
        """Return what kind of server it is, with its version."""
        return servers.version(self.broker)

    def section(self, name: str) -> str:
        """Return under which name a document has the tables: each other server has its own."""
        if self.program is None:
            return name
        return f"{name} on {self.version().rpartition('.')[0]}"


@contextlib.contextmanager
def open_site(program: str | None = None) -> Iterator[Site]:
    """Run *program*, or the embedded server's, for the length of the block; print its version."""
    with servers.on_port(program) as port:
        urls = [f"redis://127.0.0.1:{port}/{number}" for number in (0, 1)]
        with Redis.from_url(urls[0]) as broker, Redis.from_url(urls[1]) as results:
            pid = int(broker.info("server")["process_id"])
            print(f"server: {servers.version(broker)}")
            yield Site(urls[0], urls[1], broker, results, pid, program)


def end_on_signals() -> None:
    """Let SIGTERM end the program as an error does: with all that it has started."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, leave)


class Session:
    """Workers of one peer, ready for work, and a client that enqueues in that peer's own way."""

    def __init__(self, site: Site, peer: Peer, number: int) -> None:
        self.site, self.peer, self.number = site, peer, number
        self.versions: dict[str, str] = {}
        #: per cent of the machine's cores that others took during the last measurement
        self.foreign = 0.0
        self._python = peer.python()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._home = Path(self._folder.name)
        self._roots: list[psutil.Process] = []
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self.site.clear()
            self._write()
            self._feeder = self._start_feeder()
            for command in self.peer.programs(self.number, self.site.url):
                self._start_worker(command)
            self._await_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- what is asked of it ---

    def count(self) -> int:
        """Return how many results the server holds."""
        return self.peer.results(self.site.broker, self.site.results)

    def measure(self, kind: str, jobs: int) -> float:
        """Return jobs a second over *jobs* jobs that all wait when the workers are let go."""
        before = self.count()
        with self.held() as family:
            self.ask("fill", kind, jobs)
            busy, ours, begin = self._cpu(family)
        rate = self._rate(before, jobs)
        busy_then, ours_then, end = self._cpu(family)
        foreign = (busy_then - busy) - (ours_then - ours)
        self.foreign = max(0.0, 100 * foreign / (end - begin) / (psutil.cpu_count() or 1))
        return rate

    def ask(self, *question: Any, patience: float = PATIENCE) -> Any:
        """Call a function of the peer's application in the client; return its answer."""
        feeder = self._feeder
        assert feeder.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            feeder.stdin.write(json.dumps(question).encode() + b"\n")
            feeder.stdin.flush()
        return self._answer(patience)

    @contextlib.contextmanager
    def held(self) -> Iterator[list[psutil.Process]]:
        """Hold all processes of the workers by SIGSTOP for the length of the block."""
        family = self._family()
        try:
            _signal(family, signal.SIGSTOP)
            yield family
        finally:
            _signal(reversed(family), signal.SIGCONT)

    def generation(self, depth: int) -> int:
        """Return how many processes live so many steps below the programs that were started."""
        found = list(self._roots)
        for _ in range(depth):
            parents, found = found, []
            for process in parents:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found += process.children()
        return len(found)

    # --- how it is done ---

    def _write(self) -> None:
        texts = {"bench_jobs": apps.JOBS, "bench_app": self.peer.app, "bench_feed": apps.FEEDER}
        for name, text in texts.items():
            (self._home / f"{name}.py").write_text(text)
        (self._home / "marks").mkdir()

    def _environment(self) -> dict[str, str]:
        path = [str(self._home)]
        if self.peer.own:
            given = os.environ.get("PYTHONPATH", "")
            path += [os.path.abspath(entry) for entry in given.split(os.pathsep) if entry]
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(OWN)},
            "PYTHONPATH": os.pathsep.join(path),
            "BENCH_URL": self.site.url,
            "BENCH_RESULTS": self.site.results_url,
            "BENCH_MARKS": str(self._home / "marks"),
            "BENCH_FORKS": "1" if self.peer.forks else "",
            **self.peer.variables,
        }

    def _popen(self, command: list[str], log: str, **streams: Any) -> subprocess.Popen[bytes]:
        with (self._home / log).open("ab") as words:
            process = subprocess.Popen(
                command,
                **{"stdin": subprocess.DEVNULL, "stdout": words, "stderr": words, **streams},
                cwd=self._home,
                env=self._environment(),
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def _start_feeder(self) -> subprocess.Popen[bytes]:
        command = [str(self._python), "bench_feed.py", *self.peer.packages]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._feeder = self._popen(command, "feeder.log", **pipes)
        self.versions = self._answer(PATIENCE)
        return self._feeder

    def _start_worker(self, command: list[str]) -> None:
        if not Path(command[0]).exists():
            raise GaveUp(f"has no program {Path(command[0]).name}")
        self._roots.append(psutil.Process(self._popen(command, "workers.log").pid))

    def _answer(self, patience: float) -> Any:
        assert self._feeder.stdout is not None
        if not select.select([self._feeder.stdout], [], [], patience)[0]:
            raise GaveUp(f"its client did not answer within {patience:g} s")
        line = self._feeder.stdout.readline()
        if not line:
            raise GaveUp(f"its client has ended: {self._last_words('feeder.log')}")
        return json.loads(line)

    def _await_ready(self) -> None:
        """Let jobs leave marks until every worker has done some, and all of them are done."""
        sent, marks = 0, self._home / "marks"
        deadline = time.monotonic() + PATIENCE
        while len(list(marks.iterdir())) < self.number or self.count() < sent:
            if time.monotonic() > deadline or any(p.poll() is not None for p in self._started):
                raise GaveUp(f"its workers are not ready: {self._last_words('workers.log')}")
            if self.count() >= sent:
                sent += 2 * self.number
                self.ask("fill", "mark", 2 * self.number)
            time.sleep(LOOK)

    def _rate(self, before: int, jobs: int) -> float:
        begin = moved = time.monotonic()
        first_at, first, last = begin, 0, 0
        while last < jobs:
            done, now = self.count() - before, time.monotonic()
            if done and not first:
                first_at, first = now, done
            if done > last:
                last, moved = done, now
            elif now - moved > STILL:
                words = self._last_words("workers.log")
                raise GaveUp(f"stands still after {done} of {jobs} jobs: {words}")
            time.sleep(LOOK)
        if first < last:
            return (last - first) / (moved - first_at)
        return jobs / max(LOOK, moved - begin)  # too few to be seen at work

    def _cpu(self, family: Sequence[psutil.Process]) -> tuple[float, float, float]:
        """Return the machine's busy seconds, those of all who have a part here, and the time."""
        ours = 0.0
        for process in (psutil.Process(), psutil.Process(self.site.pid), *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                ours += sum(process.cpu_times()[:4])  # with those of children that have ended
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return sum(times) - getattr(times, "guest", 0.0) - idle, ours, time.monotonic()

    def _family(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [root, *root.children(recursive=True)]
        return found

    def _last_words(self, log: str) -> str:
        try:
            text = (self._home / log).read_text(errors="replace").strip()
        except OSError:
            return "no word"
        return text.splitlines()[-1][:160] if text else "no word"

    def close(self) -> None:
        """End every process that was started, and remove the folder."""
        family = self._family()
        for process in self._started:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.terminate()
        deadline = time.monotonic() + END
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        _signal(family, signal.SIGKILL)
        for process in self._started:
            process.kill()
            process.wait()
        self._folder.cleanup()


def _signal(processes: Any, number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def take_turns(
    peers: Sequence[Peer],
    numbers: Sequence[int],
    rounds: int,
    budget: float,
    turn: Callable[[Peer, int], None],
) -> dict[str, str]:
    """Call *turn* with each peer and number of workers, *rounds* times; say who dropped out why.

    Peers follow each other with the same number of workers, so that what else the machine does
    meets all alike, and in alternating order. Nobody's turn begins once *budget* seconds are over.
    """
    dropped: dict[str, str] = {}
    deadline = time.monotonic() + budget
    for step, number in enumerate([number for _ in range(rounds) for number in numbers]):
        # the order alternates for every number, however many there are
        turned = (step // len(numbers) + step % len(numbers)) % 2
        for peer in reversed(peers) if turned else peers:
            if peer.name in dropped:
                continue
            if time.monotonic() > deadline:
                print(f"time is up in round {step // len(numbers) + 1} of {rounds}")
                return dropped
            try:
                turn(peer, number)
            except Unavailable as reason:
                dropped[peer.name] = str(reason)
                print(f"{peer.title}: skipped: {reason}")
    return dropped
