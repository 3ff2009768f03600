"""Interrupts while jobs run inside one another: which job is meant, and when it may be told."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

from rq.executions import Execution
from rq.job import Job, get_current_job

from pysplash.jobs.commands import NAMED, Command
from pysplash.jobs.rq import current_job_ids

from .claims import Claims
from .outcomes import JobStopped, RQOutcomes
from .timeouts import Overtaken, shield, unshield

#: seconds for which a stop counts that came before its job had begun: whoever sent it has seen the
#: claim in Redis before the worker has
EARLY = 2.0


@dataclass(frozen=True, slots=True)
class Level:
    """A job that waits while another runs inside it, and what the worker knew of it."""

    job: Job
    execution_id: str
    execution: Execution | None
    failed: bool
    recursion_limit: int


class Interruptible(RQOutcomes):
    """A worker whose jobs can be stopped at every level, and only where nothing is torn apart."""

    _claims: Claims
    _in_job: bool

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._outer: list[Level] = []
        self._covered = False
        #: the monotonic time until which an interrupt counts that was put off
        self._put_off_until = 0.0
        #: the execution that a command named; empty: any
        self._stopped_execution = ""

    def _cover(self) -> tuple[int, bool]:
        """Keep interrupts back: what follows must not be cut short."""
        before = (shield(), self._in_job)
        self._in_job, self._covered = False, True
        return before

    def _uncover(self, before: tuple[int, bool]) -> None:
        """Let interrupts through again, those first that came meanwhile."""
        shielded, self._in_job = before
        self._covered = bool(self._outer) and not self._in_job
        unshield(shielded)
        if self._in_job:
            self._make_good()

    def _open(self) -> None:
        """Let interrupts through in the function of this job, those of outer jobs too."""
        if self._outer:
            unshield(0)
        self._make_good()

    def _shut(self) -> None:
        """Keep them back again."""
        shield()

    def _make_good(self) -> None:
        """Interrupt what runs now by what was put off, if it is meant."""
        if self._put_off_until:
            until, self._put_off_until = self._put_off_until, 0.0
            if time.monotonic() < until:
                self._interrupt()
            self._forget_stop()

    def _stop_job(self, _signum: int, _frame: object) -> None:
        if self._in_job:
            self._interrupt()
            self._forget_stop()
        elif self._outer or self._covered:
            self._put_off_until = math.inf
        elif self._is_named():
            self._put_off_until = time.monotonic() + EARLY

    def _interrupt(self) -> None:
        """End the job that is to be stopped, or all if none is named."""
        for number, level in enumerate(self._outer):
            if self._is_meant(level.job, level.execution_id):
                raise Overtaken(number, JobStopped(), "was stopped")
        job = get_current_job()
        if job is not None and self._is_meant(job, self._claims.execution):
            raise JobStopped

    def _is_meant(self, job: Job, execution_id: str) -> bool:
        if self.slot is not None:
            if not self.slot.to_stop(job.id, execution_id):
                return False
            self._stopped_job_id = None if self.slot.to_stop_any() else job.id
        named = self._stopped_execution in ("", execution_id)
        return named and self._stopped_job_id in (None, job.id)

    def _is_named(self) -> bool:
        """Whether some job is to be stopped, and not whatever runs."""
        if self.slot is not None:
            return not self.slot.to_stop_any()
        return self._stopped_job_id is not None

    def _forget_stop(self) -> None:
        super()._forget_stop()
        self._stopped_execution = ""

    def _at_work(self) -> bool:
        return self._in_job

    def _leave_cold(self) -> None:
        if self._outer:
            raise Overtaken(0, SystemExit("cold stop"), "was ended by a cold stop")
        super()._leave_cold()

    @property
    def horse_pid(self) -> int:
        """Return this process's id while a job runs in it: what RQ's commands are to reach."""
        return os.getpid() if self._in_job or self._covered or self._outer else 0

    def _obey(self, command: Command) -> None:
        """Stop any of the jobs that run inside one another, where RQ looks at one only."""
        if command.kind not in NAMED:
            super()._obey(command)
        else:
            if not self._has(command):
                told = "not at work on job %s: %s ignored, unless it is about to begin"
                self.log.warning(told, command.job_id, command.kind)
            self._stopped_job_id = command.job_id
            self._stopped_execution = command.execution_id
            self.kill_horse()

    def _has(self, command: Command) -> bool:
        """Whether this worker is at the job, or the execution, that the command names."""
        if command.execution_id:
            held = [level.execution_id for level in self._outer]
            return command.execution_id in (*held, self._claims.execution)
        outer = [level.job.id for level in self._outer]
        return command.job_id in outer or command.job_id in current_job_ids(self)
