"""Prefetching: while jobs are brief, they are claimed and stored in batches.

Between two jobs of some microseconds a worker would mostly wait for its server. So once a function
has been brief several times in a row, its worker claims several jobs at once, and stores what the
last ones returned in the same step, while a job of that function runs. Should one take longer after
all, wait for others, or the worker leave, what is not begun goes back to the front of its queue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from rq.job import Job

from pysplash.connections.outage import AWAY
from pysplash.jobs.claim_batch import MOST, SHARE, Reply, Request
from pysplash.jobs.claim_one import Answer, Finish, Turn
from pysplash.jobs.quarantine import described
from pysplash.log import logger

from .batch_claims import BatchingClaims
from .brevity import Brevity
from .interrupts import Interrupts
from .journal import SIDE
from .outcomes import Outcomes, Pending
from .supervised import Supervised
from .turns import OneByOne, queues_of

log = logger("worker")


class Prefetching:
    """The turns of *worker*, which claim and store brief jobs in batches, others one by one."""

    #: seconds after which a job that was taken to be brief keeps no other waiting
    foresight = 0.02
    #: seconds after which outcomes no longer wait for the rest of a batch
    delay = 0.001
    #: whether it is taken that many wait, also after a rest
    eager = False
    #: jobs in a batch at most, and after some had to be put back
    most, least = MOST, 1
    #: the part of what waits that is claimed at most, the others being for others, is 1 in so many
    share = SHARE

    def __init__(
        self,
        worker: Supervised,
        claims: BatchingClaims,
        outcomes: Outcomes,
        interrupts: Interrupts,
        one_by_one: OneByOne,
    ) -> None:
        self._worker = worker
        self._claims = claims
        self._outcomes = outcomes
        self._interrupts = interrupts
        self._timers = interrupts.timers
        self._one_by_one = one_by_one
        self.brevity = Brevity()
        #: jobs claimed and not begun
        self._hand: deque[Turn] = deque()
        #: how many are claimed next of many that wait, whether many did when last looked, and how
        #: many were asked for then
        self._reach, self._deep, self._wanted = 1, False, 0
        #: whether jobs came several at once lately: a lone one is claimed by itself
        self._crowded = False
        #: outcomes that wait for the next turn; those that are on their way
        self._shelved: list[Pending] = []
        self._leaving_shelf: list[Pending] = []
        #: those that RQ has to store, or nobody
        self._unseen: list[tuple[Answer, Pending]] = []
        #: whether one of them is just being stored
        self._seeing = False
        #: the job that runs as "job:execution", and whether it has no record of its execution
        self._present, self.light = "", False
        #: the monotonic time of the last turn, and the function of the job beside which it was
        self._turned_at = 0.0
        self._hoped = ""

    # --- between jobs ---

    def next(self) -> Turn:
        """Store what was left, and return the next job: one in hand, or a new one."""
        self._timers.callback = None
        return self._in_hand() or self._take_turn(queues_of(self._worker))

    def left(self, pending: Pending, function: str) -> None:
        """Keep what a job of *function* left; have it stored at once if the worker goes on."""
        self._one_by_one.left(pending, queues_of(self._worker) if self._goes_on() else None)
        self._note(pending.done)
        self._hoped = function
        self.brevity.learn(function, pending.seconds)

    def has_more(self) -> bool:
        """Whether another job follows at once, as far as is known."""
        return bool(self._hand) or self._claims.under_way

    def is_batch_next(self) -> bool:
        """Whether the next turn is a batch's: only that stores what was left, or many may come."""
        pending = self._one_by_one.pending
        light = pending is not None and pending.light
        return bool(self._shelved) or light or self._is_hasty()

    def drop_present(self) -> None:
        """Forget a job that cannot be run."""
        self.light = False

    def close(self) -> None:
        """Put back what is not begun, and have stored what is done."""
        if self._in_batch():
            self._shelve()
            self._worker._insist(lambda: self._settle_down(alone=True))
        self._see_behind()
        if self._one_by_one.pending is not None:
            self._take_turn(())

    def _goes_on(self) -> bool:
        """Whether the turn that stores the outcome may be taken at once."""
        worker = self._worker
        if self._interrupts.outer or worker._last or self._in_batch() or self._is_hasty():
            return False
        return self._claims.may_ask and not worker._leaving()

    def _take_turn(self, queues: Sequence[str]) -> Turn:
        """Store what was left and claim the next job from *queues*, or the next ones."""
        if not self._claims.asked and self.is_batch_next():
            return self._exchange(queues)
        return self._one_by_one.next(queues)

    def _in_hand(self) -> Turn | None:
        """Return the next job that is in hand, or was claimed while the last one ran."""
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
        self.light = turn.light
        return turn

    # --- as a job begins ---

    def prepare(self, job: Job, function: str) -> bool:
        """Return whether *job* is brief; where it is not, see to it that it keeps none waiting."""
        brief = self._is_brief(job, function)
        if not brief and self._in_batch():
            self._catch_up(job)
        return brief

    def run_beside(self, job: Job, function: str) -> None:
        """Claim more and store what is done, while *job* runs, which is brief."""
        now = time.monotonic()
        self._present = f"{job.id}:{self._claims.execution}"
        self._hoped = function
        if not self.light:  # it came with the turn that stored the one before
            self._crowded, self._deep = True, self.brevity.handful(self.most // 2) == 1
        late = bool(self._shelved) and now - self._turned_at > self.delay
        if late:
            self._collect()
            self._see_behind()
        many = self._deep or self.eager
        if not self._claims.under_way and (late or (many and len(self._hand) < self.most)):
            self._send(want=True)
        due = max(now + self.delay, self._turned_at + 2 * self.delay)
        self._timers.callback = (due, self._flush)

    def _catch_up(self, job: Job) -> None:
        """Keep no other waiting for *job*, which is not brief, and have it on record."""
        self._present = f"{job.id}:{self._claims.execution}"
        self._worker._insist(self._settle_down)
        self._see_behind()

    # --- while a job runs ---

    def _flush(self) -> None:
        """Let no outcome wait any longer for the job that runs."""
        self._timers.callback = (time.monotonic() + self.foresight, self._surrender)
        if self._shelved:
            self._try(self._send_shelved)

    def _send_shelved(self) -> None:
        self._gather()
        self._send()

    def _surrender(self) -> None:
        """Keep nobody waiting: the job that runs is not brief."""
        self.brevity.forget(self._hoped)
        self._try(self._settle_down)

    def _try(self, call: Callable[[], None]) -> None:
        before = self._interrupts.cover()
        try:
            call()
        except AWAY as error:
            log.debug("worker %s: nothing is put back, Redis is away: %s", self._worker.name, error)
        except Exception as error:
            log.error("worker %s: nothing is put back: %s", self._worker.name, described(error))
        finally:
            self._interrupts.uncover(before)

    def clear_way(self) -> None:
        """Have stored what is before the job that RQ is to store, and that one on record."""
        if self._seeing:
            return
        self._collect()
        if self.light or self._shelved:
            self._send(record=self.light)
            self._collect()
        self._see_behind()

    def make_way(self) -> None:
        """Keep no job waiting while the one that runs waits for others."""
        if self._in_batch() or self._unseen:
            before = self._interrupts.cover()
            try:
                self._timers.callback = None
                self._settle_down()
                self._see_behind()
            finally:
                self._interrupts.uncover(before)

    # --- outcomes ---

    def _note(self, done: Finish) -> None:
        """Write an outcome down where it outlives this worker, or have it stored at once."""
        slot = self._worker.slot
        if slot is None or self._interrupts.outer:
            return
        if len(done.value) < SIDE and slot.journal.note(done):
            return
        if self._in_batch():
            self._shelve()
            self._collect()
            self._send()

    def _shelve(self) -> None:
        """Keep the last outcome for the next turn."""
        pending = self._one_by_one.take()
        if pending is not None:
            self._shelved.append(pending)
        self.light = False

    def _in_batch(self) -> bool:
        """Whether anything is claimed, or to be stored, that only a batch's turn sees to."""
        return bool(self.light or self._hand or self._shelved or self._claims.under_way)

    def _see_behind(self) -> None:
        """See to what a turn did not store, before anything later is stored."""
        if self._unseen and not self._seeing:
            self._collect()
        while self._unseen and not self._seeing:
            answer, outcome = self._unseen[0]
            self._seeing = True
            try:
                self._outcomes.settle_earlier(Turn(answer), outcome)
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
        reach = max(self._reach if deep else self.brevity.handful(self.most // 2), self.least)
        wanted = self._wanted = reach if want and len(self._hand) < reach else 0
        returned = self._clear_hand() if back else ()
        present = "" if alone else self._present
        outcomes = self._leaving_shelf = self._shelve_out()
        request = Request(
            [outcome.done for outcome in outcomes],
            "".join("01"[outcome.light] for outcome in outcomes),
            sum(outcome.seconds for outcome in outcomes),
            returned,
            present,
            record,
            self._held_beside(present),
            wanted,
            self.share if deep else 1,
            queues_of(self._worker) if wanted else (),
        )
        if record:
            self.light = False
        self._turned_at = time.monotonic()
        self._claims.send(request)

    def _clear_hand(self) -> Sequence[str]:
        """Return what is in hand, and have it no more."""
        returned = [turn.entry for turn in self._hand]
        if returned:
            self._reach = 1
        self._hand.clear()
        return returned

    def _shelve_out(self) -> list[Pending]:
        """Return the outcomes that are on their way from now on."""
        outcomes, self._shelved = self._shelved, []
        slot = self._worker.slot
        if slot is not None:
            slot.journal.turn()
            for _, outcome in self._unseen:
                slot.journal.note(outcome.done)
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
            self._deep = len(reply.jobs) >= min(self._wanted, self.brevity.handful(self.most // 2))
        self._hand.extend(reply.jobs)
        if reply.skipped:
            self._outcomes.settle(Turn(reply.answer, skipped=reply.skipped), None)

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
        if self.light or self._hand or self._shelved:
            self._send(alone=alone, back=True, record=self.light and not alone)
            self._gather()

    # --- what to expect ---

    def _is_brief(self, job: Job, function: str) -> bool:
        """Return whether *job* will probably be over before others could be fetched.

        Not the first after a rest: there is probably no other, and its result is waited for.
        """
        if self._claims.watching and not self.eager:
            return False
        worker = self._worker
        known = self.brevity.is_brief(function) and worker._seconds(job) is not None
        return known and worker.slot is not None and self._is_free()

    def _is_hasty(self) -> bool:
        """Whether several jobs will probably come at once, as brief as the last ones were."""
        if not self._crowded or self.eager or not self._is_free():
            return False
        return self.brevity.is_brief(self._hoped) and self._worker.slot is not None

    def _is_free(self) -> bool:
        """Whether no job waits around the next one, and the worker is to go on."""
        return not self._interrupts.outer and not self._worker._stop_requested
