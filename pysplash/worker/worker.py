"""The worker: RQ's bookkeeping at one round trip a job.

A turn (:mod:`pysplash.jobs.store_and_claim`) stores what one job returned and claims the next. What
a turn does not cover goes through RQ's own methods: failures, ``Retry``, callbacks, dependents,
repeats, webhooks, results that cannot be serialised or are not kept, and classes of the user's own.
:meth:`Worker._finish` is the one place that chooses; the debug log says what it chose.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from redis import Redis
from rq.job import Job, JobStatus, Retry
from rq.queue import Queue
from rq.timeouts import JobTimeoutException
from rq.worker import SimpleWorker, WorkerStatus

from pysplash.connections.clients import check_prefix, native
from pysplash.connections.outage import AWAY
from pysplash.events import JOB_FINISHED, JOB_STARTED
from pysplash.jobs.commands import NAMED, Command
from pysplash.jobs.quarantine import Quarantine
from pysplash.jobs.restoring import called, written
from pysplash.jobs.results import MAX_RESULT, SETTLED, SETTLES, portrait, serialised
from pysplash.jobs.rq import enter, hold, leave, perform, run
from pysplash.jobs.store_and_claim import MOST_SECONDS, Answer, Finish, Turn
from pysplash.log import logger
from pysplash.waiting.offer import at_hand, offer

from .announcements import announce_return, announce_start
from .batch_claims import BatchingClaims
from .database import close_stale
from .forked import note_worker
from .hooked_run import HookedRun
from .hooks import Hooks, HookWatch
from .idling import Idling
from .interrupts import Interrupts
from .nesting import Nest
from .outcomes import Outcomes, Pending
from .oversize import LARGE
from .prefetch import Prefetching
from .process_state import is_new
from .reading import ClaimedJobs
from .rq_way import over_redis_py, way_of
from .signals import WakeUp, handle_job_stops, stop_own_job
from .supervised import Supervised
from .timeouts import TIMERS, StackingDeathPenalty
from .turns import OneByOne, queues_of

#: longest lease in seconds, 60 s aside, that a worker takes whose pool renews it
LEASE = 30
#: longest time in seconds an idle worker listens before it asks again by itself
LISTEN = 10.0
#: seconds between two looks at a suspended RQ
SUSPENDED = 1.0
log = logger("worker")


class Worker(Supervised, SimpleWorker):
    """An RQ worker that runs each job in its own process and never loses one to a stop.

    Usable in a pool, alone, and with ``rq worker -w pysplash.Worker``.
    """

    death_penalty_class = StackingDeathPenalty
    max_result = MAX_RESULT
    #: why everything is left to RQ's own code; empty if it is not
    _rq_way = ""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.queues = over_redis_py(self.queues)
        self._ordered_queues = self.queues[:]
        self._claims = BatchingClaims(
            self.connection,
            self.name,
            idle_ttl=self.worker_ttl + 60,
            leaving=self._leaving,
            away=self._redis_is_away,
        )
        self._quarantine = Quarantine(self.connection, self.name, self._insist)
        self._read = ClaimedJobs(self, self._claims, self._quarantine)
        self._wake_up = WakeUp()
        self._idling = Idling(self._claims, self._leaving, self._wake_up)
        self._build()
        self._plain = self.queue_class is Queue and self.job_class is Job

    def _build(self) -> None:
        """Make the parts; each knows those before it."""
        self._interrupts = Interrupts(self, self._claims, TIMERS)
        self._outcomes = Outcomes(
            self, self._claims, self._quarantine, self._interrupts, self._clear_way
        )
        common = (self, self._claims, self._outcomes)
        one_by_one = OneByOne(*common)
        self._turns = Prefetching(*common, self._interrupts, one_by_one)
        self._nest = Nest(*common, self._interrupts, one_by_one, self._turns, self._run)
        self._hooks = HookWatch(self, self._note_hooks)
        self._hooked = HookedRun(
            self, self._interrupts, self._outcomes, self._nest.fail, self._function_of
        )

    def _clear_way(self) -> None:
        self._turns.clear_way()

    # --- the loop ---

    def _set_connection(self, connection: Any) -> Redis:
        """Set the timeout as RQ does, of redis-py's client to wherever *connection* leads."""
        client: Redis = super()._set_connection(native(connection))
        return client

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()
        offer(self._nest)
        self._wake_up.open()
        handle_job_stops(self._interrupts.stop_job)
        note_worker()

    def bootstrap(self, *arguments: Any, **settings: Any) -> None:
        """Register as RQ does; in a pool, leave heartbeats and commands to the pool.

        Raises :class:`~pysplash.errors.ConfigError` where RQ's keys have another prefix,
        :class:`~pysplash.errors.ConnectionFailed` for a server that cannot be used.
        """
        check_prefix()
        self._rq_way = way_of(self, in_pool=self.slot is not None)
        super().bootstrap(*arguments, **settings)
        if self._rq_way:
            offer(None)
            log.info("worker %s runs jobs in RQ's own way: %s", self.name, self._rq_way)
        if self.slot is not None:
            self._claims.lease_cap = LEASE
            self.slot.listens = True
            self._disconnect()

    def subscribe(self) -> None:
        """Hear commands over a connection and a thread of its own, if no pool does."""
        if self.slot is None:
            super().subscribe()  # type: ignore[no-untyped-call]

    def _beat(self) -> None:
        if self.slot is None:
            super()._beat()

    def _disconnect(self) -> None:
        """Close RQ's connection until somebody needs it; the claims have one of their own."""
        self.connection.connection_pool.disconnect(inuse_connections=False)

    def teardown(self) -> None:
        """Store what is done, leave the server, then tear down as RQ does."""
        self._turns.close()
        self._wake_up.close()
        self._claims.close()
        if at_hand() is self._nest:
            offer(None)
        self._nest.close()
        super().teardown()  # type: ignore[no-untyped-call]

    def _turn(self, burst: bool, max_idle_time: int | None) -> bool:
        """Claim and run one job; False where there is none to come."""
        if self._rq_way:
            return super()._turn(burst, max_idle_time)
        idle_since = time.monotonic()
        while self._claims.asked or not self._leaving():
            turn = self._turns.next()
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
            if self._idle_too_long(idle_since, max_idle_time):
                return False
            self._wait_for_work(turn, idle_since, max_idle_time)
        return False

    def _idle_too_long(self, idle_since: float, max_idle_time: int | None) -> bool:
        idle = time.monotonic() - idle_since
        too_long = max_idle_time is not None and idle >= max_idle_time
        return too_long or (self.max_age is not None and bool(self._reason_to_recycle()))

    def _wait_for_work(self, turn: Turn, idle_since: float, max_idle_time: int | None) -> None:
        """Wait until a queue has changed, a signal came, or it is time to look anyway."""
        self._state = WorkerStatus.IDLE
        seconds = SUSPENDED if turn.answer is Answer.SUSPENDED else LISTEN
        ends = [self._began_at + self.max_age] if self.max_age is not None else []
        if max_idle_time is not None:
            ends.append(idle_since + max_idle_time)
        if ends:
            seconds = max(0.01, min(seconds, min(ends) - time.monotonic()))
        queues, hasty = queues_of(self), self._turns.is_batch_next()
        self._read.prepare()
        if self._process_state is not None:
            self._process_state.tidy_all()
        try:
            self._maintain()
            self._claims.prepare()
            heard = self._idling.wait(time.monotonic() + seconds, queues, self.slot, idle_since)
            if heard and not hasty:
                self._claims.ask(None, queues)
            elif self.slot is not None and not self._claims.notified:
                self._disconnect()
        except AWAY as error:
            self._redis_is_away(error)

    # --- one job ---

    def _run(self, turn: Turn) -> bool:
        """Run a claimed job to its stored or storable outcome; False if it cannot be read."""
        try:
            job, special = self._read.read(turn)
        except Exception as error:
            self._read.set_aside(turn, error)
            self._turns.drop()
            return False
        queue = self._read.queue(turn.queue)
        job.worker_name = self.name
        job._status = JobStatus.STARTED
        hold(self, None)
        function = self._function(job)
        brief = self._turns.prepare(job, function)
        self._job_failed = False
        if self.slot is not None:
            self.slot.claimed(job.id, self._seconds(job), self._claims.execution)
            self.slot.runs(function)
        self.reorder_queues(reference_queue=queue)
        if self.log.isEnabledFor(20):
            self._announce(job, queue)
        os.environb[b"RQ_JOB_ID"] = turn.job_id
        if JOB_STARTED:
            announce_start(self, job)
        if brief:
            self._turns.look_ahead(job, function)
        lost = False
        self._look_after_database()
        try:
            self._hooks.look()
            if self._plain and not self._hooks.hooks.around:
                self._perform(job, queue, special, function)
            else:
                self._perform_by_rq(job, queue, special, function)
        except AWAY:
            # The row goes on to name the job, for the pool to settle.
            lost = not self._interrupts.outer
            raise
        except Exception as error:
            self._outcomes.give_up(job, queue, error)
        finally:
            self._look_after_database()
            if self.slot is not None and not lost:
                self.slot.finished(self._job_failed, more=self._turns.has_more())
        return True

    def _perform_by_rq(self, job: Job, queue: Queue, special: bool, function: str) -> None:
        """Have RQ's own methods run a job, as they are patched, or for classes of the user's."""
        if self._plain:
            self._hooked.run(job, queue, function, partial(self._store, special))
            return
        log.debug("job %s: slow: a class of the user's own", job.id)
        hold(self, self._outcomes.execution(job))
        self._claims.recount()
        new = is_new(function)
        perform(self, job, queue)
        self._tidy(function, imported=new)

    def _look_after_database(self) -> None:
        """Close connections that are broken or too old; not under a job that waits."""
        if not self._interrupts.outer:
            close_stale()

    def _perform(self, job: Job, queue: Queue, slow: bool, function: str) -> None:
        began = time.time_ns() // 1000
        job.started_at = datetime.fromtimestamp(began / 1e6, UTC)
        before = portrait(job)
        timeout = job.timeout or self.queue_class.DEFAULT_TIMEOUT
        try:
            try:
                with self.death_penalty_class(timeout, JobTimeoutException, job_id=job._id):
                    value = self._call(job)
            finally:
                self._tidy(function)
            self._store(slow, job, queue, value, began, portrait(job) != before)
        except BaseException:
            self._nest.fail(job, queue)
            self._tidy(function)  # callbacks are the user's, too

    def _store(
        self, slow: bool, job: Job, queue: Queue, value: Any, began: int, changed: bool
    ) -> None:
        """Store what a job returned, unless it has done so itself."""
        if value is SETTLED:
            self._claims.recount()
            announce_return(self, job)
        else:
            slow = slow or changed or bool(self._hooks.hooks.storing)
            self._finish(job, queue, value, began, slow)

    def _note_hooks(self, hooks: Hooks) -> None:
        """Say which methods of RQ are patched, and see that they are called."""
        self._hooked.note(hooks)
        if hooks.around or hooks.storing:
            log.info("RQ's methods are called, as they are patched: %s", ", ".join(hooks.called))
        for name in hooks.never_called:
            log.warning("%s is patched and never called: this worker does not fork", name)

    def _call(self, job: Job) -> Any:
        """Call the job's function as RQ's perform does; the key was persisted with the claim."""
        entered, interrupts = enter(job), self._interrupts
        interrupts.in_job = True
        settles = SETTLES.set(True)
        try:
            interrupts.allow()
            function = self._function_of(job)
            result = function(*job.args, **job.kwargs)
            if asyncio.iscoroutine(result):
                return run(result)
            return result
        finally:
            SETTLES.reset(settles)
            interrupts.in_job = False
            interrupts.forbid()
            leave(entered)

    def _function_of(self, job: Job) -> Any:
        """Return what a job calls; what its module sets up as it is imported may stay."""
        function = called(job)
        if self._process_state is not None:
            self._process_state.adopt()
        return function

    def _finish(self, job: Job, queue: Queue, value: Any, began: int, slow: bool) -> None:
        """Make the outcome ready for the next turn, or let RQ store it now.

        *began* is in microseconds since the epoch.
        """
        ended = time.time_ns() // 1000
        kept = self.default_result_ttl if job.result_ttl is None else job.result_ttl
        ttl, payload = min(kept, MOST_SECONDS), None
        if not (slow or isinstance(value, Retry) or ttl == 0 or ttl < -1):
            payload = serialised(job, value, self.max_result)
        if payload is None or len(payload) >= LARGE:  # what is large may be refused
            log.debug("job %s: slow: RQ stores it", job.id)
            self._outcomes.finish(job, queue, value)
            self._tidy(self._function(job))
            return
        execution, depends = self._claims.execution, "1" if job._dependency_ids else ""
        (began_at, started_at), (over_at, ended_at) = written(began), written(ended)
        moments = (started_at, ended_at, payload, began_at, over_at)
        done = Finish(job.id, execution, job.origin, ttl, *moments, depends)
        seconds = (ended - began) / 1e6
        pending = Pending(done, job, queue, value, seconds, self._turns.light)
        self._turns.left(pending, job.func_name or "")
        if JOB_FINISHED:
            announce_return(self, job, seconds)

    # --- stops and commands ---

    @property
    def horse_pid(self) -> int:
        """Return this process's id while a job runs in it: what RQ's commands are to reach."""
        return os.getpid() if self._interrupts.at_work else 0

    def kill_horse(self, sig: signal.Signals = signal.SIGUSR1) -> None:
        """Interrupt the running job, as RQ's stop-job and kill-horse ask."""
        stop_own_job()

    def _obey(self, command: Command) -> None:
        """Stop any of the jobs that run inside one another, where RQ looks at one only."""
        if command.kind in NAMED:
            self._interrupts.name(command)
            self.kill_horse()
        else:
            super()._obey(command)

    def _at_work(self) -> bool:
        return self._interrupts.in_job

    def _leave_cold(self) -> None:
        self._interrupts.leave_cold()
        super()._leave_cold()
