"""The process of RQ's scheduler: one a pool, started again when it dies."""

from __future__ import annotations

from pysplash.control.model import NEVER

from .devices import Devices

#: seconds between two starts of the scheduler
PAUSE = 5.0


class SchedulerProcess:
    """Keeps the scheduler's process running, if it is *wanted*."""

    def __init__(self, name: str, devices: Devices, *, wanted: bool) -> None:
        self._name = name
        self._devices = devices
        self._wanted = wanted
        self._started_at = NEVER
        #: whether its process runs
        self.alive = False

    def ensure(self) -> None:
        """Start the process unless it runs, or was started a moment ago."""
        now = self._devices.clock()
        due = now - self._started_at >= PAUSE and self._devices.processes.able()
        if self._wanted and due and not self.alive:
            self._started_at = now
            self.alive = True
            self._devices.processes.spawn(self._name, 0, role="scheduler")

    def stop(self) -> None:
        """Ask the process to end, and start no other."""
        self._wanted = False
        if self.alive:
            self._devices.processes.stop(self._name)

    def note_exit(self, name: str) -> None:
        """Take note that the process *name* has ended, which may be the scheduler's."""
        self.alive = self.alive and name != self._name
