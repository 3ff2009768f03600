"""Idling: an idle worker waits, without asking, until there is something to do.

The server tells of changed queues, signals ring a bell of their own. In a pool many may hear of
one job: the first of the idle workers answer at once, the others only for what those leave.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence

from .claims import Claims
from .scoreboard import Slot

#: seconds between two signs of life of an idle worker
BEAT = 1.0
#: idle workers of a pool that answer at once when a queue changes; each further one waits for
#: PATIENCE seconds longer
FIRST, PATIENCE = 2, 0.0005


class Idling:
    """Waits for a change of the queues that one worker found empty."""

    def __init__(self, claims: Claims, leaving: Callable[[], bool]) -> None:
        self._claims = claims
        self._leaving = leaving
        self._bell, self._rope = -1, -1

    def open(self) -> None:
        """From now on let every signal end a wait."""
        if self._bell < 0:
            self._bell, self._rope = os.pipe()
            os.set_blocking(self._bell, False)
            os.set_blocking(self._rope, False)
        signal.set_wakeup_fd(self._rope, warn_on_full_buffer=False)

    def close(self) -> None:
        """Leave signals alone."""
        signal.set_wakeup_fd(-1)
        for fd in (self._bell, self._rope):
            if fd >= 0:
                os.close(fd)
        self._bell, self._rope = -1, -1

    def wait(self, until: float, queues: Sequence[str], slot: Slot | None) -> bool:
        """Wait until a queue has changed, the worker is to leave, or monotonic time *until*.

        Return whether a queue has changed.
        """
        while not self._leaving():
            if self._claims.rung and self._is_needed(queues, slot):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            if slot is not None:
                slot.beat()
            if self._claims.listen(min(BEAT, left), self._bell):
                os.read(self._bell, 64)
        return False

    def _is_needed(self, queues: Sequence[str], slot: Slot | None) -> bool:
        """Let the idle workers before this one go first; return whether they left anything."""
        before = slot.idle_before() if slot is not None else 0
        if before < FIRST:
            return True
        select.select([self._bell], [], [], before * PATIENCE)
        return self._claims.look(queues)
