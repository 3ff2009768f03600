"""Job timeouts that stack and hold: nested ones restore the outer, and none can be swallowed.

RQ's raises once, so a job's ``except Exception`` makes it last for ever, and ending one cancels
whatever was set before it. This one raises again each second until the job has let go, and gives
an outer timeout back what is left of it.
"""

from __future__ import annotations

import signal
import time
import traceback
from types import FrameType
from typing import Any

from rq.timeouts import BaseDeathPenalty

from .log import logger

#: seconds between two reminders to a job that goes on after its timeout
REMIND = 1.0

log = logger("worker")


class StackingDeathPenalty(BaseDeathPenalty):
    """RQ's death penalty on an interval timer; a timeout of None, 0 or less sets none."""

    def __init__(self, timeout: float | None, exception: type[Exception], **details: Any) -> None:
        super().__init__(timeout, exception, **details)  # type: ignore[no-untyped-call]
        self._job_id = details.get("job_id", "")
        self._told = False

    def handle_death_penalty(self, _signum: int, frame: FrameType | None) -> None:
        """Say where the job is, once, and raise the exception in it."""
        if not self._told and self._job_id:
            self._told = True
            log.warning(
                "job %s exceeded its %s s at\n%s",
                self._job_id,
                self._timeout,
                "".join(traceback.format_stack(frame)),
                extra={"action": "timeout", "job": self._job_id},
            )
        raise self._exception(f"Task exceeded maximum timeout value ({self._timeout} seconds)")

    def setup_death_penalty(self) -> None:
        """Set the timer, setting aside one that runs."""
        seconds = self._timeout if self._timeout is not None and self._timeout > 0 else 0
        self._armed = seconds > 0
        if self._armed:
            self._outer_handler = signal.signal(signal.SIGALRM, self.handle_death_penalty)
            self._outer = signal.setitimer(signal.ITIMER_REAL, seconds, REMIND)
            self._since = time.monotonic()

    def cancel_death_penalty(self) -> None:
        """Take the timer away and give an outer one back what is left of it."""
        if not self._armed:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._outer_handler)
        left, interval = self._outer
        if left > 0:
            left = max(0.001, left - (time.monotonic() - self._since))
            signal.setitimer(signal.ITIMER_REAL, left, interval)
