"""Job timeouts that stack and hold: every one in force is kept, and none can be swallowed.

RQ's raises once, so a job's ``except Exception`` makes it last for ever, and ending one cancels
whatever was set before it. Here one timer serves all that are in force: it rings when the first
of them is up, and again each second until the job has let go.

Jobs may run inside one another, at a *level* each. A timeout of an outer level that is up while an
inner one runs raises :class:`Overtaken` there, which ends the inner levels; at its own level it
becomes the exception it is. Between jobs, while outcomes are stored, the timers of the outer levels
are *blocked*; those that are due ring once they are unblocked.

A *callback* is called once the outermost job has run for a while; it raises nothing.

Time for which the pool held the process is not counted: a timer that rings is first given what it
was held.
"""

from __future__ import annotations

import math
import signal
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Any

from rq.timeouts import BaseDeathPenalty, BaseTimeoutException

from pysplash.jobs.store_and_claim import MOST_SECONDS
from pysplash.log import logger
from pysplash.waiting.offer import attached

#: seconds between two reminders to a job that goes on after its timeout
REMIND = 1.0
#: the shortest time in seconds a timer is set to
SOON = 0.001
_TIMER = signal.ITIMER_REAL
_ALARM = int(signal.SIGALRM)
#: what the module signal wraps in enums, which would take longer than the rest of a small job
_raw: Any = import_module("_signal")

log = logger("worker")


class Overtaken(BaseException):
    """A job further out is over while this one runs inside it, so this one is over too.

    ``level`` is that of the job meant, ``error`` what it is to get, ``why`` says what happened.
    """

    def __init__(self, level: int, error: BaseException, why: str) -> None:
        super().__init__(why)
        self.level = level
        self.error = error
        self.why = why


class Timers:
    """The timeouts in force in this process, which share its one interval timer."""

    def __init__(self) -> None:
        #: outermost first
        self._stack: list[StackingDeathPenalty] = []
        #: how many of the outermost are blocked
        self._blocked = 0
        #: how many jobs the running one is inside of
        self.level = 0
        #: what is to be called beside the outermost job, and the monotonic time when
        self.callback: tuple[float, Callable[[], None]] | None = None
        #: what SIGALRM did, and what its timer had left, before the first of them
        self._before: tuple[Any, tuple[float, float], float] = (signal.SIG_DFL, (0.0, 0.0), 0.0)

    @property
    def in_force(self) -> bool:
        """Whether any timeout is, so that there is a timer to add to."""
        return bool(self._stack)

    def add(self, penalty: StackingDeathPenalty, seconds: float) -> None:
        """Let *penalty* ring in *seconds*."""
        now = time.monotonic()
        penalty.level, penalty.blocked = self.level, self._blocked
        penalty.due, penalty.granted = now + seconds, _held()
        self._stack.append(penalty)
        try:
            before = self._arm(now)
        except BaseException:
            self._stack.remove(penalty)
            raise
        if len(self._stack) == 1:
            self._before = (*before, now)

    def remove(self, penalty: StackingDeathPenalty) -> None:
        """Let *penalty* ring no more; the next of the others takes its place."""
        if penalty in self._stack:
            del self._stack[self._stack.index(penalty) :]
        self._blocked = penalty.blocked
        if self._stack:
            self._arm(time.monotonic())
            return
        handler, (left, interval), since = self._before
        _raw.setitimer(_TIMER, 0)
        _raw.signal(_ALARM, handler)
        if left > 0:
            left = max(SOON, left - (time.monotonic() - since))
            _raw.setitimer(_TIMER, left, interval)

    def block(self) -> int:
        """Block the timeouts now in force; return what :meth:`unblock` takes to undo it."""
        before, self._blocked = self._blocked, len(self._stack)
        return before

    def unblock(self, before: int) -> None:
        """Let the timeouts ring again that a :meth:`block` blocked."""
        self._blocked = before
        if self._stack:
            self._arm(time.monotonic())

    def postpone(self, level: int) -> None:
        """Let the timeout of *level*, whose exception is about to be raised, ring in a second."""
        for penalty in self._stack:
            if penalty.level == level:
                penalty.remind()

    def ring(self, _signum: int, frame: FrameType | None) -> None:
        """Do what is due: the handler of SIGALRM."""
        now, held = time.monotonic(), _held()
        for penalty in self._stack:
            penalty.grant(held)
        late = [penalty for penalty in self._stack[self._blocked :] if penalty.due <= now]
        if late:
            late[0].remind()
        if self.callback is not None and not self._blocked and self.callback[0] <= now:
            (_, call), self.callback = self.callback, None
            call()
        if self._stack:  # else it is just being taken away, and nobody would hear it
            self._arm(now)
        if late:
            late[0].ring(frame)

    def _arm(self, now: float) -> tuple[Any, tuple[float, float]]:
        """Set the timer to the first that is due of those not blocked.

        Return what SIGALRM did, and what its timer had left.
        """
        due = self.callback[0] if self.callback is not None and not self._blocked else math.inf
        for penalty in self._stack[self._blocked :]:
            due = min(due, penalty.due)
        did = _raw.signal(_ALARM, self.ring)
        return did, _raw.setitimer(_TIMER, max(SOON, due - now) if due < math.inf else 0)


