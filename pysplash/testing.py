"""Test doubles for a pool's devices, and a simulated machine.

:class:`World` stands for machine, processes, scoreboard and queues at once; time passes only
when a test says so. The supervisor over it is the real one::

    world = World()
    world.queued = 5
    supervisor = Pool(["default"], min_procs=2).supervise(world.devices())
    supervisor.tick()
    assert len(world.alive) == 2

:class:`Plant` stands for a machine with jobs that use its CPU and memory, to try policies on;
:mod:`workload` has such jobs.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .application.registry import TaskSpec
from .control.model import Decision, Lesson, Limits, PoolView, Sample, WorkerState
from .control.simulation import workload
from .control.simulation.plant import Law, Plant
from .errors import BacklogUnavailable
from .host.signals import SignalQueue
from .jobs.abandoned import AbandonedJob
from .jobs.commands import Command, CommandListener
from .recording.writer import Recorder
from .supervisor.backlog import Waiting
from .supervisor.devices import Devices
from .supervisor.forkserver.client import Event, Exited, Spawned
from .supervisor.heartbeats import Heartbeats, Pulse
from .supervisor.lessons import LessonStore
from .supervisor.predecessors import Predecessors
from .supervisor.presence import Presence
from .supervisor.settled import Settled
from .supervisor.settlement import Loss
from .worker.row import Row
from .worker.scoreboard import Scoreboard

__all__ = ["Law", "Plant", "World", "workload"]

MIB = 2**20


@dataclass(slots=True)
class World:
    """Everything a pool reads or acts on, as plain attributes."""

    now: float = 1000.0
    #: jobs waiting; None: Redis does not answer
    queued: int | None = 0
    suspended: bool = False
    capacity: float = 2.0
    #: per cent of the cores and of the memory in use
    cpu: float = 0.0
    mem: float = 10.0
    mem_total: int = 16 * 2**30
    #: proportional set size of every worker
    pss: int = 10 * MIB
    #: cores every busy worker uses
    cores: float = 0.0
    #: whether a worker that is spawned becomes ready at once
    ready_at_once: bool = True
    #: the process ids of its fork servers
    server_pids: tuple[int, ...] = (99,)
    #: name to slot, of the workers that exist
    alive: dict[str, int] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    #: whether the workers leave heartbeats and commands to the pool
    listens: bool = True
    #: what somebody asks of workers; the pool takes it from here
    commands: list[Command] = field(default_factory=list)
    #: the workers whose commands are heard
    followed: set[str] = field(default_factory=set)
    #: what the pool said for its workers, call by call
    pulses: list[list[Pulse]] = field(default_factory=list)
    #: what was asked, in order: ("spawn" | "stop" | "interrupt" | "kill", name)
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: the workers that were told to clean RQ's registries
    maintaining: set[str] = field(default_factory=set)
    #: what was learned of jobs, and is kept
    lessons: dict[str, Lesson] = field(default_factory=dict)
    #: the jobs that were to be stopped: (slot, job id)
    to_stop: list[tuple[int, str]] = field(default_factory=list)
    #: the workers that were told to take no further job: their slots
    to_leave: list[int] = field(default_factory=list)
    #: the slots whose jobs have ended as they were stopped
    heeding: set[int] = field(default_factory=set)
    losses: list[Loss] = field(default_factory=list)
    #: the hash in Redis of every job, where a test is about its failure callback
    job_fields: dict[bytes, bytes] = field(default_factory=dict)
    #: whether the pool has exception handlers
    handled: bool = False
    #: the jobs for whose failure a process was started, by its name
    called_back: dict[str, AbandonedJob] = field(default_factory=dict)
    record: list[tuple[PoolView, Decision]] = field(default_factory=list)
    #: the jobs that run inside another: (worker, job id)
    inside: set[tuple[str, str]] = field(default_factory=set)
    #: workers that an earlier pool of the name has lost; those whose jobs are settled
    lost_before: list[str] = field(default_factory=list)
    settled_before: list[str] = field(default_factory=list)
    #: the tasks that are offered, by name
    tasks: tuple[str, ...] = ()
    #: whether the pool says that it takes jobs; None: it says nothing
    open: bool | None = None
    signals: list[int] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)
    _settled: list[Settled] = field(default_factory=list)
    _pid: int = 100

    def devices(self) -> Devices:
        """Return this world as a pool's devices."""
        return Devices(
            clock=lambda: self.now,
            signals=_Signals(self),
            processes=_Processes(self),
            board=_Board(self),
            sampler=_Sampler(self),
            backlog=_Backlog(self),
            settlement=_Settlement(self),
            heartbeats=_Heartbeats(self),
            commands=_Commands(self),
            lessons=_Lessons(self),
            recorder=_Recorder(self),
            presence=_Presence(self),
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass; workers that show life keep showing it."""
        self.now += seconds
        for slot, row in self.rows.items():
            if row.job_started is None and row.state is not WorkerState.STARTING:
                self.rows[slot] = replace(row, beat=self.now)

    def set_state(self, name: str, state: WorkerState, **fields: object) -> None:
        """Put the worker *name* into a state, with any other fields of its row."""
        slot = self.alive[name]
        row = replace(self.rows[slot], state=state, since=self.now, beat=self.now)
        self.rows[slot] = replace(row, **fields)  # type: ignore[arg-type]

    def busy(self, name: str, job_id: str = "job", timeout: float | None = 180.0) -> None:
        """Let a worker run a job."""
        self.set_state(
            name,
            WorkerState.BUSY,
            job_started=self.now,
            job_timeout=timeout,
            job_id=job_id,
            execution_id="execution",
        )

    def idle(self, name: str) -> None:
        """Let a worker be done with its job."""
        jobs = self.rows[self.alive[name]].jobs + 1
        self.set_state(
            name,
            WorkerState.IDLE,
            job_started=None,
            job_timeout=None,
            job_id="",
            execution_id="",
            jobs=jobs,
        )

    def exit(self, name: str, status: int = 0, text: str = "") -> None:
        """Let a worker's process end with a wait status."""
        del self.alive[name]
        self._events.append(Exited(name, status, text))

    def happen(self, event: Event) -> None:
        """Let anything else happen to processes."""
        self._events.append(event)

    def asked_of(self, what: str) -> list[str]:
        """Return the names for which *what* was asked, in order."""
        return [name for kind, name in self.asked if kind == what]


@dataclass(slots=True)
class _Part:
    world: World

    def close(self) -> None:
        """Nothing is open."""


class _Signals(_Part, SignalQueue):
    def install(self) -> None:
        """A test posts what it wants."""

    def post(self, number: int) -> None:
        self.world.signals.append(number)

    def drain(self) -> list[int]:
        numbers, self.world.signals = self.world.signals, []
        return numbers

    def wait(self, seconds: float, also: Iterable[int] = ()) -> None:
        self.world.pass_time(seconds)


class _Processes(_Part):
    @property
    def server_pids(self) -> tuple[int, ...]:
        return self.world.server_pids

    def renew(self) -> None:
        self.world.asked.append(("renew", ""))

    def able(self) -> bool:
        return True

    def filenos(self) -> tuple[int, ...]:
        return ()

    def spawn(
        self,
        name: str,
        slot: int,
        *,
        maintain: bool = False,
        role: str = "worker",
        job: AbandonedJob | None = None,
    ) -> None:
        world = self.world
        world.asked.append(("spawn" if role == "worker" else role, name))
        if job is not None:
            world.called_back[name] = job
        world._pid += 1
        world._events.append(Spawned(name, world._pid))
        if role != "worker":
            return
        world.alive[name] = slot
        if maintain:
            world.maintaining.add(name)
        state = WorkerState.IDLE if world.ready_at_once else WorkerState.STARTING
        world.rows[slot] = Row(
            name, world._pid, state, world.now, world.now, None, None, 0, 0, "", "", world.listens
        )

    def stop(self, name: str) -> None:
        self.world.asked.append(("stop", name))

    def send_memory(self, pool_mem: float, reserve: float) -> None:
        """Nobody is held."""

    def interrupt(self, name: str) -> None:
        self.world.asked.append(("interrupt", name))

    def kill(self, name: str) -> None:
        self.world.asked.append(("kill", name))
        if name in self.world.called_back:
            self.world.happen(Exited(name, int(signal.SIGKILL)))
        if name in self.world.alive:
            self.world.exit(name, int(signal.SIGKILL))

    def events(self) -> Iterator[Event]:
        events, self.world._events = self.world._events, []
        yield from events


class _Board(_Part, Scoreboard):
    def read(self, index: int) -> Row | None:
        return self.world.rows.get(index)

    def clear(self, index: int) -> None:
        self.world.rows.pop(index, None)

    def outcomes(self, index: int) -> list[tuple[str, ...]]:
        return []

    def ask(self, index: int, name: str) -> None:
        self.world.to_stop.append((index, name))

    def heeded(self, index: int) -> bool:
        return index in self.world.heeding

    def ask_to_leave(self, index: int) -> None:
        self.world.to_leave.append(index)


class _Sampler(_Part):
    def sample(self, now: float, busy: Collection[int], alive: Collection[int]) -> Sample:
        world = self.world
        return Sample(
            at=now,
            interval=1.0,
            capacity=world.capacity,
            cpu=world.cpu,
            pool_cores=world.cores * len(busy),
            mem=world.mem,
            mem_used=round(world.mem_total * world.mem / 100),
            mem_total=world.mem_total,
            pool_mem=world.pss * len(alive),
        )

    def cores(self, pid: int) -> float | None:
        return self.world.cores

    def pss(self, pid: int) -> int | None:
        return self.world.pss


class _Backlog(_Part):
    def read(self) -> Waiting:
        if self.world.queued is None:
            raise BacklogUnavailable
        return Waiting({"default": self.world.queued}, None, self.world.suspended)


class _Settlement(_Part):
    def settle(self, loss: Loss) -> str:
        self.world.losses.append(loss)
        if not loss.job_id:
            return ""
        fields, why = self.world.job_fields, loss.cause
        abandoned = AbandonedJob(
            loss.job_id,
            fields,
            why,
            retried=False,
            worker=loss.worker,
            handled=self.world.handled,
        )
        self.world._settled.append(Settled(loss.worker, loss.job_id, "failed", abandoned))
        return "failed"

    def take(self) -> list[Settled]:
        settled, self.world._settled = self.world._settled, []
        return settled


class _Lessons(_Part, LessonStore):
    def load(self) -> dict[str, Lesson]:
        return dict(self.world.lessons)

    def save(self, lessons: Mapping[str, Lesson]) -> None:
        self.world.lessons = dict(lessons)


class _Heartbeats(_Part, Heartbeats):
    def send(self, pulses: Sequence[Pulse]) -> None:
        self.world.pulses.append(list(pulses))

    def runs_inside(self, worker: str, job_id: str, execution_id: str) -> bool:
        return (worker, job_id) in self.world.inside


class _Commands(_Part, CommandListener):
    def follow(self, workers: Collection[str]) -> None:
        self.world.followed = set(workers)

    def filenos(self) -> tuple[int, ...]:
        return ()

    def read(self) -> Iterator[Command]:
        commands, self.world.commands = self.world.commands, []
        yield from commands


class _Recorder(_Part, Recorder):
    def write(self, view: PoolView, decision: Decision, limits: Limits) -> None:
        self.world.record.append((view, decision))


class _Predecessors(_Part, Predecessors):
    def lost_workers(self, now: float) -> list[str]:
        lost, self.world.lost_before = self.world.lost_before, []
        return lost

    def note_settled(self, worker: str) -> None:
        self.world.settled_before.append(worker)


class _Presence(_Part, Presence):
    @property
    def predecessors(self) -> Predecessors:  # type: ignore[override]
        return _Predecessors(self.world)

    def set_tasks(self, specs: Sequence[TaskSpec]) -> None:
        self.world.tasks = tuple(spec.name for spec in specs)

    def publish(self, view: PoolView, decision: Decision) -> None:
        self.world.open = view.drain is None

    def close(self) -> None:
        self.world.open = None
