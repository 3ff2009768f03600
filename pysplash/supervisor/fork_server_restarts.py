"""Restarts of the fork server: after pauses that grow while it dies young, and not for ever."""

from __future__ import annotations

from pysplash.errors import CrashLoop, ImportFailed, SplashError, WorkerBootError
from pysplash.log import logger

from .devices import Devices
from .forkserver.client import ServerDied

log = logger("pool")

#: seconds for which a fork server has to live for its start to count as a success
PROVEN = 5.0
#: failed starts in a row that end a pool whose fork server was never ready; and any pool
FIRST_TRIES, TRIES = 5, 10
#: seconds before the second of two tries: at first, doubled each time, and at most
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class ForkServerRestarts:
    """Keeps a fork server running."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._failures = 0
        self._ever_ready = False
        #: since when the last one started is ready; None: it is not
        self._ready_at: float | None = None
        #: when to start one; None: one runs, or nobody wants one
        self._due: float | None = None

    def start(self) -> None:
        """Start a fork server now."""
        self._due = self._ready_at = None
        try:
            self._devices.processes.renew()
        except OSError as error:  # no memory, or no process more
            log.error("no fork server can be started: %s", error, extra={"action": "server-died"})
            self._due = self._devices.clock() + LONGEST_PAUSE

    def ensure(self) -> None:
        """Start a fork server if that is due."""
        if self._due is not None and self._devices.clock() >= self._due:
            self.start()

    def note_ready(self) -> None:
        """Note that a fork server has preloaded everything."""
        self._ever_ready = True
        self._ready_at = self._devices.clock()

    def note_death(self, event: ServerDied) -> SplashError | None:
        """Plan a start after the only one died; return the error that should end the pool."""
        now = self._devices.clock()
        if self._ready_at is not None and now - self._ready_at >= PROVEN:
            self._failures = 0
            self._due = now
            return None
        self._failures += 1
        if self._failures >= (TRIES if self._ever_ready else FIRST_TRIES):
            return self._verdict(event)
        self._due = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._failures - 1))
        return None

    def _verdict(self, event: ServerDied) -> SplashError:
        if event.text and not self._ever_ready:
            return ImportFailed(
                f"the fork server cannot import PySplash's code ({event.text}): "
                "check for a file or folder of that name in the import path"
            )
        kind = CrashLoop if self._ever_ready else WorkerBootError
        how = event.text or f"status {event.status}"
        return kind(f"{self._failures} fork servers in a row died at once; the last one: {how}")
