"""What becomes of twenty thousand items of a pipeline while its workers are killed at random.

    python benchmarks/pipeline.py --items 20000

Three stages, four workers. One worker after another gets KILL, or what ``--signals`` says, until
the pipeline is empty; chance, with a seed, chooses worker and pause. An item under which three
workers died is set aside, as a job is; once it is quiet it is given back, as ``rq requeue`` does.
Then the pool is stopped, and what has left the last stage is counted.

The exit status is 1 if anything is wrong:

lost: a part of an item that never left. twice: one that left more than once though all that
forwarded it were dicts and lists; what a generator forwards may leave again, and is counted as
repeated. foreign: what left and is no part of any item. set aside: an item that failed for
anything but its workers' deaths. left over: keys of items that are gone, and runs that nobody
will end. orphans: processes that outlived the pool.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import census
from benchmarks.pipeline_stages import FIRST, FLOW, OUT, drips, parts
from benchmarks.servers import add_server, version
from benchmarks.supervisors import Supervisor
from benchmarks.weather import LOOK, SIGNALS, Strikes, Tide, wait
from pysplash import Stage
from pysplash.embedded import EmbeddedServer

WORKERS = 4
#: longest pause in seconds between two signals
PAUSE = 0.15
#: seconds until the pool must have its first worker, in which it must finish in peace, and after
#: its end until what came of it must be gone
READY, PEACE, GONE = 60.0, 120.0, 5.0
#: what the settlement of a dead worker's job says
DIED = "worker's death no."
#: items told of one fault
TOLD = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """What is to be done to a pipeline."""

    items: int = 20_000
    seed: int = 1
    #: the signals that workers get, by name
    signals: tuple[str, ...] = ("KILL",)
    #: seconds after which no more signals come
    seconds: float = 300.0
    #: the server's program; None: the embedded server's
    server: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a pipeline's items."""

    #: parts that left the last stage, and how many of them had left before
    left: int
    repeated: int
    #: what is wrong, and with whom; no entry where nothing is
    faults: Mapping[str, Sequence[str]]


def judge(items: int, left: Counter[bytes]) -> Account:
    """Account for the parts of so many items, given what has left the last stage."""
    expected = {part: number for number in range(items) for part in parts(number)}
    twice = [part for part, number in expected.items() if left[part] > 1 and not drips(number)]
    found = {
        "lost": [part for part in expected if not left[part]],
        "twice": twice,
        "foreign": [part for part in left if part not in expected],
    }
    faults = {name: tuple(part.decode() for part in who) for name, who in found.items() if who}
    total = sum(left.values())
    return Account(total, total - len(left), faults)


