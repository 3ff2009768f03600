"""A storm: bursts of jobs for a supervisor, and signals to its workers at random instants."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue, Retry

from benchmarks import census
from benchmarks.ledger import Account, Task, judge, plan, read_runs
from benchmarks.network import Relay, Troubles
from benchmarks.servers import version
from benchmarks.storm_jobs import RUNS
from benchmarks.supervisors import Supervisor
from benchmarks.weather import LOOK, SIGNALS, Strikes, Tide, wait
from pysplash.embedded import EmbeddedServer

QUEUES = ("high", "default", "low")
WORKERS = 4
#: longest pause in seconds between two signals
PAUSE = 0.04
#: most jobs in one burst; most that may still wait when the next one comes
BURST, WATER = 500, 400
#: seconds until a supervisor must have its first worker, in which it must finish in peace, and
#: after its end until what came of it must be gone
READY, PEACE, GONE = 60.0, 300.0, 5.0
#: seconds for which nothing must move before all is over: a job that is deferred may be let go
#: ahead after the one it waits for is stored; where a connection is silent, after it is given up
CALM, UNHEARD = 1.0, 15.0
#: seconds for which results are kept: longer than any storm
KEPT = 86_400
JOB = "benchmarks.storm_jobs.run"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a storm is to be."""

    against: str = "pysplash"
    jobs: int = 10_000
    seed: int = 1
    #: seconds after which neither jobs nor signals come any more
    seconds: float = 300.0
    #: the signals that workers get, by name; none: no worker is harmed
    signals: tuple[str, ...] = SIGNALS
    #: what befalls connections to the server, by name; none: there is nothing between
    troubles: tuple[str, ...] = ()
    #: the server's program; None: the embedded server's
    server: str | None = None


class Storm:
    """One storm, and what it left."""

    def __init__(
        self, settings: Settings, redis: Redis, folder: Path, relay: Relay | None = None
    ) -> None:
        self.redis = redis
        self.folder = folder
        #: what kind of server it was on, with its version
        self.server = version(redis)
        #: what the supervisor has said
        self.words = ""
        #: faults of the supervisor itself
        self.besides: dict[str, Sequence[str]] = {}
        self._settings = settings
        self._tasks = plan(settings.jobs, settings.seed, QUEUES)
        self._chance = random.Random(settings.seed)
        self._strikes = Strikes(
            redis, self._chance, settings.signals, workers=WORKERS, longest=PAUSE
        )
        self._troubles = Troubles(relay, self._chance, settings.troubles)
        self._calm = UNHEARD if "silence" in settings.troubles else CALM
        self._fed = 0
        self._water = 0

    @property
    def tasks(self) -> Sequence[Task]:
        """The jobs that were enqueued."""
        return self._tasks[: self._fed]

    @property
    def struck(self) -> Counter[str]:
        """Signals that reached a worker, and troubles that befell a connection, by name."""
        return self._strikes.struck + self._troubles.struck

    # --- while it lasts ---

    def rage(self, supervisor: Supervisor) -> None:
        """Enqueue and signal until all jobs have ended or time is up."""
        self._feed()
        wait(lambda: not supervisor.alive or bool(supervisor.workers(self.redis)), READY)
        tide = Tide(self.redis, QUEUES, self._settings.seconds)
        while supervisor.alive and not tide.out():
            under_way = tide.under_way()
            if not under_way and self._fed == len(self._tasks):
                return
            if tide.places["queued"] <= self._water:
                self._feed()
            self._strikes.strike(supervisor)
            self._troubles.strike()
            self._strikes.pause()

    def _feed(self) -> None:
        """Enqueue a burst; jobs that wait for others come last."""
        burst = self._tasks[self._fed : self._fed + self._chance.randint(1, BURST)]
        for name in QUEUES:
            queue = Queue(name, connection=self.redis)
            own = [task for task in burst if task.queue == name]
            calls = [self._call(task) for task in own if not task.parent]
            queue.enqueue_many([Queue.prepare_data(**call) for call in calls])
        for task in burst:
            if task.parent:
                # by itself: RQ's enqueue_many may put a job twice whose parent finishes meanwhile
                Queue(task.queue, connection=self.redis).enqueue_call(**self._call(task))
        self._fed += len(burst)
        self._water = self._chance.choice((0, self._chance.randint(0, WATER)))

    def _call(self, task: Task) -> dict[str, Any]:
        kind = task.kind
        return {
            "func": JOB,
            "args": (str(self.folder), task.job_id, task.seconds, kind.failures),
            "job_id": task.job_id,
            "result_ttl": KEPT,
            "at_front": kind.at_front,
            "retry": Retry(max=kind.retries) if kind.retries else None,
            "depends_on": task.parent or None,
        }

    # --- afterwards ---

    def abate(self, supervisor: Supervisor) -> None:
        """Leave the supervisor in peace until nothing moves any more, then stop it."""
        tide = Tide(self.redis, QUEUES, PEACE)
        while supervisor.alive and not tide.out():
            if tide.calm(self._calm) and sum(tide.places.values()) >= len(self.tasks):
                break
            time.sleep(LOOK)
        status = supervisor.stop()
        self.words = supervisor.words
        if status != 0:
            self.besides["supervisor"] = (f"exit status {status}",)
        wait(lambda: not supervisor.left(), GONE)
        self.besides["orphans"] = [str(process) for process in supervisor.left()]

    def account(self) -> Account:
        """Look for every job; nothing may run any more."""
        log = self.folder / RUNS
        account = judge(
            self.tasks,
            census.find(self.redis, QUEUES, [task.job_id for task in self.tasks]),
            read_runs(log.read_text().splitlines() if log.exists() else ()),
            self.struck["KILL"],
        )
        left = {
            "ghosts": [worker.name for worker in census.workers(self.redis)],
            "open executions": census.open_executions(self.redis),
        }
        return account.with_faults(self.besides | left)


@contextlib.contextmanager
def weathered(settings: Settings) -> Iterator[Storm]:
    """Yield a storm that is over, its supervisor gone, with all that it left in Redis."""
    with (
        EmbeddedServer(program=settings.server) as server,
        tempfile.TemporaryDirectory() as name,
        Redis.from_url(server.url) as redis,
    ):
        folder = Path(name)
        with contextlib.ExitStack() as stack:
            url, relay = server.url, None
            if settings.troubles:
                relay = stack.enter_context(Relay(url.removeprefix("unix://")))
                url = relay.url
            storm = Storm(settings, redis, folder, relay)
            supervisor = Supervisor(settings.against, url, WORKERS, QUEUES, folder)
            stack.enter_context(supervisor)
            storm.rage(supervisor)
            storm.abate(supervisor)
        yield storm
