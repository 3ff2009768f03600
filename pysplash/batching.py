"""Batching claims: several outcomes and claims a turn, taken in while the next job runs.

One turn at most is under way. Whatever else is asked of the server takes its reply in first. What
became of a turn whose connection was lost is found out by its name, which the worker's hash has.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from .batch import BASE, HAND, SCRIPT, Reply, Request, read, words
from .claims import FIRST_PAUSE, REFRESH, Claims
from .lane import Word
from .outage import AWAY
from .turn import Answer, Turn


class _Sent(NamedTuple):
    """A turn that is under way: what was asked, and the name by which it claims."""

    request: Request
    base: str
    refresh: bool


class BatchingClaims(Claims):
    """Claims that can be made in batches, while a job runs."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._sent: _Sent | None = None
        self._batch = ""

    @property
    def under_way(self) -> bool:
        """Whether something was sent whose answer has not been taken in."""
        return self._sent is not None

    def send(self, request: Request) -> None:
        """Ask; the answer is to be had from :meth:`gather` and :meth:`collect`."""
        refresh = request.wanted > 0 and time.time() - self._refreshed_at > REFRESH
        self._sent = _Sent(request, os.urandom(15).hex(), refresh)
        self.watching = False
        try:
            self._lane.send(*self._turn_of(self._sent))
        except AWAY:
            return

    def collect(self) -> Reply | None:
        """Return the answer to what was sent as soon as Redis has given it; None: nothing was."""
        pause = FIRST_PAUSE
        while True:
            try:
                return self.gather()
            except AWAY as error:
                pause = self._away(error, pause)

    def gather(self) -> Reply | None:
        """Return the answer to what was sent; raise redis's error if it is away."""
        sent = self._sent
        if sent is None:
            return None
        here = self._lane.open
        reply = read(self._lane.reply(), sent.base) if here else self._recover(sent)
        self._sent = None
        self._resting = False
        if reply.counters is not None:
            self._counters = reply.counters
        if sent.refresh and reply.jobs:
            self._refreshed_at = time.time()
        return reply

    def _turn_of(self, sent: _Sent) -> tuple[Word, ...]:
        if not self._batch:
            self._batch = self._lane.call("SCRIPT", "LOAD", SCRIPT).decode()
        head = self._head(self._batch, time.time(), sent.refresh)
        return (*head, *words(sent.request, sent.base))

    def _recover(self, sent: _Sent) -> Reply:
        """Connect; return what came of a turn whose answer was lost, or take it once more."""
        self._connect()
        named = self._lane.call("HMGET", f"rq:worker:{self._worker}", BASE, HAND)
        base, hand = (word.decode() if word else "" for word in named)
        if base != sent.base:
            return read(self._lane.call(*self._turn_of(sent)), sent.base)
        outcomes = [
            Answer.DEPENDENTS
            if self._has_record(f"{done.job_id}:{done.execution_id}")
            else Answer.EMPTY
            for done in sent.request.done
        ]
        mine = [entry for entry in hand.split() if entry.rpartition(":")[2].startswith(base)]
        jobs = [self._claimed(entry, light=not entry.endswith(f"{base}00")) for entry in mine]
        answer = Answer.JOB if jobs else Answer.EMPTY
        return Reply(answer, outcomes, [job for job in jobs if job.raw])

    def _has_record(self, entry: str) -> bool:
        return bool(self._lane.call("EXISTS", f"rq:execution:{entry}"))

    def _claimed(self, entry: str, *, light: bool) -> Turn:
        job_id, _, execution = entry.rpartition(":")
        return self._found(job_id.encode())._replace(execution=execution, light=light)

    def _connect(self) -> None:
        super()._connect()
        self._batch = ""
