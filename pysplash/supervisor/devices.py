"""Devices: everything outside the pool's own process that its loop reads or acts on.

What can have a second form, or is replaced whole in tests, is a protocol here; of the rest the
class itself stands here, and a test's double is a subclass (``pysplash.testing``). The real
devices are opened in ``supervisor.pool``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from pysplash.control.model import Sample
from pysplash.host.signals import SignalQueue
from pysplash.jobs.abandoned import AbandonedJob
from pysplash.jobs.commands import CommandListener
from pysplash.recording.writer import Recorder
from pysplash.worker.scoreboard import Scoreboard

from .backlog import Waiting
from .forkserver.client import Event
from .heartbeats import Heartbeats
from .lessons import LessonStore
from .presence import Presence
from .queue_watch import QueueWatch
from .settled import Settled
from .settlement import Loss


class SamplerLike(Protocol):
    """Measures the machine and the pool's processes."""

    def sample(self, now: float, busy: Collection[int], alive: Collection[int]) -> Sample:
        """Measure machine and pool over the last interval."""

    def cores(self, pid: int) -> float | None:
        """Return the cores *pid* used over the last interval."""

    def pss(self, pid: int) -> int | None:
        """Return the last known proportional set size of *pid*."""


class BacklogLike(Protocol):
    """Reads the watched queues."""

    def read(self) -> Waiting:
        """Return what waits; raise BacklogUnavailable if Redis cannot be read."""


class ProcessesLike(Protocol):
    """Starts, stops and kills workers, and reports their exits."""

    @property
    def server_pids(self) -> tuple[int, ...]:
        """The fork servers' process ids."""

    def renew(self) -> None:
        """Start a fork server for all further workers."""

    def able(self) -> bool:
        """Return whether a fork server is ready to spawn."""

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors that are readable when there are events."""

    def spawn(
        self,
        name: str,
        slot: int,
        *,
        maintain: bool = False,
        role: str = "worker",
        job: AbandonedJob | None = None,
    ) -> None:
        """Start a process; in the role "callbacks" it calls what *job* has for its failure."""

    def stop(self, name: str) -> None:
        """Ask a process to finish its job and leave."""

    def send_memory(self, pool_mem: float, reserve: float) -> None:
        """Send the throttler the pool's memory, and the reserve to keep free."""

    def interrupt(self, name: str) -> None:
        """Have a process read what it was asked on the scoreboard."""

    def kill(self, name: str) -> None:
        """Kill a process and its session."""

    def events(self) -> Iterator[Event]:
        """Yield the events since the last call."""

    def close(self) -> None:
        """Stop the fork servers."""


class SettlementLike(Protocol):
    """Settles the jobs of dead workers."""

    def settle(self, loss: Loss) -> str:
        """Requeue, retry, store or fail the job of one dead worker; return which."""

    def take(self) -> list[Settled]:
        """Return what was done with each job since the last call."""


@dataclass(slots=True)
class Devices:
    """Every device of a pool, and its clock."""

    clock: Callable[[], float]
    signals: SignalQueue
    processes: ProcessesLike
    board: Scoreboard
    sampler: SamplerLike
    backlog: BacklogLike
    settlement: SettlementLike
    heartbeats: Heartbeats
    commands: CommandListener
    lessons: LessonStore
    recorder: Recorder | None = None
    presence: Presence | None = None
    queue_watch: QueueWatch | None = None

    def close(self) -> None:
        """Close what was opened."""
        if self.queue_watch is not None:
            self.queue_watch.close()
        self.processes.close()
        self.signals.close()
        self.board.close()
        self.commands.close()
        if self.recorder is not None:
            self.recorder.close()
        if self.presence is not None:
            self.presence.close()
