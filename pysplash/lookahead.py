"""Looking ahead: while jobs are brief, the next is fetched while one runs.

Between two jobs of some microseconds a worker would mostly wait for its server. So once a function
has been brief several times in a row, its worker stores the last outcome and claims the next job
while a job of that function runs. What is claimed so is not begun: should the job that runs take
longer after all, wait for others, or the worker leave, it goes back to the front of its queue.
"""

from __future__ import annotations

import time
from typing import Any

from rq.job import Job

from .helping import Help, Search
from .log import logger
from .nesting import Nesting
from .prefetching import PrefetchingClaims
from .quarantine import described
from .supervised import REDIS_AWAY
from .timeouts import StackingDeathPenalty
from .turn import Answer, Finish, Turn

#: functions that are remembered
MOST_FUNCTIONS = 1000

log = logger("worker")


class LookingAhead(Nesting):
    """A worker that fetches its next job while a brief one runs."""

    #: seconds a brief job takes at most
    brief_seconds = 0.001
    #: jobs of a function that must have been brief in a row before the next is taken to be
    streak = 8
    #: seconds after which a job that was taken to be brief keeps no other waiting
    foresight = 0.02
    #: whether the next is fetched beside the first job after a rest, too
    eager = False

    _claims: PrefetchingClaims

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        #: functions by name, and how often in a row they were brief
        self._streaks: dict[str, int] = {}
        #: the outcome that is being stored, and the job it is of
        self._behind: tuple[Finish | None, Any] = (None, None)
        #: whether that is seen to
        self._seen = True
        #: whether the job about to run was claimed ahead, so that Redis has it as queued
        self._fetched = False
        #: the function of the job beside which the next one was claimed
        self._hoped = ""

    def _names(self) -> list[str]:
        """Return the queues to claim from, in order."""
        raise NotImplementedError

    def _is_brief(self, job: Job, function: str) -> bool:
        """Return whether *job* will probably be over before another could be fetched.

        Not the first after a rest: there is probably no other, and its result is waited for.
        """
        if self._claims.watching and not self.eager:
            return False
        seconds = self._seconds(job)
        streak = self._streaks.get(function, 0)
        known = streak >= self.streak and seconds is not None and self.slot is not None
        return known and not self._outer and not self._stop_requested

    def _look_ahead(self, job: Job, function: str) -> None:
        """Store the last outcome and claim the next job, while *job* runs, which is brief."""
        self._send(job, self._names())
        self._hoped = function
        StackingDeathPenalty.errand = (time.monotonic() + self.foresight, self._surrender)

    def _catch_up(self, job: Job) -> None:
        """Let Redis know that *job* begins, and store the last outcome before, if need be."""
        if self._fetched:
            self._send(job, [])
            self._collect()

    def _send(self, job: Job, queues: list[str]) -> None:
        self._behind = (self._done, self._held)
        self._claims.send(self._done, queues, self._took, job.id)
        self._done = self._held = None
        self._fetched = self._seen = False

    def _learn(self, function: str, seconds: float) -> None:
        """Note how long a job of *function* took."""
        if seconds >= self.brief_seconds:
            self._streaks.pop(function, None)
        elif function in self._streaks or len(self._streaks) < MOST_FUNCTIONS:
            self._streaks[function] = self._streaks.get(function, 0) + 1

    def _in_hand(self) -> Turn | None:
        """Return the turn that claimed the next job while the last one ran, if one did."""
        self._fetched = False
        if not self._claims.under_way:
            return None
        turn = self._collect()
        self._fetched = turn is not None and turn.answer is Answer.JOB
        return turn if self._fetched else None

    def _collect(self) -> Turn | None:
        """Take in the answer to what was sent."""
        StackingDeathPenalty.errand = None
        self._see_behind()
        return self._claims.collect()

    def _see_behind(self) -> None:
        """See to what the turn under way did not store, before anything later is stored."""
        if self._seen:
            return
        turn = self._claims.answer()
        self._seen = True
        (done, held), self._behind = self._behind, (None, None)
        if turn is not None and (turn.skipped or turn.answer in (Answer.FENCED, Answer.DEPENDENTS)):
            self._see_to(turn, done, held)

    def _surrender(self) -> None:
        """Put the next job back: the one that runs is not brief."""
        self._streaks.pop(self._hoped, None)
        try:
            self._claims.give_back()
        except REDIS_AWAY as error:
            log.debug("worker %s: nothing is put back, Redis is away: %s", self.name, error)
        except Exception as error:
            log.error("worker %s: nothing is put back: %s", self.name, described(error))

    def help(self, search: Search) -> Help:
        """Keep no job waiting while this one waits; then help."""
        if self._claims.under_way:
            before = self._cover()
            try:
                StackingDeathPenalty.errand = None
                if self._claims.give_back():
                    self._collect()
            finally:
                self._uncover(before)
        return super().help(search)

    def _let_go(self) -> None:
        """Put the next job back, and see to the last outcome."""
        if self._claims.under_way:
            self._insist(self._claims.give_back)
            self._collect()
