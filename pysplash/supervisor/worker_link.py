"""Heartbeats sent for the workers, and RQ's commands passed on to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redis.exceptions import RedisError, ResponseError

from pysplash.connections.outage import COMPLAIN
from pysplash.jobs.commands import NAMED
from pysplash.log import Seldom, logger
from pysplash.worker.row import Row

from .devices import Devices
from .heartbeats import Pulse
from .workers import Entry, WorkerTable

log = logger("pool")

#: seconds between two heartbeats
BEAT = 5.0


class WorkerLink:
    """Sends heartbeats for the workers, and passes RQ's commands on to them.

    RQ's own worker classes do both themselves.
    """

    def __init__(self, devices: Devices, table: WorkerTable, rows: Mapping[str, Row]) -> None:
        self._devices = devices
        self._table = table
        self._rows = rows
        self._due = devices.clock()
        self._complaint = Seldom(COMPLAIN)

    def send_heartbeats(self, now: float) -> None:
        """Send heartbeats if they are due; while Redis is away, the next ones do."""
        listening = list(self._listening())
        self._devices.commands.follow([entry.name for entry, _ in listening])
        if now < self._due:
            return
        self._due = now + BEAT
        pulses = [
            Pulse(entry.name, row.job_id if row.execution_id else "", row.execution_id)
            for entry, row in listening
        ]
        try:
            self._devices.heartbeats.send(pulses)
        except RedisError as error:
            self._complain(error, now)

    def _complain(self, error: RedisError, now: float) -> None:
        """Log why heartbeats are not sent; that Redis is away is logged where queues are read."""
        if not isinstance(error, ResponseError):
            log.debug("heartbeats not sent: %s", error)
        elif self._complaint.due(now):
            log.warning(
                "Redis refuses writes (%s): workers keep their jobs' results until it accepts them",
                error,
                extra={"action": "redis-refuses"},
            )

    def pass_commands(self) -> None:
        """Pass on the commands received since the last call."""
        listening = {entry.name: (entry, row) for entry, row in self._listening()}
        for worker, kind, job_id, execution_id in self._devices.commands.read():
            if worker not in listening:
                continue
            entry, row = listening[worker]
            if kind == "shutdown":
                self._devices.processes.stop(worker)
            elif not row.execution_id and kind not in NAMED:
                log.info("worker %s runs no job: %s ignored", worker, kind)
                continue
            else:
                self._devices.board.ask(entry.slot, execution_id or job_id)
                self._devices.processes.interrupt(worker)
            log.info(
                "worker %s: %s %s",
                worker,
                kind,
                job_id,
                extra={"action": "command", "worker": worker, "command": kind},
            )

    def _listening(self) -> Iterator[tuple[Entry, Row]]:
        for entry in self._table:
            row = self._rows.get(entry.name)
            if row is not None and row.listens:
                yield entry, row
