"""Who is measured: what each peer installs, how its workers are started, where it counts results.

Every peer but PySplash runs from a virtual environment of its own, ``.venvs/bench-<name>`` in the
checkout, made when it is first needed; ``redis[hiredis]`` is part of each.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from redis import Redis

from benchmarks import apps

ROOT = Path(__file__).parents[1]
VENVS = ROOT / ".venvs"
#: seconds an installation may take
INSTALL = 240.0

Command = list[str]


class Unavailable(Exception):
    """A peer cannot be measured here."""


@dataclass(frozen=True)
class Peer:
    """One way to run jobs."""

    name: str
    title: str
    #: text of its application, see apps.py
    app: str
    #: commands that start n workers, given n and the server's URL; the first word is the program
    commands: Callable[[int, str], list[Command]]
    #: how many results the server holds, given clients of its two databases
    results: Callable[[Redis, Redis], int]
    #: packages whose versions count, and what to install; nothing: this environment is its own
    packages: tuple[str, ...]
    install: tuple[str, ...] = ()
    #: the environment's name, where peers share one
    home: str = ""
    forks: bool = False
    #: environment variables its workers and its client need
    variables: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("noop", "nap", "large")

    @property
    def own(self) -> bool:
        """Whether it runs from this very environment."""
        return not self.install

    def python(self) -> Path:
        """Return its interpreter, installed if it was not; raise Unavailable if that fails."""
        if self.own:
            return Path(sys.executable)
        home = VENVS / f"bench-{self.home or self.name}"
        done = home / "installed.txt"
        wanted = " ".join((*self.install, "redis[hiredis]"))
        if not done.exists() or done.read_text() != wanted:
            make(home, wanted.split())
            done.write_text(wanted)
        return home / "bin" / "python"

    def programs(self, number: int, url: str) -> list[Command]:
        """Return the command lines that start *number* workers, each program with its path."""
        folder = self.python().parent
        return [[str(folder / first), *rest] for first, *rest in self.commands(number, url)]


def make(home: Path, wanted: list[str]) -> None:
    """Make a virtual environment; raise Unavailable, with the last words of pip, if that fails."""
    print(f"installing {' '.join(wanted)} in {home.name}", file=sys.stderr)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    try:
        venv.create(home, with_pip=True, clear=True)
        subprocess.run(
            [*pip, "install", "--quiet", *wanted],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL,
        )
    except subprocess.CalledProcessError as error:
        words = (error.stderr or "").strip().splitlines()
        raise Unavailable(f"cannot be installed: {words[-1] if words else error}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise Unavailable(f"cannot be installed: {error}") from None


def _finished(broker: Redis, results: Redis) -> int:
    return int(broker.zcard("rq:finished:default"))


def _huey(broker: Redis, results: Redis) -> int:
    return int(broker.hlen("huey.results.bench"))


def _keys(broker: Redis, results: Redis) -> int:
    return int(results.dbsize())


def _pysplash(number: int, url: str) -> list[Command]:
    count = str(number)
    return [
        [
            "python",
            "-m",
            "pysplash",
            "start",
            "-u",
            url,
            "-n",
            count,
            "--max-cpu",
            "100",
            "-q",
            "default",
        ]
    ]


def _rq_pool(number: int, url: str) -> list[Command]:
    return [["rq", "worker-pool", "-q", "-u", url, "-n", str(number), "default"]]


def _rq_workers(number: int, url: str) -> list[Command]:
    return [["rq", "worker", "-q", "-u", url, "default"]] * number


def _simple(number: int, url: str) -> list[Command]:
    return [["rq", "worker", "-q", "-u", url, "-w", "rq.SimpleWorker", "default"]] * number


def _celery(number: int, url: str) -> list[Command]:
    less = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app = ["celery", "-A", "bench_app", "worker", "-l", "WARNING"]
    return [[*app, "-P", "prefork", "-c", str(number), *less]]


def _dramatiq(number: int, url: str) -> list[Command]:
    return [["dramatiq", "bench_app", "-p", str(number), "-t", "1"]]


def _huey_consumer(number: int, url: str) -> list[Command]:
    return [["huey_consumer", "bench_app.huey", "-k", "process", "-w", str(number), "-n", "-q"]]


def _taskiq(number: int, url: str) -> list[Command]:
    start = ["taskiq", "worker", "bench_app:broker", "--log-level", "WARNING"]
    return [[*start, "--workers", str(number)]]


def _bare(number: int, url: str) -> list[Command]:
    return [["python", str(ROOT / "benchmarks" / "limit.py"), "--serve", url]] * number


RQ_PACKAGES = ("rq", "redis", "hiredis")
PYSPLASH = Peer(
    name="pysplash",
    title="PySplash",
    app=apps.RQ,
    commands=_pysplash,
    results=_finished,
    packages=("pysplash", *RQ_PACKAGES),
)
RQ_POOL = Peer(
    name="rq",
    title="rq worker-pool",
    app=apps.RQ,
    commands=_rq_pool,
    results=_finished,
    packages=RQ_PACKAGES,
    install=(f"rq=={metadata.version('rq')}",),  # the one that PySplash itself runs on
    forks=True,
)
RQ_WORKERS = replace(RQ_POOL, title="rq worker", commands=_rq_workers)
SIMPLE = replace(
    RQ_POOL, name="simple", title="RQ SimpleWorker", commands=_simple, home="rq", forks=False
)
CELERY = Peer(
    name="celery",
    title="Celery, prefork",
    app=apps.CELERY,
    commands=_celery,
    results=_keys,
    packages=("celery", "kombu", "redis", "hiredis"),
    install=("celery[redis]",),
    variables={"C_FORCE_ROOT": "1"},  # as root it would not accept pickles
)
DRAMATIQ = Peer(
    name="dramatiq",
    title="Dramatiq",
    app=apps.DRAMATIQ,
    commands=_dramatiq,
    results=_keys,
    packages=("dramatiq", "redis", "hiredis"),
    install=("dramatiq[redis]",),
    variables={"dramatiq_queue_prefetch": "64"},  # by default a single thread is kept waiting
)
HUEY = Peer(
    name="huey",
    title="Huey, processes",
    app=apps.HUEY,
    commands=_huey_consumer,
    results=_huey,
    packages=("huey", "redis", "hiredis"),
    install=("huey",),
)
TASKIQ = Peer(
    name="taskiq",
    title="Taskiq",
    app=apps.TASKIQ,
    commands=_taskiq,
    results=_keys,
    packages=("taskiq", "taskiq-redis", "redis", "hiredis"),
    install=("taskiq", "taskiq-redis"),
)
#: not a peer but a limit: the loop of benchmarks/limit.py
BARE = Peer(
    name="bare",
    title="bare loop",
    app=apps.RQ,
    commands=_bare,
    results=_finished,
    packages=RQ_PACKAGES,
    kinds=("noop", "large"),
)
#: by name, in the order of the table
THROUGHPUT = {peer.name: peer for peer in (RQ_POOL, SIMPLE, CELERY, DRAMATIQ, HUEY, TASKIQ)}
LATENCY = {peer.name: peer for peer in (RQ_WORKERS, SIMPLE, CELERY)}