@dataclass
class Pipeline:
    """A pipeline that is over, and what is known of it."""

    redis: Redis
    settings: Settings
    struck: Counter[str] = field(default_factory=Counter)
    #: items given back after they had been set aside
    given_back: int = 0
    seconds: float = 0.0
    words: str = ""
    besides: dict[str, Sequence[str]] = field(default_factory=dict)

    def endure(self, supervisor: Supervisor) -> None:
        """Push all items, and signal workers until they have left."""
        Stage(FIRST, connection=self.redis).push(*_numbers(self.settings.items))
        wait(lambda: not supervisor.alive or bool(supervisor.workers(self.redis)), READY)
        began = time.monotonic()
        chance = random.Random(self.settings.seed)
        signals = self.settings.signals
        strikes = Strikes(self.redis, chance, signals, workers=WORKERS, longest=PAUSE)
        tide = Tide(self.redis, FLOW, self.settings.seconds)
        while supervisor.alive and tide.under_way() and not tide.out():
            strikes.strike(supervisor)
            strikes.pause()
        self._finish(supervisor)
        self._give_back()
        self._finish(supervisor)
        self.seconds = time.monotonic() - began
        self.struck = strikes.struck

    def stop(self, supervisor: Supervisor) -> None:
        """Stop the pool; see that nothing of it stays."""
        status = supervisor.stop()
        self.words = supervisor.words
        if status != 0:
            self.besides["pool"] = (f"exit status {status}",)
        wait(lambda: not supervisor.left(), GONE)
        self.besides["orphans"] = [str(process) for process in supervisor.left()]

    def account(self) -> Account:
        """Count what has left; nothing may run any more."""
        out = Queue(OUT, connection=self.redis)
        account = judge(self.settings.items, Counter(job.args[0] for job in out.jobs))
        found = {**self.besides, "left over": self._leftovers(set(out.job_ids))}
        more = {name: who for name, who in found.items() if who}
        return Account(account.left, account.repeated, {**account.faults, **more})

    def _finish(self, supervisor: Supervisor) -> None:
        """Leave the pool in peace until nothing moves any more."""
        tide = Tide(self.redis, FLOW, PEACE)
        while supervisor.alive and tide.under_way() and not tide.out():
            time.sleep(LOOK)

    def _give_back(self) -> None:
        """Put items that were set aside back into their stages, if deaths were the reason."""
        others = []
        for name in FLOW:
            registry = FailedJobRegistry(name, connection=self.redis)
            for job_id in registry.get_job_ids():
                result = Job.fetch(job_id, self.redis).latest_result()
                if DIED not in str(result and result.exc_string):
                    others.append(job_id)
                registry.requeue(job_id)
                self.given_back += 1
        self.besides["set aside"] = others

    def _leftovers(self, out: set[str]) -> list[str]:
        """Return the keys that are there for items which are not among those that left."""
        keys = census.open_executions(self.redis)
        for prefix in ("rq:job:", "rq:results:", "pysplash:deaths:", "pysplash:memory-kills:"):
            for raw in self.redis.scan_iter(f"{prefix}*", count=census.BATCH):
                if raw.decode().removeprefix(prefix) not in out:
                    keys.append(raw.decode())
        return keys


def _numbers(items: int) -> Iterator[bytes]:
    return (b"%d" % number for number in range(items))


@contextlib.contextmanager
def endured(settings: Settings) -> Iterator[Pipeline]:
    """Yield a pipeline that is over, its pool gone, with all that it left in Redis."""
    with (
        EmbeddedServer(program=settings.server) as server,
        tempfile.TemporaryDirectory() as name,
        Redis.from_url(server.url) as redis,
    ):
        pipeline = Pipeline(redis, settings)
        stages = ("--preload", "benchmarks.pipeline_stages")
        with Supervisor("pysplash", server.url, WORKERS, FLOW, Path(name), *stages) as supervisor:
            pipeline.endure(supervisor)
            pipeline.stop(supervisor)
        yield pipeline


def summary(pipeline: Pipeline, account: Account) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"{'items':<12}{pipeline.settings.items:>8}"
    for name, number in pipeline.struck.items():
        yield f"{name:<12}{number:>8}"
    yield f"{'given back':<12}{pipeline.given_back:>8}"
    yield f"{'left':<12}{account.left:>8}"
    yield f"{'repeated':<12}{account.repeated:>8}"
    for fault in ("lost", "twice", "foreign", "set aside", "left over", "orphans", "pool"):
        who = account.faults.get(fault, ())
        yield f"{fault:<12}{len(who):>8}  {', '.join(who[:TOLD])}".rstrip()


def arguments() -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000, help="items to push")
    parser.add_argument("--seed", type=int, default=1, help="what chance begins with")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="time after which no more signals come"
    )
    parser.add_argument("--signals", default="KILL", help=f"some of {','.join(SIGNALS)}")
    add_server(parser)
    given = parser.parse_args()
    signals = tuple(name for name in given.signals.split(",") if name)
    if unknown := set(signals).difference(SIGNALS):
        parser.error(f"--signals: {', '.join(unknown)}: choose from {', '.join(SIGNALS)}")
    return Settings(given.items, given.seed, signals, given.seconds, given.server)


def main() -> int:
    """Measure and print; return the exit status."""
    settings = arguments()
    with endured(settings) as pipeline:
        account = pipeline.account()
        server = version(pipeline.redis)
    print(f"on {server}, seed {settings.seed}, {pipeline.seconds:.0f} s")
    print("\n".join(summary(pipeline, account)))
    return int(bool(account.faults))


if __name__ == "__main__":
    sys.exit(main())
