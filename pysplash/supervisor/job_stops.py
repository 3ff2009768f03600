"""Stops of jobs, asked for by RQ's commands: passed on to the worker, and seen through.

A job may not notice: it is inside a call in C, or catches whatever is raised in it. If it still
runs :data:`GRACE` seconds later, its worker is killed, and the job is settled as the command says:
stopped, or failed for ``kill-horse``.
"""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import RedisError

from pysplash.control.model import Reason
from pysplash.jobs.commands import NAMED, Command
from pysplash.log import logger
from pysplash.worker.row import Row

from .devices import Devices
from .workers import Entry, WorkerTable

#: seconds a job gets to end once it was stopped
GRACE = 3.0

log = logger("pool")


@dataclass(slots=True)
class _Asked:
    """A job that was asked to end; of which run is known once its worker shows it."""

    entry: Entry
    kind: str
    job_id: str
    execution_id: str
    due: float


class JobStops:
    """Has jobs stopped, by their worker if it can, by its end if it does not."""

    def __init__(self, devices: Devices, table: WorkerTable) -> None:
        self._devices = devices
        self._table = table
        self._asked: list[_Asked] = []

    def ask(self, entry: Entry, row: Row, command: Command) -> None:
        """Have a worker stop the job that *command* names, or whatever it runs."""
        named = command.kind in NAMED
        job_id = command.job_id if named else row.job_id
        execution_id = command.execution_id if named else row.execution_id
        due = self._devices.clock() + GRACE
        self._asked.append(_Asked(entry, command.kind, job_id, execution_id, due))
        self._devices.board.ask(entry.slot, command.execution_id or command.job_id)
        self._devices.processes.interrupt(entry.name)

    def see_through(self) -> None:
        """Kill the workers whose jobs went on; forget those that have ended."""
        now = self._devices.clock()
        self._asked = [asked for asked in self._asked if self._is_open(asked, now)]

    def _is_open(self, asked: _Asked, now: float) -> bool:
        entry, board = asked.entry, self._devices.board
        if self._table.get(entry.name) is not entry or entry.kill_at is not None:
            return False
        if board.heeded(entry.slot):
            return False
        row = board.read(entry.slot)
        outermost = row is not None and asked.job_id == row.job_id
        if row is not None and outermost and not asked.execution_id:
            asked.execution_id = row.execution_id
        if now < asked.due:
            return True
        if not (row is not None and outermost and asked.execution_id == row.execution_id):
            try:
                if not self._devices.heartbeats.runs_inside(
                    entry.name, asked.job_id, asked.execution_id
                ):
                    return False
            except RedisError as error:
                log.debug("whether job %s still runs is not known: %s", asked.job_id, error)
                return True
        self._kill(asked, now)
        return False

    def _kill(self, asked: _Asked, now: float) -> None:
        entry = asked.entry
        log.warning(
            "job %s went on for %.0f s after %s: worker %s is killed",
            asked.job_id,
            now - asked.due + GRACE,
            asked.kind,
            entry.name,
            extra={"action": "command", "worker": entry.name, "command": asked.kind},
        )
        entry.ended_job, entry.is_stop = asked.job_id, asked.kind in NAMED
        self._table.ask_to_die(entry.name, now, Reason.STOPPED)
        self._devices.processes.kill(entry.name)