#: those of this process, as it has one interval timer
TIMERS = Timers()


def _held() -> float:
    """Return the seconds for which a pool held this process so far."""
    slot = attached()
    return 0.0 if slot is None else slot.held()


class StackingDeathPenalty(BaseDeathPenalty):
    """RQ's death penalty as one of the process's timers; None, 0 or less seconds set none."""

    #: how many jobs the one meant is inside of, and when it rings, in monotonic time
    level, due = 0, math.inf
    #: how many timeouts were blocked as this one was set
    blocked = 0
    #: the seconds for which this process was held so far that it has been given
    granted = 0.0

    def __init__(self, timeout: float | None, exception: type[Exception], **details: Any) -> None:
        self._timeout, self._exception = timeout, exception
        self._job_id = details.get("job_id", "")
        self._told = False

    def __exit__(self, *_exc_info: object) -> None:
        """Take the timer away, even if it rings meanwhile: then the job was done in time."""
        try:
            self.cancel_death_penalty()
        except BaseTimeoutException:
            self.cancel_death_penalty()
        except BaseException:
            self.cancel_death_penalty()
            raise

    def setup_death_penalty(self) -> None:
        """Set the timer."""
        seconds = self._timeout if self._timeout is not None and self._timeout > 0 else 0
        self._armed = seconds > 0
        if self._armed:
            TIMERS.add(self, min(seconds, MOST_SECONDS))  # no timer takes more than some 10**18

    __enter__ = setup_death_penalty

    def cancel_death_penalty(self) -> None:
        """Take the timer away."""
        if self._armed:
            TIMERS.remove(self)

    def ring(self, frame: FrameType | None) -> None:
        """Log where the job is, once, and raise in it its timeout, or what ends it."""
        self.remind()
        if not self._told and self._job_id:
            self._told = True
            log.warning(
                "job %s exceeded its %s s at\n%s",
                self._job_id,
                self._timeout,
                "".join(traceback.format_stack(frame)),
                extra={"action": "timeout", "job": self._job_id},
            )
        text = f"Task exceeded maximum timeout value ({self._timeout} seconds)"
        error = self._exception(text)
        # RQ's TimerDeathPenalty, once used in a process, puts its own seconds into every error.
        error.args = (text,)
        if self.level < TIMERS.level:
            raise Overtaken(self.level, error, f"exceeded its {self._timeout} s")
        raise error

    def grant(self, held: float) -> None:
        """Ring as much later as it was *held* for, if that was not granted yet; told is told."""
        if not self._told:
            self.due += held - self.granted
            self.granted = held

    def remind(self) -> None:
        """Ring next in a second."""
        self.due = time.monotonic() + REMIND
