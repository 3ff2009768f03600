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
from pysplash.jobs.quarantine import described
from pysplash.jobs.store_and_claim import Answer, Finish, Turn
from pysplash.jobs.store_and_claim_batch import MOST, SHARE, BatchRequest, Reply
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

    #: seconds that a job taken to be brief may run before what is claimed beside it is put back
    put_back_after = 0.02
    #: seconds that an outcome waits at most for the rest of its batch
    store_after = 0.001
    #: whether to assume that many jobs wait, also after a rest
    assume_many = False
    #: jobs in a batch at most, and at least
    most, least = MOST, 1
    #: one job in so many of those that wait is claimed at most; the others are for other workers
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
        self._claimed: deque[Turn] = deque()
        #: how many to claim of many that wait, whether many did lately, and how many were wanted
        self._batch_size, self._many_wait, self._asked_for = 1, False, 0
        #: whether several came at once lately: a lone one is claimed by itself
        self._several_came = False
        #: outcomes that wait for the next turn; those that are on their way
        self._unsent: list[Pending] = []
        self._sent: list[Pending] = []
        #: those that RQ has to store, or nobody
        self._unstored: list[tuple[Answer, Pending]] = []
        #: whether one of them is just being stored
        self._storing = False
        #: the job that runs as "job:execution", and whether it has no record of its execution
        self._present, self.light = "", False
        #: the monotonic time of the last turn, and the function of the job beside which it was
        self._sent_at = 0.0
        self._function = ""

    # --- between jobs ---

    def next(self) -> Turn:
        """Store what was left, and return the next job: one that is claimed already, or another."""
        self._timers.callback = None
        return self._next_claimed() or self._take_turn(queues_of(self._worker))

    def left(self, pending: Pending, function: str) -> None:
        """Keep what a job of *function* left; have it stored at once if the worker goes on."""
        self._one_by_one.left(pending, queues_of(self._worker) if self._goes_on() else None)
        self._note(pending.done)
        self._function = function
        self.brevity.learn(function, pending.seconds)

    def has_more(self) -> bool:
        """Whether another job follows at once, as far as is known."""
        return bool(self._claimed) or self._claims.under_way

    def is_batch_next(self) -> bool:
        """Whether the next turn is a batch's: only that stores what was left, or many may come."""
        pending = self._one_by_one.pending
        light = pending is not None and pending.light
        return bool(self._unsent) or light or self._expects_several()

    def drop(self) -> None:
        """Forget a job that cannot be run."""
        self.light = False

    def close(self) -> None:
        """Store the outcomes and put back what is claimed, as the worker leaves."""
        if self._in_batch():
            self._keep_pending()
            self._worker._insist(lambda: self._store_and_put_back(alone=True))
        self._store_rest()
        if self._one_by_one.pending is not None:
            self._take_turn(())

    def _goes_on(self) -> bool:
        """Whether the turn that stores the outcome may be taken at once."""
        worker, in_batch = self._worker, self._in_batch() or self._expects_several()
        if in_batch or self._interrupts.outer or worker._may_be_last:
            return False
        return self._claims.may_ask and not worker._leaving()

    def _take_turn(self, queues: Sequence[str]) -> Turn:
        """Store what was left and claim the next job from *queues*, or the next ones."""
        if not self._claims.asked and self.is_batch_next():
            return self._take_batch(queues)
        return self._one_by_one.next(queues)

    def _next_claimed(self) -> Turn | None:
        """Return the next job of those claimed, also while the last one ran."""
        if not self._in_batch():
            return None
        self._keep_pending()
        if not self._claimed:
            self._collect()
        if self._unstored:
            self._store_rest()
        if not self._claimed:
            return None
        turn = self._claimed.popleft()
        self._claims.execution = turn.execution
        self.light = turn.light
        return turn

    # --- as a job begins ---

    def prepare(self, job: Job, function: str) -> bool:
        """Return whether *job* is brief; if not, put back what is claimed and have it on record."""
        brief = self._is_brief(job, function)
        if not brief and self._in_batch():
            self._present = f"{job.id}:{self._claims.execution}"
            self._worker._insist(self._store_and_put_back)
            self._store_rest()
        return brief

    def look_ahead(self, job: Job, function: str) -> None:
        """Claim more jobs and store outcomes while *job* runs, which is brief."""
        now = time.monotonic()
        self._present = f"{job.id}:{self._claims.execution}"
        self._function = function
        if not self.light:  # it came with the turn that stored the one before
            self._several_came, self._many_wait = True, self._handful() == 1
        late = bool(self._unsent) and now - self._sent_at > self.store_after
        if late:
            self._collect()
            self._store_rest()
        many = self._many_wait or self.assume_many
        if not self._claims.under_way and (late or (many and len(self._claimed) < self.most)):
            self._send(want=True)
        due = max(now + self.store_after, self._sent_at + 2 * self.store_after)
        self._timers.callback = (due, self._store_unsent)

    # --- while a job runs ---

    def _store_unsent(self) -> None:
        """Store the outcomes that wait: the job that runs takes longer than they may."""
        self._timers.callback = (time.monotonic() + self.put_back_after, self._put_back)
        if self._unsent:
            self._try(self._send_unsent)

    def _send_unsent(self) -> None:
        self._gather()
        self._send()

    def _put_back(self) -> None:
        """Put back what is claimed: the job that runs is not brief."""
        self.brevity.forget(self._function)
        self._try(self._store_and_put_back)

    def _try(self, call: Callable[[], None]) -> None:
        before = self._interrupts.block()
        try:
            call()
        except AWAY as error:
            log.debug(
                "worker %s: jobs are not put back, Redis is away: %s", self._worker.name, error
            )
        except Exception as error:
            log.error("worker %s: jobs cannot be put back: %s", self._worker.name, described(error))
        finally:
            self._interrupts.unblock(before)

    def clear_way(self) -> None:
        """Store what ended before the job that RQ is to store, and have that job on record."""
        if self._storing:
            return
        self._collect()
        if self.light or self._unsent:
            self._send(record=self.light)
            self._collect()
        self._store_rest()

    def make_way(self) -> None:
        """Put back what is claimed, as the job that runs waits for others."""
        if self._in_batch() or self._unstored:
            before = self._interrupts.block()
            try:
                self._timers.callback = None
                self._store_and_put_back()
                self._store_rest()
            finally:
                self._interrupts.unblock(before)

    # --- outcomes ---

    def _note(self, done: Finish) -> None:
        """Write an outcome to the journal; where that has no room, have it stored at once."""
        slot = self._worker.slot
        if slot is None or self._interrupts.outer:
            return
        if len(done.value) < SIDE and slot.journal.note(done):
            return
        if self._in_batch():
            self._keep_pending()
            self._collect()
            self._send()

    def _keep_pending(self) -> None:
        """Keep what the last job left for the next batch."""
        pending = self._one_by_one.take()
        if pending is not None:
            self._unsent.append(pending)
        self.light = False

    def _in_batch(self) -> bool:
        """Whether anything is claimed, or to be stored, that only a batch's turn sees to."""
        return bool(self.light or self._claimed or self._unsent or self._claims.under_way)

    def _store_rest(self) -> None:
        """Have RQ store what the script did not, before anything later is stored."""
        if self._unstored and not self._storing:
            self._collect()
        while self._unstored and not self._storing:
            answer, outcome = self._unstored[0]
            self._storing = True
            try:
                self._outcomes.settle_earlier(Turn(answer), outcome)
            finally:
                self._storing = False
                del self._unstored[0]

    # --- turns ---

    def _send(
        self, *, want: bool = False, alone: bool = False, back: bool = False, record: bool = False
    ) -> None:
        """Send the outcomes that wait; *want* more jobs, put *back* those claimed, or both.

        *record* the execution of the job that runs, unless the worker is *alone*, without one.
        """
        many = self._many_wait or self.assume_many
        size = max(self._batch_size if many else self._handful(), self.least)
        wanted = self._asked_for = size if want and len(self._claimed) < size else 0
        returned = self._take_claimed() if back else ()
        present = "" if alone else self._present
        outcomes = self._sent = self._take_unsent()
        request = BatchRequest(
            [outcome.done for outcome in outcomes],
            "".join("01"[outcome.light] for outcome in outcomes),
            sum(outcome.seconds for outcome in outcomes),
            returned,
            present,
            record,
            self._entries(present),
            wanted,
            self.share if many else 1,
            queues_of(self._worker) if wanted else (),
        )
        if record:
            self.light = False
        self._sent_at = time.monotonic()
        self._claims.send(request)

    def _take_claimed(self) -> Sequence[str]:
        """Return the entries of the jobs that are put back."""
        returned = [turn.entry for turn in self._claimed]
        if returned:
            self._batch_size = 1
        self._claimed.clear()
        return returned

    def _take_unsent(self) -> list[Pending]:
        """Return the outcomes to send, and let the journal begin its other side."""
        outcomes, self._unsent = self._unsent, []
        slot = self._worker.slot
        if slot is not None:
            slot.journal.switch()
            for _, outcome in self._unstored:
                slot.journal.note(outcome.done)
        return outcomes

    def _entries(self, present: str) -> str:
        """Return the entries to settle if this worker died, *present* first."""
        if not present:
            return ""
        unstored = [f"{it.done.job_id}:{it.done.execution_id}" for _, it in self._unstored]
        return " ".join([present, *(turn.entry for turn in self._claimed), *unstored])

    def _take_in(self, reply: Reply) -> None:
        """Note what a reply says: which jobs are claimed, and which outcomes RQ has to store."""
        outcomes, self._sent = self._sent, []
        for answer, outcome in zip(reply.outcomes, outcomes, strict=True):
            if answer is not Answer.EMPTY:
                self._unstored.append((answer, outcome))
        if len(reply.jobs) >= self._batch_size:
            self._batch_size = min(self.most, 2 * self._batch_size)
        if self._asked_for:
            self._many_wait = len(reply.jobs) >= min(self._asked_for, self._handful())
        self._claimed.extend(reply.jobs)
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

    def _take_batch(self, queues: Sequence[str]) -> Turn:
        """Store all outcomes, and claim from *queues* what comes next."""
        self._keep_pending()
        rested = not self._unsent
        self._send(want=bool(queues), alone=True)
        reply = self._collect()
        assert reply is not None
        if rested and len(reply.jobs) == 1:
            self._several_came = self._many_wait = False
        # What RQ stores may put others on a queue that was found empty before.
        answer = reply.answer
        if self._unstored:
            answer, self._claims.watching = self._unstored[0][0], False
        self._store_rest()
        return self._next_claimed() or Turn(answer, skipped=reply.skipped)

    def _store_and_put_back(self, *, alone: bool = False) -> None:
        """Store the outcomes, put back what is claimed, and have what runs on record.

        Raise redis's error if it is away; then call again.
        """
        self._gather()
        if self.light or self._claimed or self._unsent:
            self._send(alone=alone, back=True, record=self.light and not alone)
            self._gather()

    # --- what to expect ---

    def _handful(self) -> int:
        """Return how many jobs to claim at once where few wait."""
        return self.brevity.handful(self.most // 2)

    def _is_brief(self, job: Job, function: str) -> bool:
        """Return whether *job* will probably be over before others could be fetched.

        Not the first after a rest: there is probably no other, and its result is waited for.
        """
        if self._claims.watching and not self.assume_many:
            return False
        worker = self._worker
        known = self.brevity.is_brief(function) and worker._seconds(job) is not None
        return known and worker.slot is not None and self._is_free()

    def _expects_several(self) -> bool:
        """Whether several jobs will probably come at once, as brief as the last ones were."""
        if not self._several_came or self.assume_many or not self._is_free():
            return False
        return self.brevity.is_brief(self._function) and self._worker.slot is not None

    def _is_free(self) -> bool:
        """Whether no job waits around the next one, and the worker is to go on."""
        return not self._interrupts.outer and not self._worker._stop_requested
