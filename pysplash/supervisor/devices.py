"""Devices: everything of the world a pool touches, behind what it needs of each.

The loop knows only these protocols. The real devices are opened in ``supervisor.pool``; tests hand
over their own (``pysplash.testing``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pysplash.application.registry import TaskSpec
from pysplash.control.model import Decision, Lesson, Limits, PoolView, Sample
from pysplash.jobs.commands import Command
from pysplash.worker.row import Row

from .backlog import Waiting
from .forkserver.client import Event
from .settlement import Loss


class SamplerLike(Protocol):
    """Measures the machine and the pool's processes."""

    def sample(self, now: float, busy: Collection[int], alive: Collection[int]) -> Sample:
        """Return what the last interval looked like."""

    def cores(self, pid: int) -> float | None:
        """Return the cores *pid* used over the last interval."""

    def pss(self, pid: int) -> int | None:
        """Return the last known proportional set size of *pid*."""


class BacklogLike(Protocol):
    """Reads the watched queues."""

    def read(self) -> Waiting:
        """Return what waits; raise BacklogUnavailable if that cannot be known."""


class BoardLike(Protocol):
    """The pool's end of the scoreboard."""

    def read(self, index: int) -> Row | None:
        """Return one row."""

    def clear(self, index: int) -> None:
        """Empty one row."""

    def outcomes(self, index: int) -> Sequence[Sequence[str]]:
        """Return the outcomes a worker has written down and not seen stored."""

    def ask(self, index: int, job_id: str) -> None:
        """Name the job a worker is to stop."""

    def close(self) -> None:
        """Free it."""


class ProcessesLike(Protocol):
    """Starts, stops and kills workers, and hears of their ends."""

    @property
    def server_pids(self) -> tuple[int, ...]:
        """The fork servers' process ids."""

    def renew(self) -> None:
        """Start a fork server for all further workers."""

    def able(self) -> bool:
        """Return whether a fork server is ready to spawn."""

    def filenos(self) -> tuple[int, ...]:
        """Return what is readable when there are events."""

    def spawn(self, name: str, slot: int, *, maintain: bool = False, role: str = "worker") -> None:
        """Ask for a process."""

    def stop(self, name: str) -> None:
        """Ask a process to finish."""

    def tell_memory(self, pool_mem: float, reserve: float) -> None:
        """Tell the fast loop what it cannot measure."""

    def interrupt(self, name: str) -> None:
        """Have a process look at what it was asked."""

    def kill(self, name: str) -> None:
        """End a process."""

    def events(self) -> Iterator[Event]:
        """Yield what has happened."""

    def close(self) -> None:
        """Let go."""


class SignalsLike(Protocol):
    """Queues what the pool is told from outside."""

    def install(self) -> None:
        """Take the handlers."""

    def post(self, number: int) -> None:
        """Enqueue one."""

    def drain(self) -> list[int]:
        """Return what has come."""

    def wait(self, seconds: float, also: Iterable[int] = ()) -> None:
        """Sleep until something comes."""

    def close(self) -> None:
        """Give the handlers back."""


class SettlementLike(Protocol):
    """Settles the jobs of dead workers."""

    def settle(self, loss: Loss) -> str:
        """Bring one job into exactly one place."""


class HeartbeatsLike(Protocol):
    """Speaks for the workers in Redis."""

    def send(self, pulses: Sequence[Pulse]) -> None:
        """Say that they live, and what they run."""


class CommandsLike(Protocol):
    """Hears what is asked of workers."""

    def follow(self, workers: Collection[str]) -> None:
        """Hear the commands for just these."""

    def filenos(self) -> tuple[int, ...]:
        """Return what is readable when there is something to hear."""

    def read(self) -> Iterator[Command]:
        """Yield what has come."""

    def close(self) -> None:
        """Hear no more."""


class LessonsLike(Protocol):
    """Keeps what was learned of jobs."""

    def load(self) -> dict[str, Lesson]:
        """Return what was learned before; raise LessonsUnavailable if that cannot be known."""

    def save(self, lessons: Mapping[str, Lesson]) -> None:
        """Save what is new; raise LessonsUnavailable if it cannot be."""


class RecorderLike(Protocol):
    """Keeps a record of every tick."""

    def write(self, view: PoolView, decision: Decision, limits: Limits) -> None:
        """Append one tick."""

    def close(self) -> None:
        """Close it."""


class PresenceLike(Protocol):
    """Tells the world that the pool is there, and what it offers."""

    def know(self, specs: Sequence[TaskSpec]) -> None:
        """Offer these tasks from now on."""

    def tell(self, view: PoolView, decision: Decision) -> None:
        """Say what one tick has found."""

    def close(self) -> None:
        """Say that the pool is gone."""


@dataclass(slots=True)
class Devices:
    """One of each."""

    clock: Callable[[], float]
    signals: SignalsLike
    processes: ProcessesLike
    board: BoardLike
    sampler: SamplerLike
    backlog: BacklogLike
    settlement: SettlementLike
    heartbeats: HeartbeatsLike
    commands: CommandsLike
    lessons: LessonsLike
    recorder: RecorderLike | None = None
    presence: PresenceLike | None = None

    def close(self) -> None:
        """Close what was opened."""
        self.processes.close()
        self.signals.close()
        self.board.close()
        self.commands.close()
        if self.recorder is not None:
            self.recorder.close()
        if self.presence is not None:
            self.presence.close()


class Pulse(NamedTuple):
    """A worker that lives, and what it runs; no execution: nothing."""

    worker: str
    job_id: str = ""
    execution_id: str = ""
