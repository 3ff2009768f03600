"""Restarts of the fork server: after pauses that grow while it dies young, and not for ever."""

from __future__ import annotations

from pysplash.control.model import NEVER
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
        self._ready_at = NEVER
        #: when to start one; None: one runs, or nobody wants one
        self._due: float | None = None

    def start(self) -> None:
        """Start a fork server now."""
        self._due = None
        try:
            self._devices.processes.renew()
        except OSError as error:  # no memory, or no process more
            log.error("no fork server can be started: %s", error, extra={"action": "server-died"})
            self._due = self._devices.clock() + LONGEST_PAUSE

    def note_ready(self) -> None:
        """Note that a fork server has preloaded everything."""
        self._ready_at = self._devices.clock()

    def note_death(self, event: ServerDied) -> SplashError | None:
        """Plan a start for one that died; return the error that should end the pool, or None."""
        now = self._devices.clock()
        ever_ready = self._ready_at != NEVER
        if ever_ready and now - self._ready_at >= PROVEN and not self._failures:
            self._due = now
            return None
        self._failures += 1
        if self._failures >= (TRIES if ever_ready else FIRST_TRIES):
            return self._verdict(event, ever_ready=ever_ready)
        self._due = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._failures - 1))
        return None

    def _verdict(self, event: ServerDied, *, ever_ready: bool) -> SplashError:
        if event.text and not ever_ready:
            return ImportFailed(
                f"the fork server cannot import PySplash's code ({event.text}): "
                "check for a file or folder of that name in the import path"
            )
        kind = CrashLoop if ever_ready else WorkerBootError
        how = event.text or f"status {event.status}"
        return kind(f"{self._failures} fork servers in a row died at once; the last one: {how}")

    def ensure(self) -> None:
        """Start a fork server if that is due; forget failures once one has lived for a while."""
        now = self._devices.clock()
        if self._due is not None:
            if now >= self._due:
                self.start()
        elif now - self._ready_at >= PROVEN:
            self._failures = 0
