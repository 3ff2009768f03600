"""Batching claims: several outcomes and claims a turn, taken in while the next job runs.

One turn at most is under way. Whatever else is asked of the server takes its reply in first. What
became of a turn whose connection was lost is found out by its name, which the worker's hash has.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from pysplash.connections.direct import Word
from pysplash.connections.outage import AWAY, patiently
from pysplash.jobs.store_and_claim import Answer, Turn
from pysplash.jobs.store_and_claim_batch import BASE, HAND, SCRIPT, BatchRequest, Reply, read, words

from .claims import REFRESH, Claims, keys_of, now
from .script_connection import CACHING


class _Sent(NamedTuple):
    """A turn that is under way: what was asked, and the name by which it claims."""

    request: BatchRequest
    base: str
    refresh: bool


class BatchingClaims(Claims):
    """Claims that can be made in batches, while a job runs."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._sent: _Sent | None = None
        #: the answer to it, where nothing else was to be done meanwhile
        self._answer: Any = None

    @property
    def under_way(self) -> bool:
        """Whether something was sent whose answer has not been taken in."""
        return self._sent is not None

    def send(self, request: BatchRequest) -> None:
        """Ask; the answer is to be had from :meth:`gather` and :meth:`collect`.

        Who runs nothing and gets nothing is told when one of the queues changes.
        """
        refresh = request.wanted > 0 and time.time() - self._refreshed_at > REFRESH
        self._sent = _Sent(request, os.urandom(15).hex(), refresh)
        self._answer, self.watching = None, False
        try:
            words = self._turn_of(self._sent)
            if request.present or not request.queues:
                self._connection.send(*words)
            else:
                self._connection.notified = False
                before = [CACHING] if self.told else []
                self._answer = self._connection.call_all(*before, words)[-1]
        except AWAY:
            return

    def collect(self) -> Reply | None:
        """Return the answer to what was sent as soon as Redis has given it; None: nothing was."""
        return patiently(self.gather, self._away)

    def gather(self) -> Reply | None:
        """Return the answer to what was sent; raise redis's error if it is away."""
        sent = self._sent
        if sent is None:
            return None
        reply = self._recover(sent) if not self._connection.open else self._answer_to(sent)
        self._sent = self._answer = None
        self._resting = False
        if reply.counters is not None:
            self._counters = reply.counters
        if sent.refresh and reply.jobs:
            self._refreshed_at = time.time()
        return reply

    def _answer_to(self, sent: _Sent) -> Reply:
        """Return the answer to *sent*; send it once more where the server had lost the script."""
        waits, answer = self._answer is None, self._answer
        try:
            found = self._connection.reply() if waits else self._connection.checked(answer)
        except NoScriptError:
            self._connection.forget_scripts()
            return read(self._connection.call(*self._turn_of(sent)), sent.base)
        reply = read(found, sent.base)
        if not waits:
            self.watching = not reply.jobs and not reply.skipped
        return reply

    def _turn_of(self, sent: _Sent) -> tuple[Word, ...]:
        request = sent.request
        keys = () if request.present else keys_of(request.queues)
        run = self._connection.run(SCRIPT, keys)
        return (*run, *self._head(now(), sent.refresh), *words(request, sent.base))

    def _recover(self, sent: _Sent) -> Reply:
        """Connect; return what came of a turn whose answer was lost, or take it once more."""
        self._connect()
        named = self._connection.call("HMGET", f"rq:worker:{self._worker}", BASE, HAND)
        base, hand = (word.decode() if word else "" for word in named)
        if base != sent.base:
            return read(self._connection.call(*self._turn_of(sent)), sent.base)
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
        return bool(self._connection.call("EXISTS", f"rq:execution:{entry}"))

    def _claimed(self, entry: str, *, light: bool) -> Turn:
        job_id, _, execution = entry.rpartition(":")
        return self._found(job_id.encode())._replace(execution=execution, light=light)
