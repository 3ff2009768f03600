"""Looking ahead: while jobs are brief, they are claimed and stored in batches.

Between two jobs of some microseconds a worker would mostly wait for its server. So once a function
has been brief several times in a row, its worker claims several jobs at once, and stores what the
last ones returned in the same step, while a job of that function runs. Should one take longer after
all, wait for others, or the worker leave, what is not begun goes back to the front of its queue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rq.job import Job

from pysplash.connections.outage import AWAY
from pysplash.jobs.claim_batch import MOST, SHARE, BatchRequest, Reply
from pysplash.jobs.claim_one import Answer, Finish, Turn
from pysplash.jobs.quarantine import described
from pysplash.log import logger
from pysplash.waiting.offer import Help, Search

from .batch_claims import BatchingClaims
from .journal import SIDE
from .nesting import Nesting
from .timeouts import StackingDeathPenalty

#: functions that are remembered
MOST_FUNCTIONS = 1000

log = logger("worker")


class _Outcome(NamedTuple):
    """What a job left: in the script's words, and for RQ where that has to store it."""

    done: Finish
    held: Any
    seconds: float
    light: bool


class LookingAhead(Nesting):
    """A worker that claims and stores brief jobs in batches."""

    #: seconds a brief job takes at most
    brief_seconds = 0.001
    #: jobs of a function that must have been brief in a row before the next is taken to be
    streak = 8
    #: seconds after which a job that was taken to be brief keeps no other waiting
    foresight = 0.02
    #: seconds after which outcomes no longer wait for the rest of a batch
    delay = 0.001
    #: seconds of jobs that a worker takes at once, however few wait: about what a turn costs
    handful_seconds = 0.0005
    #: whether it is taken that many wait, also after a rest
    eager = False
    #: jobs in a batch at most, and after some had to be put back
    most, least = MOST, 1
    #: the part of what waits that is claimed at most, the others being for others, is 1 in so many
    share = SHARE

    _claims: BatchingClaims

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        #: functions by name, and how often in a row they were brief
        self._streaks: dict[str, int] = {}
        #: jobs claimed and not begun
        self._hand: deque[Turn] = deque()
        #: how many are claimed next of many that wait, and whether many did when last looked
        self._reach, self._deep = 1, False
        #: the seconds jobs took lately, and how many were asked for last
        self._pace, self._wanted = self.brief_seconds, 0
        #: whether jobs came several at once lately: a lone one is claimed by itself
        self._crowded = False
        #: outcomes that wait for the next turn; those that are on their way
        self._shelved: list[_Outcome] = []
        self._leaving_shelf: list[_Outcome] = []
        #: those that RQ has to store, or nobody
        self._unseen: list[tuple[Answer, _Outcome]] = []
        #: whether one of them is just being stored
        self._seeing = False
        #: the job that runs as "job:execution", and whether it has no record of its execution
        self._present, self._light = "", False
        #: the monotonic time of the last turn, and the function of the job beside which it was
        self._turned_at = 0.0
        self._hoped = ""

    def _names(self) -> list[str]:
        """Return the queues to claim from, in order."""
        raise NotImplementedError

    # --- what is known of functions ---

    def _is_brief(self, job: Job, function: str) -> bool:
        """Return whether *job* will probably be over before others could be fetched.

        Not the first after a rest: there is probably no other, and its result is waited for.
        """
        if self._claims.watching and not self.eager:
            return False
        seconds = self._seconds(job)
        streak = self._streaks.get(function, 0)
        known = streak >= self.streak and seconds is not None and self.slot is not None
        return known and not self._outer and not self._stop_requested

    def _is_hasty(self) -> bool:
        """Whether several jobs will probably come at once, as brief as the last ones were."""
        if not self._crowded or self.eager or self._outer or self._stop_requested:
            return False
        return self._streaks.get(self._hoped, 0) >= self.streak and self.slot is not None

    def _handful(self) -> int:
        """Return how many jobs make up what a turn costs."""
        return max(1, min(self.most // 2, int(self.handful_seconds / max(self._pace, 1e-6))))

    def _learn(self, function: str, seconds: float) -> None:
        """Note how long a job of *function* took."""
        self._hoped = function
        self._pace += (min(seconds, self.brief_seconds) - self._pace) / 8
        if seconds >= self.brief_seconds:
            self._streaks.pop(function, None)
        elif function in self._streaks or len(self._streaks) < MOST_FUNCTIONS:
            self._streaks[function] = self._streaks.get(function, 0) + 1

    # --- outcomes ---

    def _note(self, done: Finish) -> None:
        """Write an outcome down where it outlives this worker, or have it stored at once."""
        if self.slot is None or self._outer:
            return
        if len(done.value) < SIDE and self.slot.slate.note(done):
            return
        if self._in_batch():
            self._shelve()
            self._collect()
            self._send()

    def _wipe(self) -> None:
        """Nothing is left of what was written down."""
        if self.slot is not None:
            self.slot.slate.wipe()

    def _shelve(self) -> None:
        """Keep the last outcome for the next turn."""
        if self._done is not None:
            self._shelved.append(_Outcome(self._done, self._held, self._took, self._light))
            self._done = self._held = None
        self._light = False

    def _has_shelved(self) -> bool:
        """Whether there are outcomes that only a batch's turn stores, or it is the one to take."""
        light = self._light and self._done is not None
        return bool(self._shelved) or light or self._is_hasty()

    def _in_batch(self) -> bool:
        """Whether anything is claimed, or to be stored, that only a batch's turn sees to."""
        return bool(self._light or self._hand or self._shelved or self._claims.under_way)

    def _see_behind(self) -> None:
        """See to what a turn did not store, before anything later is stored."""
        if self._unseen and not self._seeing:
            self._collect()
        while self._unseen and not self._seeing:
            answer, outcome = self._unseen[0]
            self._seeing = True
            try:
                self._see_to(Turn(answer), outcome.done, outcome.held)
            finally:
                self._seeing = False
                del self._unseen[0]

    # --- turns ---

    def _send(
        self, *, want: bool = False, alone: bool = False, back: bool = False, record: bool = False
    ) -> None:
        """Have stored what waits for it; *want* more, put *back* what is in hand, or both.

        *record* the execution of the job that runs, unless the worker is *alone*, without one.
        """
        deep = self._deep or self.eager
        reach = max(self._reach if deep else self._handful(), self.least)
        wanted = self._wanted = reach if want and len(self._hand) < reach else 0
        returned = self._clear_hand() if back else ()
        present = "" if alone else self._present
        outcomes = self._leaving_shelf = self._shelve_out()
        request = BatchRequest(
            [outcome.done for outcome in outcomes],
            "".join("01"[outcome.light] for outcome in outcomes),
            sum(outcome.seconds for outcome in outcomes),
            returned,
            present,
            record,
            self._held_beside(present),
            wanted,
            self.share if deep else 1,
            self._names() if wanted else (),
        )
        if record:
            self._light = False
        self._turned_at = time.monotonic()
        self._claims.send(request)

    def _clear_hand(self) -> Sequence[str]:
        """Return what is in hand, and have it no more."""
        returned = [turn.entry for turn in self._hand]
        if returned:
            self._reach = 1
        self._hand.clear()
        return returned

    def _shelve_out(self) -> list[_Outcome]:
        """Return the outcomes that are on their way from now on."""
        outcomes, self._shelved = self._shelved, []
        if self.slot is not None:
            self.slot.slate.turn()
            for _, outcome in self._unseen:
                self.slot.slate.note(outcome.done)
        return outcomes

    def _held_beside(self, present: str) -> str:
        """Return all that would have to be settled if this worker died, *present* first."""
        if not present:
            return ""
        unseen = [f"{it.done.job_id}:{it.done.execution_id}" for _, it in self._unseen]
        return " ".join([present, *(turn.entry for turn in self._hand), *unseen])

    def _take_in(self, reply: Reply) -> None:
        """Take an answer in: what is in hand now, and what is left to be seen to."""
        outcomes, self._leaving_shelf = self._leaving_shelf, []
        for answer, outcome in zip(reply.outcomes, outcomes, strict=True):
            if answer is not Answer.EMPTY:
                self._unseen.append((answer, outcome))
        if len(reply.jobs) >= self._reach:
            self._reach = min(self.most, 2 * self._reach)
        if self._wanted:
            self._deep = len(reply.jobs) >= min(self._wanted, self._handful())
        self._hand.extend(reply.jobs)
        if reply.skipped:
            self._settle_turn(Turn(reply.answer, skipped=reply.skipped), None, None)

    def _collect(self) -> Reply | None:
        """Take in the answer to what was sent, however long that takes."""
        reply = self._claims.collect()
        if reply is not None:
            self._take_in(reply)
        return reply

    def _gather(self) -> None:
        """Take in the answer to what was sent; raise redis's error if it is away."""
        reply = self._claims.gather()
        if reply is not None:
            self._take_in(reply)

    def _exchange(self, queues: Sequence[str]) -> Turn:
        """Store all outcomes, and claim from *queues* what comes next."""
        self._shelve()
        rested = not self._shelved
        self._send(want=bool(queues), alone=True)
        reply = self._collect()
        assert reply is not None
        if rested and len(reply.jobs) == 1:
            self._crowded = self._deep = False
        # What RQ stores may put others on a queue that was found empty before.
        answer = reply.answer
        if self._unseen:
            answer, self._claims.watching = self._unseen[0][0], False
        self._see_behind()
        return self._in_hand() or Turn(answer, skipped=reply.skipped)

    def _settle_down(self, *, alone: bool = False) -> None:
        """Store what is done, put back what is not begun, and have what runs on record.

        Raise redis's error if it is away; then call again.
        """
        self._gather()
        if self._light or self._hand or self._shelved:
            self._send(alone=alone, back=True, record=self._light and not alone)
            self._gather()

    # --- between jobs ---

    def _in_hand(self) -> Turn | None:
        """Return the next job that is in hand, or was claimed while the last one ran."""
        StackingDeathPenalty.errand = None
        if not self._in_batch():
            return None
        self._shelve()
        if not self._hand:
            self._collect()
        if self._unseen:
            self._see_behind()
        if not self._hand:
            return None
        turn = self._hand.popleft()
        self._claims.execution = turn.execution
        self._light = turn.light
        return turn

    def _has_more(self) -> bool:
        """Whether another job follows at once, as far as is known."""
        return bool(self._hand) or self._claims.under_way

    def _drop_present(self) -> None:
        """Forget a job that cannot be run."""
        self._light = False

    def _look_ahead(self, job: Job, function: str) -> None:
        """Claim more and store what is done, while *job* runs, which is brief."""
        now = time.monotonic()
        self._present = f"{job.id}:{self._claims.execution}"
        self._hoped = function
        if not self._light:  # it came with the turn that stored the one before
            self._crowded, self._deep = True, self._handful() == 1
        late = bool(self._shelved) and now - self._turned_at > self.delay
        if late:
            self._collect()
            self._see_behind()
        many = self._deep or self.eager
        if not self._claims.under_way and (late or (many and len(self._hand) < self.most)):
            self._send(want=True)
        due = max(now + self.delay, self._turned_at + 2 * self.delay)
        StackingDeathPenalty.errand = (due, self._flush)

    def _catch_up(self, job: Job) -> None:
        """Keep no other waiting for *job*, which is not brief, and have it on record."""
        self._present = f"{job.id}:{self._claims.execution}"
        self._insist(self._settle_down)
        self._see_behind()

    # --- while a job runs ---

    def _flush(self) -> None:
        """Let no outcome wait any longer for the job that runs."""
        StackingDeathPenalty.errand = (time.monotonic() + self.foresight, self._surrender)
        if self._shelved:
            self._try(self._send_shelved)

    def _send_shelved(self) -> None:
        self._gather()
        self._send()

    def _surrender(self) -> None:
        """Keep nobody waiting: the job that runs is not brief."""
        self._streaks.pop(self._hoped, None)
        self._try(self._settle_down)

    def _try(self, call: Callable[[], None]) -> None:
        before = self._cover()
        try:
            call()
        except AWAY as error:
            log.debug("worker %s: nothing is put back, Redis is away: %s", self.name, error)
        except Exception as error:
            log.error("worker %s: nothing is put back: %s", self.name, described(error))
        finally:
            self._uncover(before)

    def _clear_way(self) -> None:
        """Have stored what is before the job that RQ is to store, and that one on record."""
        if self._seeing:
            return
        self._collect()
        if self._light or self._shelved:
            self._send(record=self._light)
            self._collect()
        self._see_behind()

    def help(self, search: Search) -> Help:
        """Keep no job waiting while this one waits; then help."""
        if self._in_batch() or self._unseen:
            before = self._cover()
            try:
                StackingDeathPenalty.errand = None
                self._settle_down()
                self._see_behind()
            finally:
                self._uncover(before)
        return super().help(search)

    def _let_go(self) -> None:
        """Put back what is not begun, and have stored what is done."""
        if self._in_batch():
            self._shelve()
            self._insist(lambda: self._settle_down(alone=True))
        self._see_behind()
