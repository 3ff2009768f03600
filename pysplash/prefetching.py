"""Prefetching claims: the reply to a turn is taken in after the job that runs meanwhile.

One turn at most is under way. Whatever else is asked of the server takes its reply in first. What
became of a turn whose connection was lost is found out by its execution, as with any other claim.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from .claims import AWAY, FIRST_PAUSE, REFRESH, Claims
from .descent import Descent
from .lane import Word
from .prefetch import GIVE_BACK, SCRIPT
from .turn import NEXT, NOTHING, Answer, Finish, Turn, read


class _Sent(NamedTuple):
    """A turn that is under way: what it stores, what runs meanwhile, the execution it claims by.

    What runs is a job and its execution.
    """

    done: Finish | None
    seconds: float
    present: tuple[str, str]
    execution: str
    refresh: bool


class PrefetchingClaims(Claims):
    """Claims that can be made while a job runs."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._sent: _Sent | None = None
        self._answer: Turn | None = None
        self._prefetch = self._give_back = ""

    @property
    def under_way(self) -> bool:
        """Whether something was sent of which :meth:`collect` has not told."""
        return self._sent is not None

    def send(self, done: Finish | None, queues: list[str], seconds: float, present: str) -> None:
        """Store *done*, which took *seconds*, and claim from *queues*, while *present* runs.

        The answer is to be had from :meth:`collect`; where Redis is away, once it is back.
        """
        refresh = time.time() - self._refreshed_at > REFRESH
        beginning = (present, self.execution)
        self._sent = _Sent(done, seconds, beginning, os.urandom(16).hex(), refresh)
        try:
            self._lane.send(*self._turn_of(self._sent), *queues)
        except AWAY:
            return

    def answer(self) -> Turn | None:
        """Return the answer to what was sent as soon as Redis has given it; None: nothing was."""
        pause = FIRST_PAUSE
        while self._sent is not None and self._answer is None:
            try:
                self._gather()
            except AWAY as error:
                pause = self._away(error, pause)
        return self._answer

    def collect(self) -> Turn | None:
        """Return the answer, once; a job it claims is from now on the worker's present one."""
        turn, sent = self.answer(), self._sent
        self._answer = self._sent = None
        if turn is not None and sent is not None and turn.answer is Answer.JOB:
            self.execution = sent.execution
        return turn

    def give_back(self) -> bool:
        """Put a job back that was claimed and has not begun; return whether Redis has answered.

        Raises redis's error if it is away; then the job is still in hand.
        """
        self._gather()
        sent, turn = self._sent, self._answer
        if sent is not None and turn is not None and turn.answer is Answer.JOB:
            if not self._give_back:
                self._give_back = self._lane.call("SCRIPT", "LOAD", GIVE_BACK).decode()
            origin = turn.hash().get(b"origin", b"")
            words = (self._worker, turn.queue, origin, turn.job_id, sent.execution)
            self._lane.call("EVALSHA", self._give_back, 0, *words)
            self._answer = Turn(Answer.EMPTY, skipped=turn.skipped)
        return turn is not None

    def take_named(self, done: Finish | None, named: Sequence[Word], seconds: float) -> Descent:
        """Claim as :class:`Claims` does, once the turn under way is answered."""
        self._gather()
        return super().take_named(done, named, seconds)

    def still_ours(self, job_id: str) -> bool:
        """Return what :class:`Claims` does, once the turn under way is answered."""
        pause = FIRST_PAUSE
        while True:
            try:
                self._gather()
                return super().still_ours(job_id)
            except AWAY as error:
                pause = self._away(error, pause)

    def _turn_of(self, sent: _Sent) -> tuple[Word, ...]:
        if not self._prefetch:
            self._prefetch = self._lane.call("SCRIPT", "LOAD", SCRIPT).decode()
        counters = self._count(sent.seconds) if sent.done is not None else (0, 0.0)
        outcome = sent.done or NOTHING
        now = time.time()
        words = self._words(self._prefetch, now, sent.refresh, counters, outcome, sent.execution)
        return (*words, *sent.present)

    def _gather(self) -> None:
        """Take in the answer to what was sent; raise redis's error if it is away."""
        sent = self._sent
        if sent is None or self._answer is not None:
            return
        try:
            turn = read(self._lane.reply()) if self._lane.open else self._recover(sent)
        except ResponseError as error:
            turn = self._reopen(sent.done, error)
        stored = sent.done is not None and turn.answer not in (Answer.FENCED, Answer.DEPENDENTS)
        if stored and self._counters is not None:
            self._counters = self._count(sent.seconds)
        if sent.refresh and turn.answer is Answer.JOB:
            self._refreshed_at = time.time()
        self._resting = False
        self._answer = turn

    def _recover(self, sent: _Sent) -> Turn:
        """Connect; return what came of a turn whose answer was lost, having stored its outcome."""
        self._connect()
        held = self._lane.call("HGET", f"rq:worker:{self._worker}", NEXT) or b""
        job_id, _, execution = held.rpartition(b":")
        mine = b"rq:execution:" + held
        if execution.decode() == sent.execution and self._lane.call("EXISTS", mine):
            return self._found(job_id)
        if sent.done is not None:
            key = f"rq:execution:{sent.done.job_id}:{sent.done.execution_id}"
            if self._lane.call("EXISTS", key):
                return read(self._lane.call(*self._turn_of(sent)))
        return Turn(Answer.EMPTY)

    def _connect(self) -> None:
        super()._connect()
        self._prefetch = self._give_back = ""
