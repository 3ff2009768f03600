"""Idling: an idle worker waits, without asking, until there is something to do.

The server tells of changed queues, and signals make a descriptor readable. In a pool many may hear
of one job: the first of the idle workers answer at once, the others only for what those leave.
Where the server does not tell, a pool looks for all its workers and sends notices; a worker without
a pool looks by itself.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

from pysplash.log import logger

from .claims import Claims
from .notices import pause_after
from .scoreboard import Slot
from .signals import WakeUp

#: seconds between two signs of life of an idle worker
BEAT = 1.0
#: idle workers of a pool that answer at once when a queue changes; each further one waits for
#: PATIENCE seconds longer
FIRST, PATIENCE = 2, 0.0005


log = logger("worker")


class Idling:
    """Waits for a change of the queues that one worker found empty."""

    def __init__(self, claims: Claims, leaving: Callable[[], bool], wake_up: WakeUp) -> None:
        self._claims = claims
        self._leaving = leaving
        self._wake_up = wake_up
        self._has_said = False

    def wait(
        self, until: float, queues: Sequence[str], slot: Slot | None, idle_since: float
    ) -> bool:
        """Wait until a queue has changed, the worker is to leave, or monotonic time *until*.

        *idle_since* is the monotonic time of the last job. Return whether a queue has changed.
        """
        looks = slot is None and not self._claims.told
        if looks:
            self._say_once()
        while not self._leaving():
            if self._claims.notified and self._is_needed(queues, slot):
                return True
            now = time.monotonic()
            if until <= now:
                return False
            left = min(BEAT, until - now)
            if slot is not None:
                slot.beat()
                if self._listen(left, slot):
                    return True
            elif looks:
                self._listen(min(left, pause_after(now - idle_since)))
                if self._claims.look(queues):
                    return True
            else:
                self._listen(left)
        return False

    def _listen(self, seconds: float, slot: Slot | None = None) -> bool:
        """Wait for a change, a signal or a notice for *slot*; return whether that came."""
        notices = slot.notices if slot is not None and not self._claims.told else None
        others = [self._wake_up.fd] if notices is None else [self._wake_up.fd, notices.fileno()]
        ready = self._claims.listen(seconds, *others)
        if self._wake_up.fd in ready:
            self._wake_up.clear()
        return notices is not None and notices.fileno() in ready and notices.take()

    def _say_once(self) -> None:
        if not self._has_said:
            self._has_said = True
            log.info("Redis does not tell of new jobs (no CLIENT TRACKING): looking for them")

    def _is_needed(self, queues: Sequence[str], slot: Slot | None) -> bool:
        """Let the idle workers before this one go first; return whether they left anything."""
        before = slot.idle_before() if slot is not None else 0
        if before < FIRST:
            return True
        select.select([self._wake_up.fd], [], [], before * PATIENCE)
        return self._claims.look(queues)
