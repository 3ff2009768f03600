"""Interrupts while jobs run inside one another: which job is meant, and when it may be told."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rq.executions import Execution
from rq.job import Job, get_current_job

from pysplash.jobs.commands import Command
from pysplash.jobs.rq import current_job_ids

from .claims import Claims
from .supervised import Supervised
from .timeouts import Overtaken, Timers

#: seconds for which a stop counts that came before its job had begun: whoever sent it has seen the
#: claim in Redis before the worker has
EARLY = 2.0


class JobStopped(BaseException):
    """Raised in a job that somebody stopped; no ``except Exception`` keeps it."""


@dataclass(frozen=True, slots=True)
class Level:
    """A job that waits while another runs inside it, and what the worker knew of it."""

    job: Job
    execution_id: str
    execution: Execution | None
    failed: bool
    recursion_limit: int
    #: what it has changed of the process
    changes: Sequence[tuple[int, Any]] = ()


class Interrupts:
    """Stops jobs of *worker* at every level, and only where nothing is torn apart."""

    def __init__(self, worker: Supervised, claims: Claims, timers: Timers) -> None:
        self._worker = worker
        self._claims = claims
        self.timers = timers
        #: the jobs that wait while another runs inside them, outermost first
        self.outer: list[Level] = []
        #: whether the function of a job runs
        self.in_job = False
        self._blocked = False
        #: the monotonic time until which a pending interrupt counts; 0: there is none
        self._pending_until = 0.0
        #: the execution that a command named; empty: any
        self._stopped_execution = ""

    @property
    def at_work(self) -> bool:
        """Whether the worker is in the middle of a job."""
        return self.in_job or self._blocked or bool(self.outer)

    # --- levels ---

    def push(self, level: Level) -> None:
        """Let the job of *level* wait while another runs inside it."""
        self.outer.append(level)
        self.timers.level = len(self.outer)

    def pop(self) -> None:
        """Let the job that waited last go on."""
        self.outer.pop()
        self.timers.level = len(self.outer)

    # --- when ---

    def block(self) -> tuple[int, bool]:
        """Block interrupts, as what follows must not be cut short; return what undoes it."""
        before = (self.timers.block(), self.in_job)
        self.in_job, self._blocked = False, True
        return before

    def unblock(self, before: tuple[int, bool]) -> None:
        """Undo a :meth:`block`; deliver the interrupts that came meanwhile."""
        timers_before, self.in_job = before
        self._blocked = bool(self.outer) and not self.in_job
        self.timers.unblock(timers_before)
        if self.in_job:
            self._deliver()

    def allow(self) -> None:
        """Allow interrupts in the function of this job, those of outer jobs too."""
        if self.outer:
            self.timers.unblock(0)
        self._deliver()

    def forbid(self) -> None:
        """Block them again if other jobs wait around this one, whose function has ended."""
        if self.outer:
            self.timers.block()

    def _deliver(self) -> None:
        """Deliver a pending interrupt, if it is meant for what runs now."""
        if self._pending_until:
            until, self._pending_until = self._pending_until, 0.0
            if time.monotonic() < until:
                self._interrupt()
            self.forget()

    # --- which ---

    def stop_job(self, _signum: int, _frame: object) -> None:
        """Stop the job that is meant, now or when that is possible: a signal handler."""
        if self.in_job:
            self._interrupt()
            self.forget()
        elif self.outer or self._blocked:
            self._pending_until = math.inf
        elif self._is_named():
            self._pending_until = time.monotonic() + EARLY

    def leave_cold(self) -> None:
        """End all jobs, the innermost first, where one runs inside another."""
        if self.outer:
            raise Overtaken(0, SystemExit("cold stop"), "was ended by a cold stop")

    def name(self, command: Command) -> None:
        """Note which job a command asks to be stopped, at whatever level it runs."""
        worker = self._worker
        if not self._has(command):
            told = "not at work on job %s: %s ignored, unless it is about to begin"
            worker.log.warning(told, command.job_id, command.kind)
        worker._stopped_job_id = command.job_id
        self._stopped_execution = command.execution_id

    def forget(self) -> None:
        """Forget what was to be stopped: it is, or it is not what runs."""
        self._worker._stopped_job_id = None
        self._stopped_execution = ""

    def _interrupt(self) -> None:
        """End the job that is to be stopped, or all if none is named."""
        for number, level in enumerate(self.outer):
            if self._is_meant(level.job, level.execution_id):
                raise Overtaken(number, JobStopped(), "was stopped")
        job = get_current_job()
        if job is not None and self._is_meant(job, self._claims.execution):
            raise JobStopped

    def _is_meant(self, job: Job, execution_id: str) -> bool:
        worker, slot = self._worker, self._worker.slot
        if slot is not None:
            if not slot.to_stop(job.id, execution_id):
                return False
            worker._stopped_job_id = None if slot.to_stop_any() else job.id
        named = self._stopped_execution in ("", execution_id)
        return named and worker._stopped_job_id in (None, job.id)

    def _is_named(self) -> bool:
        """Whether some job is to be stopped, and not whatever runs."""
        slot = self._worker.slot
        if slot is not None:
            return not slot.to_stop_any()
        return self._worker._stopped_job_id is not None

    def _has(self, command: Command) -> bool:
        """Whether this worker is at the job, or the execution, that the command names."""
        if command.execution_id:
            held = [level.execution_id for level in self.outer]
            return command.execution_id in (*held, self._claims.execution)
        outer = [level.job.id for level in self.outer]
        return command.job_id in outer or command.job_id in current_job_ids(self._worker)
