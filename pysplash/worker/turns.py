"""Turns one by one: each stores what the last job left and claims the next."""

from __future__ import annotations

from collections.abc import Sequence

from pysplash.jobs.store_and_claim import Answer, Turn

from .claims import Claims
from .outcomes import Outcomes, Pending
from .supervised import Supervised


def queues_of(worker: Supervised) -> list[str]:
    """Return the names of the queues that *worker* claims from, in order."""
    return [queue.name for queue in worker._ordered_queues]


class OneByOne:
    """The turns of *worker* while its jobs are claimed one by one."""

    def __init__(self, worker: Supervised, claims: Claims, outcomes: Outcomes) -> None:
        self._worker = worker
        self._claims = claims
        self._outcomes = outcomes
        #: what the last job left, if that is not stored yet
        self.pending: Pending | None = None

    def next(self, queues: Sequence[str]) -> Turn:
        """Store what is pending and claim the next job from *queues*."""
        pending = self.take()
        if pending is None:
            turn = self._claims.take(None, queues)
        else:
            turn = self._claims.take(pending.done, queues, pending.seconds)
            if self._worker.slot is not None:
                self._worker.slot.journal.wipe()
        if turn.answer is not Answer.JOB or turn.skipped:
            self._outcomes.settle(turn, pending)
        return turn

    def left(self, pending: Pending, queues: Sequence[str] | None) -> None:
        """Keep what a job left; where *queues* are given, begin the turn that stores it."""
        self.pending = pending
        if queues is not None:
            self._claims.ask(pending.done, queues, pending.seconds)

    def take(self) -> Pending | None:
        """Return what is pending, for the caller to have it stored."""
        pending, self.pending = self.pending, None
        return pending
