"""Idling: an idle worker waits, without asking, until there is something to do.

The server tells of changed queues, and signals make a descriptor readable. In a pool many may hear
of one job: the first of the idle workers answer at once, the others only for what those leave.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

from .claims import Claims
from .scoreboard import Slot
from .signals import WakeUp

#: seconds between two signs of life of an idle worker
BEAT = 1.0
#: idle workers of a pool that answer at once when a queue changes; each further one waits for
#: PATIENCE seconds longer
FIRST, PATIENCE = 2, 0.0005


class Idling:
    """Waits for a change of the queues that one worker found empty."""

    def __init__(self, claims: Claims, leaving: Callable[[], bool], wake_up: WakeUp) -> None:
        self._claims = claims
        self._leaving = leaving
        self._wake_up = wake_up

    def wait(self, until: float, queues: Sequence[str], slot: Slot | None) -> bool:
        """Wait until a queue has changed, the worker is to leave, or monotonic time *until*.

        Return whether a queue has changed.
        """
        while not self._leaving():
            if self._claims.notified and self._is_needed(queues, slot):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            if slot is not None:
                slot.beat()
            if self._claims.listen(min(BEAT, left), self._wake_up.fd):
                self._wake_up.clear()
        return False

    def _is_needed(self, queues: Sequence[str], slot: Slot | None) -> bool:
        """Let the idle workers before this one go first; return whether they left anything."""
        before = slot.idle_before() if slot is not None else 0
        if before < FIRST:
            return True
        select.select([self._wake_up.fd], [], [], before * PATIENCE)
        return self._claims.look(queues)
