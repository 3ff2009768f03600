"""Exits: why a worker ended, what becomes of its job, and when failures end the pool."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from redis.exceptions import RedisError

from pysplash.control.model import Reason
from pysplash.errors import EXIT_IMPORT, CrashLoop, ImportFailed, SplashError, WorkerBootError
from pysplash.events import WORKER_DIED, WorkerEvent
from pysplash.host.processes import describe
from pysplash.log import logger
from pysplash.worker.row import Row

from .accounting import Accounting
from .callbacks import CallbackProcesses
from .devices import SettlementLike
from .listeners import ListenerThread
from .settlement import Loss, legible
from .workers import Entry, WorkerTable

log = logger("pool")

#: failed starts in a row that end a pool of which no worker was ever ready; and any pool
BOOT_FAILURES, CRASHES = 5, 10


class _Exit(NamedTuple):
    loss: Loss
    pid: int
    #: whether the worker died, or could not start
    died: bool
    #: called once its jobs are settled
    then: Callable[[str], None] | None = None


class Exits:
    """Logs and counts each exit, settles its job, and ends a pool whose workers keep failing."""

    def __init__(
        self,
        settlement: SettlementLike,
        table: WorkerTable,
        accounting: Accounting,
        callbacks: CallbackProcesses,
        listeners: ListenerThread,
    ) -> None:
        self._settlement = settlement
        self._table = table
        self._accounting = accounting
        self._callbacks = callbacks
        self._listeners = listeners
        self._losses: deque[_Exit] = deque()

    def __len__(self) -> int:
        """Return the number of dead workers whose jobs are not settled yet."""
        return len(self._losses)

    def handle(
        self,
        entry: Entry,
        row: Row | None,
        status: int | None,
        text: str,
        now: float,
        outcomes: Sequence[Sequence[str]] = (),
    ) -> SplashError | None:
        """Log and count one exit; return the error that should end the pool, or None.

        *status* is None for a worker that went with its fork server, whatever it was doing;
        *outcomes* are those in its journal.
        """
        how = "its fork server died" if status is None else describe(status)
        failed_start = status is not None and self._table.judge_exit(entry, row, status == 0, now)
        well = status == 0 and not failed_start
        self._accounting.note_exit(entry.name, row, well=well)
        cause = f"{how}, by the pool: {entry.kill_reason}" if entry.kill_reason else how
        log.log(
            logging.INFO if well else logging.ERROR,
            "worker %s (pid %d) %s: %s",
            entry.name,
            entry.pid,
            "ended" if well else "could not start" if failed_start else "died",
            f"{cause}; {text}" if text else cause,
            extra={"action": "exit", "worker": entry.name, "status": status},
        )
        job_id, execution_id = (row.job_id, row.execution_id) if row else ("", "")
        if job_id or outcomes or not well or (row is not None and row.unsaid):
            suspect = entry.kill_reason not in (Reason.TERMINATE, Reason.COLD, Reason.STOPPED)
            relief = entry.kill_reason is Reason.MEMORY
            loss = Loss(entry.name, job_id, execution_id, cause, suspect, relief)
            loss = replace(loss, outcomes=legible(outcomes), notes=outcomes)
            loss = replace(loss, ended_job=entry.ended_job, is_stop=entry.is_stop)
            self._losses.append(_Exit(loss, entry.pid, not well))
        return self._verdict(status or 0, text or cause) if failed_start else None

    def _verdict(self, status: int, text: str) -> SplashError | None:
        failures = self._table.boot_failures
        if self._table.ever_ready:
            crashing = failures >= CRASHES and not len(self._table)
            said = f"{failures} workers in a row died at once; the last one: {text}"
            return CrashLoop(said) if crashing else None
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == EXIT_IMPORT:
            return ImportFailed(text.partition(": ")[2] or text)
        if failures < BOOT_FAILURES:
            return None
        return WorkerBootError(f"{failures} workers in a row could not start; the last one: {text}")

    def inherit(self, worker: str, then: Callable[[str], None]) -> None:
        """Settle the jobs of a worker of an earlier pool, too; *then* is called with its name."""
        loss = Loss(worker, "", "", "its pool died", suspect=False, seen=False)
        self._losses.append(_Exit(loss, 0, died=False, then=then))

    def settle(self) -> None:
        """Settle the jobs of dead workers; while Redis is away they are kept for the next call."""
        while self._losses:
            loss = self._losses[0].loss
            try:
                outcome = self._settlement.settle(loss)
            except Exception as error:
                if isinstance(error, RedisError) and "WRONGTYPE" not in str(error):
                    log.debug("job of %s not settled yet: %s", loss.worker, error)
                    return
                log.exception("job of %s cannot be settled", loss.worker)
                outcome = ""
            self._follow(self._losses.popleft())
            self._accounting.note_settled(outcome)

    def _follow(self, gone: _Exit) -> None:
        """Have callbacks run for the jobs that failed, and tell who listens of the death."""
        settled = self._settlement.take()
        for one in settled:
            if one.abandoned is not None:
                self._callbacks.add(one.abandoned)
        self._announce(gone, {one.job_id: one.outcome for one in settled})
        if gone.then is not None:
            gone.then(gone.loss.worker)

    def _announce(self, gone: _Exit, jobs: dict[str, str]) -> None:
        if gone.died and WORKER_DIED:
            loss = gone.loss
            event = WorkerEvent("worker_died", loss.worker, gone.pid, loss.cause, jobs)
            self._listeners.tell(WORKER_DIED, event)

    def close(self) -> None:
        """Say whose jobs could not be settled before the pool ended."""
        while self._losses:
            gone = self._losses.popleft()
            job_id = gone.loss.job_id
            log.warning(
                "worker %s: job %s is not settled, as Redis is away: run pysplash purge later",
                gone.loss.worker,
                job_id or "(unknown)",
                extra={"action": "settle", "job": job_id},
            )
            self._announce(gone, {job_id: "not settled"} if job_id else {})
