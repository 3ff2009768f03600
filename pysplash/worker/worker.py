"""The worker: RQ's bookkeeping at one round trip a job.

A turn (:mod:`pysplash.jobs.claim_one`) stores what one job returned and claims the next. What a
turn does not cover goes through RQ's own methods: failures, ``Retry``, callbacks, dependents,
repeats, webhooks, results that cannot be serialised or are not kept, and classes of the user's own.
:meth:`Worker._finish` is the one place that chooses; the debug log says what it chose.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rq.executions import Execution
from rq.job import Job, JobStatus, Retry
from rq.queue import Queue
from rq.timeouts import JobTimeoutException
from rq.worker import SimpleWorker, WorkerStatus

from pysplash.connections.clients import check_prefix
from pysplash.connections.outage import AWAY
from pysplash.jobs.claim_one import MOST_SECONDS, Answer, Finish, Turn
from pysplash.jobs.quarantine import Quarantine, described, is_kept, reason
from pysplash.jobs.restoring import Restorer, called, written
from pysplash.jobs.results import MAX_RESULT, SETTLED, SETTLES, portrait, serialised
from pysplash.jobs.rq import enter, held, hold, leave, perform, run
from pysplash.log import logger

from .batch_claims import BatchingClaims
from .idling import Idling
from .outcomes import Pending
from .prefetch import Prefetching
from .timeouts import StackingDeathPenalty

#: longest lease in seconds, 60 s aside, that a worker takes whose pool renews it
LEASE = 30
#: longest time in seconds an idle worker listens before it asks again by itself
LISTEN = 10.0
#: seconds between two looks at a suspended RQ
SUSPENDED = 1.0
#: fields of a job's hash that make its success RQ's business
SLOW_FIELDS = (b"success_callback_name", b"webhooks", b"repeats_left", b"rate_limit_key")
#: methods a subclass may have made its own; then they are called
OVERRIDABLE = ("execute_job", "perform_job", "handle_job_success", "prepare_job_execution")

log = logger("worker")


def _is_special(fields: dict[bytes, bytes]) -> bool:
    """Return whether a job's hash makes its success RQ's business."""
    return b"created_at" not in fields or any(fields.get(name) for name in SLOW_FIELDS)


class Worker(Prefetching, SimpleWorker):
    """An RQ worker that runs each job in its own process and never loses one to a stop.

    Usable in a pool, alone, and with ``rq worker -w pysplash.Worker``.
    """

    death_penalty_class = StackingDeathPenalty
    max_result = MAX_RESULT

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._claims = BatchingClaims(
            self.connection,
            self.name,
            idle_ttl=self.worker_ttl + 60,
            leaving=self._leaving,
            away=self._redis_is_away,
        )
        self._restorer = Restorer(self.connection, self.serializer)
        self._watch = Idling(self._claims, self._leaving)
        self._in_job = False
        self._quarantine = Quarantine(self.connection, self.name, self._insist)
        own = type(self)
        self._plain = (
            self.queue_class is Queue
            and self.job_class is Job
            and all(
                getattr(own, name) in (getattr(Worker, name), getattr(SimpleWorker, name))
                for name in OVERRIDABLE
            )
        )

    # --- the loop ---

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()
        self._watch.open()
        signal.signal(signal.SIGUSR1, self._stop_job)

    def bootstrap(self, *arguments: Any, **settings: Any) -> None:
        """Register as RQ does; in a pool, leave heartbeats and commands to the pool.

        Raises :class:`ConfigError` where RQ's keys have a prefix of the user's own.
        """
        check_prefix()
        super().bootstrap(*arguments, **settings)
        if self.slot is not None:
            self._claims.lease_cap = LEASE
            self.slot.listens = True
            self._hang_up()

    def subscribe(self) -> None:
        """Hear commands over a connection and a thread of its own, if no pool does."""
        if self.slot is None:
            super().subscribe()  # type: ignore[no-untyped-call]

    def _beat(self) -> None:
        if self.slot is None:
            super()._beat()

    def _hang_up(self) -> None:
        """Close RQ's connection until somebody needs it; the claims have one of their own."""
        self.connection.connection_pool.disconnect(inuse_connections=False)

    def teardown(self) -> None:
        """Store what is done, leave the server, then RQ's own farewell."""
        self._let_go()
        if self._pending is not None:
            self._take_turn([])
        self._watch.close()
        self._claims.close()
        super().teardown()

    def _turn(self, burst: bool, max_idle_time: int | None) -> bool:
        """Claim and run one job; False where there is none to come."""
        idle_since = time.monotonic()
        while self._claims.asked or not self._leaving():
            turn = self._in_hand() or self._take_turn(self._names())
            if turn.answer is Answer.JOB:
                if self._run(turn):
                    return True
                continue
            if turn.moved:
                continue
            if burst and turn.answer in (Answer.EMPTY, Answer.SUSPENDED):
                return False
            if not self._claims.watching:
                continue
            if self.slot is not None:
                self.slot.idle()
            if self._bored(idle_since, max_idle_time):
                return False
            self._rest(turn, idle_since, max_idle_time)
        return False

    def _bored(self, idle_since: float, max_idle_time: int | None) -> bool:
        idle = time.monotonic() - idle_since
        too_long = max_idle_time is not None and idle >= max_idle_time
        return too_long or (self.max_age is not None and bool(self._worn_out()))

    def _rest(self, turn: Turn, idle_since: float, max_idle_time: int | None) -> None:
        """Wait until a queue has changed, a signal came, or it is time to look anyway."""
        self._state = WorkerStatus.IDLE
        seconds = SUSPENDED if turn.answer is Answer.SUSPENDED else LISTEN
        ends = [self._born + self.max_age] if self.max_age is not None else []
        if max_idle_time is not None:
            ends.append(idle_since + max_idle_time)
        if ends:
            seconds = max(0.01, min(seconds, min(ends) - time.monotonic()))
        queues, hasty = self._names(), self._has_shelved()
        self._restorer.prepare()
        try:
            self._maintain()
            self._claims.prepare()
            heard = self._watch.wait(time.monotonic() + seconds, queues, self.slot)
            if heard and not hasty:
                self._claims.ask(None, queues)
            elif self.slot is not None and not self._claims.rung:
                self._hang_up()
        except AWAY as error:
            self._redis_is_away(error)

    def _names(self) -> list[str]:
        return [queue.name for queue in self._ordered_queues]

    # --- one turn ---

    def _take_turn(self, queues: list[str]) -> Turn:
        """Store the last outcome and claim the next job from *queues*, or the next ones."""
        if not self._claims.asked and self._has_shelved():
            return self._exchange(queues)
        pending, self._pending = self._pending, None
        if pending is None:
            turn = self._claims.take(None, queues)
        else:
            turn = self._claims.take(pending.done, queues, pending.seconds)
            self._wipe()
        if turn.answer is not Answer.JOB or turn.skipped:
            self._settle_turn(turn, pending)
        return turn

    def _settle_turn(self, turn: Turn, pending: Pending | None) -> None:
        """See to what a turn did not store, and tell what it passed over."""
        if turn.answer is Answer.DEPENDENTS and pending is not None:
            job, queue = pending.job, pending.queue
            log.debug("job %s: slow: it is not for one script", job.id)
            try:
                self._finish_by_rq(job, queue, pending.value)
            except Exception:
                self._fail(job, queue)
        elif turn.answer is Answer.FENCED and pending is not None:
            job_id = pending.done.job_id
            log.warning(
                "job %s was settled meanwhile; what it returned is dropped",
                job_id,
                extra={"action": "fenced", "job": job_id},
            )
        if turn.skipped:
            self._quarantine.pass_over(turn.skipped)

    # --- one job ---

    def _run(self, turn: Turn) -> bool:
        """Run a claimed job to its stored or storable outcome; False if it cannot be read."""
        try:
            job, special = self._restored(turn)
        except Exception as error:
            self._set_claim_aside(turn, error)
            self._drop_present()
            return False
        queue = self._queue(turn.queue)
        job.worker_name = self.name
        job._status = JobStatus.STARTED
        hold(self, None)
        function = self._function(job)
        brief = self._is_brief(job, function)
        if not brief and self._in_batch():
            self._catch_up(job)
        self._job_failed = False
        if self.slot is not None:
            self.slot.claimed(job.id, self._seconds(job), self._claims.execution)
            self.slot.runs(function)
        self.reorder_queues(reference_queue=queue)
        if self.log.isEnabledFor(20):
            self._announce(job, queue)
        os.environb[b"RQ_JOB_ID"] = turn.job_id
        if brief:
            self._look_ahead(job, function)
        lost = False
        try:
            if self._plain:
                self._perform(job, queue, special)
            else:
                log.debug("job %s: slow: a class of the user's own", job.id)
                hold(self, self._execution(job))
                self._claims.recount()
                perform(self, job, queue)
        except AWAY:
            lost = not self._outer  # the row goes on to name the job, for the pool to settle
            raise
        except Exception as error:
            self._give_up(job, queue, error)
        finally:
            if self.slot is not None and not lost:
                self.slot.finished(self._job_failed, more=self._has_more())
        return True

    def _set_claim_aside(self, turn: Turn, error: Exception) -> None:
        fields = turn.hash()
        why = reason(lambda some: self._restore(turn.job_id, some), fields, error)
        self._quarantine.let_go(turn.queue, turn.job_id, self._claims.execution, fields, why)

    def _restored(self, turn: Turn) -> tuple[Job, bool]:
        """Return a claimed job, and whether its success is RQ's business."""
        if self.job_class is Job:
            plain = self._restorer.restore_plain(turn.job_id.decode(), turn.raw)
            if plain is not None:
                return plain, False
        fields = turn.hash()
        return self._restore(turn.job_id, fields), _is_special(fields)

    def _restore(self, raw_id: bytes, fields: Mapping[bytes, bytes]) -> Job:
        job_id = raw_id.decode()
        if self.job_class is Job:
            job = self._restorer.restore(job_id, fields)
        else:
            job = self.job_class(job_id, connection=self.connection, serializer=self.serializer)
            job.restore(fields)
        self._seconds(job)  # raises for a timeout of three hundred digits
        return job

    def _queue(self, name: str) -> Queue:
        for queue in self.queues:
            if queue.name == name:
                return queue
        return self.queue_class(name, connection=self.connection, serializer=self.serializer)

    def _execution(self, job: Job) -> Execution:
        execution = Execution(self._claims.execution, job.id, self.connection)
        execution.worker_name = self.name
        return execution

    def _perform(self, job: Job, queue: Queue, slow: bool) -> None:
        began = time.time_ns() // 1000
        job.started_at = datetime.fromtimestamp(began / 1e6, UTC)
        before = portrait(job)
        timeout = job.timeout or self.queue_class.DEFAULT_TIMEOUT
        try:
            with self.death_penalty_class(timeout, JobTimeoutException, job_id=job._id):
                value = self._call(job)
            if value is SETTLED:
                self._claims.recount()
                return
            self._finish(job, queue, value, began, slow or portrait(job) != before)
        except BaseException:
            self._fail(job, queue)

    def _call(self, job: Job) -> Any:
        """Call the job's function as RQ's perform does; the key was persisted with the claim."""
        entered = enter(job)
        self._in_job = True
        settles = SETTLES.set(True)
        try:
            self._open()
            result = called(job)(*job.args, **job.kwargs)
            if asyncio.iscoroutine(result):
                return run(result)
            return result
        finally:
            SETTLES.reset(settles)
            self._in_job = False
            if self._outer:
                self._shut()
            leave(entered)

    def _finish(self, job: Job, queue: Queue, value: Any, began: int, slow: bool) -> None:
        """Make the outcome ready for the next turn, or let RQ store it now.

        *began* is in microseconds since the epoch.
        """
        ended = time.time_ns() // 1000
        kept = self.default_result_ttl if job.result_ttl is None else job.result_ttl
        ttl, payload = min(kept, MOST_SECONDS), None
        if not (slow or isinstance(value, Retry) or ttl == 0 or ttl < -1):
            payload = serialised(job, value, self.max_result)
        if payload is None:
            log.debug("job %s: slow: RQ stores it", job.id)
            self._finish_by_rq(job, queue, value)
            return
        execution, depends = self._claims.execution, "1" if job._dependency_ids else ""
        (began_at, started_at), (over_at, ended_at) = written(began), written(ended)
        moments = (started_at, ended_at, payload, began_at, over_at)
        done = Finish(job.id, execution, job.origin, ttl, *moments, depends)
        seconds = (ended - began) / 1e6
        self._pending = Pending(done, job, queue, value, seconds, self._light)
        if self._goes_on():
            self._claims.ask(done, self._names(), seconds)
        self._note(done)
        self._learn(job.func_name or "", seconds)

    def _goes_on(self) -> bool:
        """Whether the turn that stores the outcome may be taken at once."""
        if self._outer or self._last or self._in_batch() or self._is_hasty():
            return False
        return self._claims.may_ask and not self._leaving()

    def _may_store(self, job: Job) -> bool:
        """See to the outcome before; then say whether the execution is still this worker's."""
        self._clear_way()
        self._claims.recount()
        ours = self._claims.still_ours(job.id)
        if not ours:
            hold(self, None)
        elif held(self) is None:
            hold(self, self._execution(job))
        return ours

    def _cut_off(self) -> None:
        self._insist(self._claims.cut_off_others)

    def _give_up(self, job: Job, queue: Queue, error: Exception) -> None:
        """Set a job aside whose outcome RQ's own code cannot store, unless it is kept all the same.

        Where Redis refuses one command of several, the others have been carried out.
        """
        why = f"its outcome cannot be stored ({described(error)})"
        if not self._insist(lambda: is_kept(self.connection, job.origin, job.id)):
            fields = {b"origin": job.origin.encode()}
            self._quarantine.let_go(
                queue.name, job.id.encode(), self._claims.execution, fields, why
            )
        else:
            log.error("job %s: %s", job.id, why, extra={"action": "outcome", "job": job.id})
        hold(self, None)
        self._job_failed = True

    # --- commands ---

    def kill_horse(self, sig: signal.Signals = signal.SIGUSR1) -> None:
        """Interrupt the running job, as RQ's stop-job and kill-horse ask."""
        os.kill(os.getpid(), signal.SIGUSR1)
