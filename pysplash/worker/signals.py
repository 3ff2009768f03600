"""The signals of a worker, and what each does.

========================  ==========================================================================
SIGTERM, SIGINT           a warm stop; in a worker without a pool, a second one is a cold stop
SIGUSR1                   stops the running job; :mod:`.interrupts` says which, and when
SIGALRM                   a job's time is up; :mod:`.timeouts` has the timers
each of them, and others  ends the wait of an idle worker, by a descriptor (:class:`WakeUp`)
========================  ==========================================================================

While a worker stores outcomes, :class:`~.interrupts.Interrupts` blocks what SIGUSR1 and SIGALRM do.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

#: seconds after a first stop signal in which a second one is taken for the same
COLD_AFTER = 1.0

Handler = Callable[[int, FrameType | None], None]


class Stoppable(Protocol):
    """A worker that can be stopped."""

    _stop_requested: bool
    #: the monotonic time of the last stop signal
    _stop_signal_at: float | None

    def _may_leave_cold(self) -> bool:
        """Whether a job's own code may be running, and no pool would end this worker."""

    def _leave_cold(self) -> None:
        """End the job by an exception in it."""


def handle_stops(handler: Handler) -> None:
    """Have *handler* called for each signal that asks for a stop."""
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def handle_job_stops(handler: Handler) -> None:
    """Have *handler* called for each signal that stops a job."""
    signal.signal(signal.SIGUSR1, handler)


def stop(worker: Stoppable) -> None:
    """Ask *worker* for a warm stop; by a second signal, well after the first, for a cold one."""
    first, worker._stop_signal_at = worker._stop_signal_at, time.monotonic()
    worker._stop_requested = True
    late = first is not None and worker._stop_signal_at - first > COLD_AFTER
    if late and worker._may_leave_cold():
        worker._leave_cold()


def stop_own_job() -> None:
    """Send this process the signal that stops its job."""
    os.kill(os.getpid(), signal.SIGUSR1)


class WakeUp:
    """A descriptor that is readable once a signal has come."""

    def __init__(self) -> None:
        self.fd, self._write_fd = -1, -1

    def open(self) -> None:
        """From now on let every signal make it readable."""
        if self.fd < 0:
            self.fd, self._write_fd = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def clear(self) -> None:
        """Forget the signals that have come; some have."""
        os.read(self.fd, 64)

    def close(self) -> None:
        """Leave signals alone."""
        signal.set_wakeup_fd(-1)
        for fd in (self.fd, self._write_fd):
            if fd >= 0:
                os.close(fd)
        self.fd, self._write_fd = -1, -1
