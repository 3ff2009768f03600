"""What makes any RQ worker class fit for a pool.

:class:`Supervised` keeps RQ's bookkeeping, writes the worker's state to the scoreboard, and its
stop handler only sets a flag, so that a stop can never fall between taking a job off its queue
and starting it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import ReadOnlyError, ResponseError
from rq.command import handle_command
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.exceptions import DequeueTimeout, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.utils import now
from rq.worker import BaseWorker, DequeueStrategy, SimpleWorker, WorkerStatus

from pysplash.connections.outage import AWAY, LONGEST_PAUSE, patiently, pause
from pysplash.host.footprint import own_footprint
from pysplash.jobs.commands import Command, understand
from pysplash.jobs.quarantine import clean, described, set_aside
from pysplash.jobs.rq import held, hold
from pysplash.log import logger

from . import signals
from .announcements import Announcing, announce_worker
from .database import close_stale
from .forked import end_if_forked, forget_worker, note_worker
from .process_state import ProcessState, is_new
from .scoreboard import Slot

#: seconds an idle worker blocks before it looks at its stop flag
BLOCK = 1
#: seconds between two refreshes of an idle worker's key in Redis
HEARTBEAT = 15.0

T = TypeVar("T")
log = logger("worker")


class Supervised(Announcing):
    """What makes an RQ worker class fit for a pool; mixed in before the class it completes."""

    #: this worker's row; None where no pool watches
    slot: Slot | None = None
    #: the process this worker must not outlive; None: no such bond
    parent_pid: int | None = None
    max_age: float | None = None
    max_job_memory: int | None = None
    #: jobs nested in one another from which a waiting one first looks for another worker
    max_nesting = 100
    #: what becomes of a job that cannot go on for no fault of its own: "fail" or "requeue"
    on_crash = "fail"

    _stop_signal_at: float | None = None
    #: whether a job that was claimed by a turn runs through RQ's methods: the turns see to the rest
    _is_hooked = False
    _storing_success = False
    #: whether the worker may leave after the job that comes next, or runs
    _may_be_last = False
    _memory_floor = 0
    _heartbeat_at = 0.0
    _began_at = 0.0
    #: what this process was like before its first job
    _process_state: ProcessState | None = None

    @property
    def dequeue_timeout(self) -> int:
        """Seconds one wait for a job may block; a dead connection is noticed 10 s later."""
        return BLOCK

    def _set_ip_address(self, connection: Redis) -> None:
        """Name the connection and learn its address, without a list of all clients."""
        try:
            connection.client_setname(self.name)
            self.ip_address = str(connection.client_info().get("addr", "unknown"))
        except ResponseError:
            self.ip_address = "unknown"

    # --- stopping ---

    def _install_signal_handlers(self) -> None:
        signals.handle_stops(self.request_stop)
        if isinstance(self, SimpleWorker):
            note_worker()

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Ask for a warm stop: set a flag, nothing else.

        A worker without a pool takes a second signal, more than a second later, for a cold stop
        and leaves its job through SystemExit, which RQ stores as the job's failure. A class with
        something of its own to do at a warm stop, as RQ's HerokuWorker, does it.
        """
        signals.stop(self)
        if type(self).handle_warm_shutdown_request is not BaseWorker.handle_warm_shutdown_request:
            self.handle_warm_shutdown_request()

    def _may_leave_cold(self) -> bool:
        return self.slot is None and self._at_work()

    def _at_work(self) -> bool:
        """Whether a job's own code may be running."""
        return self.get_state() == WorkerStatus.BUSY

    def _leave_cold(self) -> None:
        """End the job by an exception in it."""
        raise SystemExit("cold stop")

    def _leaving(self) -> bool:
        """Whether this worker takes no further job."""
        orphaned = self.parent_pid is not None and os.getppid() != self.parent_pid
        told = self.slot is not None and self.slot.to_leave()
        return self._stop_requested or orphaned or told

    def _reason_to_recycle(self) -> str:
        """Say why this worker should be recycled; empty if it should not."""
        if self.max_age is not None and time.monotonic() - self._began_at >= self.max_age:
            return f"it is older than {self.max_age:.0f} s"
        if self.max_job_memory is not None:
            growth = own_footprint() - self._memory_floor
            if growth > self.max_job_memory:
                return f"it has grown by {growth} bytes"
        return self._process_state.broken if self._process_state and self.slot is not None else ""

    def _tidy(self, function: str, *, imported: bool = False) -> None:
        """See to what a job of *function* has left behind; *imported*: its module was new."""
        end_if_forked(function)
        if self._process_state is not None:
            self._may_be_last |= not self._process_state.tidy(function, imported=imported)

    # --- the loop ---

    def work(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Take and run jobs until stopped; as RQ's, but an absent Redis is waited for.

        Returns whether any job was run.
        """
        self._began_at = time.monotonic()
        self._install_signal_handlers()
        if not self._patiently(lambda: self.bootstrap(logging_level, date_format, log_format)):
            self._leave_registered()
            return False
        announce_worker(self)
        self._dequeue_strategy = dequeue_strategy
        if with_scheduler:
            self._start_scheduler(burst, logging_level, date_format, log_format)
        if self.max_job_memory is not None:
            self._memory_floor = own_footprint()
        self._patiently(self._maintain)
        self._process_state = ProcessState()
        done = 0
        limited = self.max_age is not None or self.max_job_memory is not None
        try:
            self._may_be_last = limited or max_jobs == 1
            while self._turn(burst, max_idle_time):
                done += 1
                self._may_be_last = limited or done + 1 == max_jobs
                reason = f"{done} jobs are done" if done == max_jobs else self._reason_to_recycle()
                if reason:
                    log.info("worker %s leaves: %s", self.name, reason, extra={"action": "recycle"})
                    break
        finally:
            self._depart()
        return bool(done)

    def _depart(self) -> None:
        if self.slot is not None:
            self.slot.stopping()
        forget_worker()
        if self._process_state is not None:
            self._process_state.close()
        try:
            self.teardown()
        except AWAY as error:
            log.warning("worker %s cannot deregister, Redis is away: %s", self.name, error)
            self._leave_registered()

    def _leave_registered(self) -> None:
        if self.slot is not None:
            self.slot.unsaid()

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Carry out a command; one that makes no sense ends no subscription, as it does in RQ."""
        command = understand(message)
        if command is not None:
            self._obey(command)

    def _obey(self, command: Command) -> None:
        ids = {"job_id": command.job_id, "execution_id": command.execution_id}
        handle_command(self, {"command": command.kind, **ids})

    def unsubscribe(self) -> None:
        """Leave the command channel; RQ's order of these calls costs a second half of the time."""
        if self.pubsub_thread is not None and self.pubsub is not None:
            self.pubsub_thread.stop()
            self.pubsub.unsubscribe()
            self.pubsub_thread.join(timeout=1)
            self.pubsub.close()

    def _turn(self, burst: bool, max_idle_time: int | None) -> bool:
        """Take and run one job; False where there is none to come, or none to be taken."""
        result = self.dequeue_job_and_maintain_ttl(None if burst else BLOCK, max_idle_time)
        if result is None:
            return False
        self.execute_job(*result)
        return True

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a job in short blocks, looking at the stop flag between them."""
        idle_since = time.monotonic()
        self._patiently(lambda: self.set_state(WorkerStatus.IDLE))
        self.procline("Listening on " + ",".join(self.queue_names()))
        while not self._leaving():
            if self.slot is not None:
                self.slot.idle()
            try:
                self._maintain()
                self.check_for_suspension(timeout is None)
                found = self._pop(timeout)
            except StopRequested:
                return None
            except DequeueTimeout:
                if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                    return None
                if self.max_age is not None and self._reason_to_recycle():
                    return None
            except AWAY as error:
                self._redis_is_away(error)
            else:
                return found
        return None

    def _pop(self, timeout: int | None) -> tuple[Job, Queue] | None:
        """Take one job; one that cannot be read is set aside, and the next is taken."""
        while True:
            try:
                found = self.queue_class.dequeue_any(
                    self._ordered_queues,
                    timeout,
                    connection=self.connection,
                    job_class=self.job_class,
                    serializer=self.serializer,
                    death_penalty_class=self.death_penalty_class,
                )
            except (DequeueTimeout, *AWAY):
                raise
            except Exception as error:
                if not hasattr(error, "job_id"):
                    raise
                queue, job_id = vars(error)["queue"], vars(error)["job_id"]
                removal = ("LREM", queue.intermediate_queue_key, 1, job_id)
                set_aside(self.connection, queue.name, job_id.encode(), described(error), removal)
                continue
            if found is not None:
                job, queue = found
                if self.slot is not None:
                    self.slot.claimed(job.id, self._seconds(job))
                    self.slot.runs(self._function(job))
                self.reorder_queues(reference_queue=queue)
                job.redis_server_version = self.get_redis_server_version()
                self._announce(job, queue)
            return found

    def _function(self, job: Job) -> str:
        """Return what the job calls; one that cannot be read fails when it is run."""
        try:
            return job.func_name or ""
        except BaseException:  # a pickle may even ask to end the process
            return ""

    def _announce(self, job: Job, queue: Queue) -> None:
        what = job.description if self.log_job_description else "a job"
        self.log.info("Worker %s: %s: %s (%s)", self.name, queue.name, what, job.id)

    def _seconds(self, job: Job) -> float | None:
        """Seconds the job may run; None where it has no limit."""
        seconds = job.timeout or self.queue_class.DEFAULT_TIMEOUT
        return None if seconds < 0 else float(seconds)

    def clean_registries(self) -> None:
        """Clean the registries of each queue that nobody else is cleaning."""
        for queue in self.queues:
            clean(queue, self)
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def _maintain(self) -> None:
        if self.should_run_maintenance_tasks:
            self._clean_up()
        if time.monotonic() - self._heartbeat_at >= HEARTBEAT:
            self._heartbeat_at = time.monotonic()
            self._beat()

    def _beat(self) -> None:
        self.heartbeat()

    def _clean_up(self) -> None:
        try:
            self.run_maintenance_tasks()
        except AWAY:
            raise
        except Exception as error:
            log.error("worker %s cannot clean up: %s", self.name, described(error))

    # --- one job ---

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job as the class beneath does, its state on the scoreboard."""
        if self._is_hooked:
            super().execute_job(job, queue)
            return
        os.environ["RQ_JOB_ID"] = job.id
        self._job_failed = False
        close_stale()
        new = is_new(function := self._function(job))
        try:
            super().execute_job(job, queue)
        finally:
            self._tidy(function, imported=new)
            close_stale()
            os.environ.pop("RQ_JOB_ID", None)
            if self.slot is not None:
                self.slot.finished(self._job_failed)

    def prepare_execution(self, job: Job) -> Execution:
        """Register the job as started; it is in this worker's hands until Redis has taken it."""
        prepare = super().prepare_execution
        execution: Execution = self._insist(lambda: prepare(job))
        if self.slot is not None:
            self.slot.started(execution.id)
        return execution

    def handle_job_success(self, *args: Any, **kwargs: Any) -> None:
        """Let RQ store a success, again if a job has come to depend on this one meanwhile."""
        end_if_forked("")
        self._storing_success = True
        try:
            super().handle_job_success(*args, **kwargs)
        finally:
            self._storing_success = False
        hold(self, None)

    def cleanup_execution(self, *args: Any, **kwargs: Any) -> None:
        """Let RQ close the execution.

        RQ forgets it before it is closed for sure; when it then has to store a success again, the
        job would stay in the started registry, and be failed from there.
        """
        execution = held(self)
        super().cleanup_execution(*args, **kwargs)
        if self._storing_success:
            hold(self, execution)

    # --- while Redis is away ---

    def _insist(self, call: Callable[[], T]) -> T:
        """Return what *call* returns once Redis is there to answer, however long that takes."""
        return patiently(call, self._redis_is_away)

    def _patiently(self, call: Callable[[], object]) -> bool:
        """Call *call* until Redis is there to answer; False if the worker is to leave first."""

        def attempt() -> bool:
            if self._leaving():
                return False
            call()
            return True

        return self._insist(attempt)

    def _redis_is_away(self, error: Exception, seconds: float = LONGEST_PAUSE / 4) -> float:
        """Show a sign of life and pause; return the seconds of the next pause."""
        if self.slot is not None:
            self.slot.beat()
        log.debug("worker %s: Redis is away: %s", self.name, error)
        if isinstance(error, ReadOnlyError):
            self.connection.connection_pool.disconnect()  # another server may be the primary now
        pause(error, seconds)
        return min(LONGEST_PAUSE, 2 * seconds)
