"""Claims: a worker's turns at the server, made once each however often Redis goes away.

An outcome is kept until it is stored. A claim whose reply was lost is found again by its
execution, so it is neither made twice nor forgotten. Between turns the server tells a worker
that found its queues empty when one of them changes (client-side caching, opt-in), so it waits
without asking and without taking anything off a queue. Redis up to 7.0 at least remembers only
the keys that a script declares, so a turn that may find its queues empty declares their keys.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from pysplash.connections.direct import Word, packed
from pysplash.connections.outage import AWAY, FIRST_PAUSE, patiently
from pysplash.jobs import claim_named as descent
from pysplash.jobs.claim_named import NamedTurn
from pysplash.jobs.restoring import stamp, written
from pysplash.jobs.rq import claimed
from pysplash.jobs.store_and_claim import NOTHING, SCRIPT, UNREST, Answer, Finish, Turn, read

from .script_connection import CACHING, ScriptConnection

#: seconds between two refreshes of a busy worker's key
REFRESH = 15.0
#: counters of a worker that stores no outcome
_NO_JOB = (0, 0.0)


def now() -> tuple[str, str]:
    """Return the time in seconds, and as RQ writes it."""
    return written(time.time_ns() // 1000)


def keys_of(queues: Sequence[str]) -> list[str]:
    """Return the keys of *queues*."""
    return [f"rq:queue:{name}" for name in queues]


class _Asked(NamedTuple):
    """A turn that is under way."""

    execution: str
    refresh: bool
    counters: tuple[int, float]
    #: how many replies come before the script's own
    before: int
    #: what is to be sent after it: whoever waits for the outcome of a job that came alone does not
    #: wait for this, too. It asks to be told of changes, as probably no job follows
    after: bytes


class Claims:
    """Claims jobs for one worker and stores their outcomes.

    *leaving* says whether the worker is to leave, *away* is told of an absent Redis with the
    pause to make and returns the next one.
    """

    def __init__(
        self,
        client: Redis,
        worker: str,
        *,
        idle_ttl: int,
        leaving: Callable[[], bool],
        away: Callable[[Exception, float], float],
    ) -> None:
        self._connection = ScriptConnection(client, worker)
        self._worker = worker
        self._idle_ttl = idle_ttl
        self._leaving = leaving
        self._away = away
        self._resting = False
        #: longest lease in seconds, 60 s aside; 0: as long as the job may take
        self.lease_cap = 0
        self._refreshed_at = 0.0
        self._counters: tuple[int, float] | None = None
        #: the execution under which the last job was claimed
        self.execution = ""
        #: the execution of a claim that may have been made, for all that is known
        self.unsure = ""
        #: whether the queues found empty by the last turn are watched
        self.watching = False
        #: ids for the executions of the next turns
        self._fresh: list[str] = []
        self._watched: tuple[Sequence[str], bytes] = ((), b"")
        self._asked: _Asked | None = None

    def take(self, done: Finish | None, queues: Sequence[str], seconds: float = 0.0) -> Turn:
        """Store *done*, which took *seconds*, and claim from *queues*; or end what was begun.

        Waits for Redis as long as it takes; a worker that is to leave and has nothing to store
        does not.
        """
        pause = FIRST_PAUSE
        asked, self._asked = self._asked, None
        execution = asked.execution if asked is not None else self._draw()
        while True:
            try:
                turn = None
                if not self._connection.open:
                    asked, turn = None, self._lost_claim(execution)
                if turn is None:
                    asked = asked or self._begin_turn(done, queues, execution, seconds)
                    turn = self._end_turn(asked, done)
            except AWAY as error:
                asked = self._asked = None
                if done is None and self._leaving():
                    return self._last_look(execution)
                pause = self._away(error, pause)
                continue
            except NoScriptError:
                asked = None  # nothing was done
                self._connection.forget_scripts()
                continue
            if turn.answer is Answer.JOB:
                self.execution = execution
            self._resting = turn.answer is Answer.EMPTY or turn.answer is Answer.SUSPENDED
            return turn

    def _last_look(self, execution: str) -> Turn:
        """Return what a worker that leaves has claimed by a turn whose reply was lost, if anything.

        If Redis does not say it stays :attr:`unsure`.
        """
        try:
            self._connection.close()
            turn = self._lost_claim(execution)
        except AWAY:
            self.unsure = execution
            return Turn(Answer.EMPTY)
        if turn is not None:
            self.execution = execution
        return turn or Turn(Answer.EMPTY)

    # --- turns begun ahead ---

    @property
    def asked(self) -> bool:
        """Whether a turn is under way, which only :meth:`take` ends."""
        return self._asked is not None

    @property
    def may_ask(self) -> bool:
        """Whether a turn could be begun without anything else to be asked of the server."""
        return self._connection.open and self._counters is not None

    def ask(self, done: Finish | None, queues: Sequence[str], seconds: float = 0.0) -> None:
        """Begin a turn; the next :meth:`take`, with the same arguments, ends it.

        Nothing else may be asked of the server until then.
        """
        moment = (done.execution_ended_at, done.ended_at) if done is not None else None
        try:
            self._begin_turn(done, queues, self._draw(), seconds, moment)
        except AWAY:
            return  # the connection is closed; by its execution a claim can be found again

    def prepare(self) -> None:
        """Have ready what the next turns take, while there is time."""
        self._fresh = [os.urandom(16).hex() for _ in range(2)]
        if self._counters is None and self._connection.open:
            self._learn_counters()

    def _draw(self) -> str:
        return self._fresh.pop() if self._fresh else os.urandom(16).hex()

    def take_named(self, done: Finish | None, named: Sequence[Word], seconds: float) -> NamedTurn:
        """Store *done*, which took *seconds*, and claim one of the jobs *named*.

        *named* is from :func:`descent.words`. Waits for Redis as long as there is an outcome to
        store; else raises redis's error, and the next call finds what this one may have claimed.
        """
        execution = self.unsure or os.urandom(16).hex()

        def attempt() -> NamedTurn:
            lost = self._lost_claim(execution)
            return NamedTurn(lost) if lost else self._descend(done, named, execution, seconds)

        try:
            found = attempt() if done is None else patiently(attempt, self._away)
        except AWAY:
            self.unsure = execution
            raise
        if found.turn.answer is Answer.JOB:
            self.execution = execution
        self.unsure = ""
        self._resting = False
        return found

    def _descend(
        self, done: Finish | None, named: Sequence[Word], execution: str, seconds: float
    ) -> NamedTurn:
        counters = self._count(seconds) if done is not None else _NO_JOB
        words = self._words(now(), True, counters, done or NOTHING, execution)
        try:
            found = descent.read(self._call(descent.SCRIPT, *words, *named))
        except ResponseError as error:
            found = NamedTurn(self._reopen(done, error))
        if done is not None and found.turn.answer not in (Answer.FENCED, Answer.DEPENDENTS):
            self._counters = counters
        if found.turn.answer is Answer.JOB:
            self._refreshed_at = time.time()
        return found

    def _words(
        self,
        moment: tuple[str, str],
        refresh: bool,
        counters: tuple[int, float],
        outcome: Sequence[Word],
        execution: str,
    ) -> tuple[Word, ...]:
        """Return what the scripts take that claim one job to run at once."""
        return (*self._head(moment, refresh), *counters, *outcome, execution)

    def _head(self, moment: tuple[str, str], refresh: bool) -> tuple[Word, ...]:
        """Return what every script of a turn takes; *moment* is in seconds, and as RQ writes it."""
        return (self._worker, *moment, self.lease_cap, self._idle_ttl, int(refresh))

    def _call(self, script: str, *words: Word) -> Any:
        """Run *script* and return its reply; load it again if the server has lost it."""
        try:
            return self._connection.call(*self._connection.run(script), *words)
        except NoScriptError:
            self._connection.forget_scripts()
            return self._connection.call(*self._connection.run(script), *words)

    def recount(self) -> None:
        """Learn the worker's counters anew: somebody else stored an outcome in its name."""
        self._counters = None

    def still_ours(self, job_id: str) -> bool:
        """Return whether the job's execution is still open, as soon as Redis says and takes in."""
        key = f"rq:worker:{self._worker}"

        def attempt() -> bool:
            if not self._connection.open:
                self._connect()
            replies = self._connection.call_all(
                ("HSET", key, "last_heartbeat", stamp(time.time())),
                ("EXPIRE", key, self._idle_ttl),
                ("EXISTS", f"rq:execution:{job_id}:{self.execution}"),
            )
            return bool([self._connection.checked(reply) for reply in replies][-1])

        return patiently(attempt, self._away)

    @property
    def notified(self) -> bool:
        """Whether the server has told of a change since the last turn."""
        return self._connection.notified

    @property
    def told(self) -> bool:
        """Whether the server tells of changes; if not, somebody has to look."""
        return self._connection.abilities.tracking

    def listen(self, seconds: float, *others: int) -> list[int]:
        """Wait for *seconds* at most until a watched queue changes or one of *others* is readable.

        Returns which of the *other* descriptors are.
        """
        return self._connection.listen(seconds, *others)

    def look(self, queues: Sequence[str]) -> bool:
        """Return whether anything waits in *queues*; the server goes on telling of changes.

        Cheaper than a turn, for a worker that will probably come too late.
        """
        self._connection.notified = False
        commands = [CACHING] if self.told else []
        replies = self._connection.call_all(*commands, ("EXISTS", *keys_of(queues)))
        return bool(self._connection.checked(replies[-1]))

    def close(self) -> None:
        """Leave the server; raise redis's error where a claim may have been made, unheard."""
        self._connection.close()
        if self.unsure:
            raise RedisConnectionError("a job may have been claimed, for all that is known")

    def _count(self, seconds: float) -> tuple[int, float]:
        """Return the worker's counters with one more job of *seconds*."""
        jobs, worked = self._counters or self._learn_counters()
        return (jobs + 1, worked + seconds)

    def _learn_counters(self) -> tuple[int, float]:
        names = ("successful_job_count", "total_working_time")
        jobs, worked = self._connection.call("HMGET", f"rq:worker:{self._worker}", *names)
        self._counters = (int(jobs or 0), float(worked or 0))
        return self._counters

    def _begin_turn(
        self,
        done: Finish | None,
        queues: Sequence[str],
        execution: str,
        seconds: float,
        moment: tuple[str, str] | None = None,
    ) -> _Asked:
        """Begin a turn; one that claims only asks to be told of changes of *queues*."""
        refresh = time.time() - self._refreshed_at > REFRESH
        outcome: Sequence[Word]
        if done is not None:
            counters, outcome, before = self._count(seconds), done, b""
            after = self._watch(queues) if self.watching and queues else b""
        else:
            counters, outcome = _NO_JOB, NOTHING if self._resting else UNREST
            before, after = self._connection.caching, b""
        run = self._connection.run(SCRIPT, keys_of(queues) if done is None else ())
        words = self._words(moment or now(), refresh, counters, outcome, execution)
        packet = before + packed(*run, *words, *queues)
        asked = self._asked = _Asked(execution, refresh, counters, int(bool(before)), after)
        self._connection.notified, self.watching = False, done is None
        self._connection.post(packet)
        return asked

    def _watch(self, queues: Sequence[str]) -> bytes:
        """Return what asks whether anything is in *queues*, and to be told of changes."""
        if queues != self._watched[0]:
            self._watched = (queues, packed("EXISTS", *keys_of(queues)))
        return self._connection.caching + self._watched[1]

    def _end_turn(self, asked: _Asked, done: Finish | None) -> Turn:
        """Return what became of a turn."""
        self._asked = None
        if asked.after:
            self._connection.post(asked.after)
        more = 1 + self.told if asked.after else 0
        replies = self._connection.replies(asked.before + 1 + more)
        try:
            turn = read(self._connection.checked(replies[asked.before]))
        except NoScriptError:
            raise
        except ResponseError as error:
            turn = self._reopen(done, error)
        if done is not None and turn.answer not in (Answer.FENCED, Answer.DEPENDENTS):
            self._counters = asked.counters
        if asked.after:
            count = self._connection.checked(replies[-1])
            self.watching = turn.answer is Answer.EMPTY and count == 0
        if asked.refresh and turn.answer is Answer.JOB:
            self._refreshed_at = time.time()
        return turn

    def _reopen(self, done: Finish | None, error: ResponseError) -> Turn:
        """Leave an outcome to RQ that the script could store in part only: a key is no such key."""
        if done is None or "WRONGTYPE" not in str(error):
            raise error
        key = f"rq:execution:{done.job_id}:{done.execution_id}"
        self._connection.call("HSET", key, "id", done.execution_id, "worker_name", self._worker)
        return Turn(Answer.DEPENDENTS)

    def cut_off_others(self) -> None:
        """Have the server close all other connections of this worker."""
        self._connection.cut_off_others()

    def _connect(self) -> None:
        """Connect, and learn anew what the server may have forgotten."""
        self._connection.connect()
        self.recount()

    def _lost_claim(self, execution: str) -> Turn | None:
        """Connect if need be; return the job that was claimed before the connection was lost."""
        if self._connection.open:
            return None
        self._connect()
        job_id = claimed(self._connection.call, self._worker, execution)
        return None if job_id is None else self._found(job_id)

    def _found(self, job_id: bytes) -> Turn:
        """Return the turn that claimed *job_id*."""
        reply: Any = self._connection.call("HGETALL", b"rq:job:" + job_id)
        if isinstance(reply, dict):
            reply = [word for pair in reply.items() for word in pair]
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        origin = fields.get(b"origin", b"").decode(errors="replace")
        return Turn(Answer.JOB, origin, job_id, (), reply)
