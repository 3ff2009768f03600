"""Job timeouts that stack and hold: every one in force is kept, and none can be swallowed.

RQ's raises once, so a job's ``except Exception`` makes it last for ever, and ending one cancels
whatever was set before it. Here one timer serves all that are in force: it rings when the first
of them is up, and again each second until the job has let go.

Jobs may run inside one another, at a *level* each. A timeout of an outer level that is up while an
inner one runs raises :class:`Overtaken` there, which ends the inner levels; at its own level it
becomes the exception it is. Between jobs, while outcomes are stored, a *shield* keeps the timers of
the outer levels back; they ring when it is gone.

An *errand* is done once the outermost job has run for a while; it raises nothing.

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
from typing import Any, ClassVar

from rq.timeouts import BaseDeathPenalty, BaseTimeoutException

from pysplash.jobs.claim_one import MOST_SECONDS
from pysplash.log import logger

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


class StackingDeathPenalty(BaseDeathPenalty):
    """RQ's death penalty on one interval timer; a timeout of None, 0 or less sets none."""

    #: those in force, outermost first
    _stack: ClassVar[list[StackingDeathPenalty]] = []
    #: those before this place in the stack are kept back
    _shield: ClassVar[int] = 0
    #: how many jobs the running one is inside of
    level: ClassVar[int] = 0
    #: what is to be done beside the outermost job, and the monotonic time when
    errand: ClassVar[tuple[float, Callable[[], None]] | None] = None
    #: what SIGALRM did, and what its timer had left, before the first of them
    _before: ClassVar[tuple[Any, tuple[float, float], float]] = (signal.SIG_DFL, (0.0, 0.0), 0.0)

    @staticmethod
    def held() -> float:
        """Return the seconds for which this process was held so far; a pool sets its own."""
        return 0.0

    @classmethod
    def in_force(cls) -> bool:
        """Return whether any is in force, so that there is a timer to add to."""
        return bool(StackingDeathPenalty._stack)

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
        seconds = min(seconds, MOST_SECONDS)  # no timer takes more than some 10**18
        self._armed = seconds > 0
        if not self._armed:
            return
        kind = StackingDeathPenalty
        now = time.monotonic()
        self._level, self._shielded, self._due = kind.level, kind._shield, now + seconds
        self._granted = kind.held()
        kind._stack.append(self)
        try:
            before = _arm(now)
        except BaseException:
            kind._stack.remove(self)
            raise
        if len(kind._stack) == 1:
            kind._before = (*before, now)

    __enter__ = setup_death_penalty

    def cancel_death_penalty(self) -> None:
        """Take the timer away; the next of the others takes its place."""
        kind = StackingDeathPenalty
        if not self._armed:
            return
        if self in kind._stack:
            del kind._stack[kind._stack.index(self) :]
        kind._shield = self._shielded
        if kind._stack:
            _arm(time.monotonic())
            return
        handler, (left, interval), since = kind._before
        _raw.setitimer(_TIMER, 0)
        _raw.signal(_ALARM, handler)
        if left > 0:
            left = max(SOON, left - (time.monotonic() - since))
            _raw.setitimer(_TIMER, left, interval)

    def ring(self, frame: FrameType | None) -> None:
        """Say where the job is, once, and raise the exception in it, or what ends it."""
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
        if self._level < StackingDeathPenalty.level:
            raise Overtaken(self._level, error, f"exceeded its {self._timeout} s")
        raise error

    def grant(self, held: float) -> None:
        """Ring as much later as it was *held* for, if that was not granted yet; told is told."""
        if not self._told:
            self._due += held - self._granted
            self._granted = held

    def remind(self) -> None:
        """Ring next in a second."""
        self._due = time.monotonic() + REMIND


def _arm(now: float) -> tuple[Any, tuple[float, float]]:
    """Set the timer to the first that is due of those not kept back.

    Return what SIGALRM did, and what its timer had left.
    """
    kind = StackingDeathPenalty
    due = kind.errand[0] if kind.errand is not None and not kind._shield else math.inf
    for penalty in kind._stack[kind._shield :]:
        due = min(due, penalty._due)
    did = _raw.signal(_ALARM, _ring)
    return did, _raw.setitimer(_TIMER, max(SOON, due - now) if due < math.inf else 0)


def _ring(_signum: int, frame: FrameType | None) -> None:
    kind = StackingDeathPenalty
    now, held = time.monotonic(), kind.held()
    for penalty in kind._stack:
        penalty.grant(held)
    late = [penalty for penalty in kind._stack[kind._shield :] if penalty._due <= now]
    if late:
        late[0].remind()
    if kind.errand is not None and not kind._shield and kind.errand[0] <= now:
        (_, do), kind.errand = kind.errand, None
        do()
    if kind._stack:  # else it is just being taken away, and nobody would hear it
        _arm(now)
    if late:
        late[0].ring(frame)


def shield() -> int:
    """Keep back the timers now in force; return what :func:`unshield` takes to undo it."""
    kind = StackingDeathPenalty
    before, kind._shield = kind._shield, len(kind._stack)
    return before


def unshield(before: int) -> None:
    """Let timers ring again that a :func:`shield` kept back."""
    StackingDeathPenalty._shield = before
    if StackingDeathPenalty._stack:
        _arm(time.monotonic())


def postpone(level: int) -> None:
    """Let the timer of *level*, whose exception is about to be raised, ring next in a second."""
    for penalty in StackingDeathPenalty._stack:
        if penalty._level == level:
            penalty.remind()
