"""Heartbeats sent for the workers, and RQ's commands passed on to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redis.exceptions import RedisError, ResponseError

from pysplash.connections.outage import COMPLAIN
from pysplash.control.model import Reason, WorkerState
from pysplash.jobs.commands import NAMED
from pysplash.log import Seldom, logger
from pysplash.worker.row import Row

from .devices import Devices
from .heartbeats import Pulse
from .job_stops import JobStops
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
        self._stops = JobStops(devices, table)
        self._due = devices.clock()
        self._complaint = Seldom(COMPLAIN)

    def follow(self) -> None:
        """Hear the commands for the workers, new ones from before they have started."""
        rows = [(entry.name, self._rows.get(entry.name)) for entry in self._table]
        self._devices.commands.follow([name for name, row in rows if _may_listen(row)])

    def see_stops_through(self) -> None:
        """Kill the workers whose jobs went on after a command to end them."""
        self._stops.see_through()

    def send_heartbeats(self, now: float) -> None:
        """Send heartbeats if they are due; while Redis is away, the next ones do."""
        self.follow()
        if now < self._due:
            return
        listening = list(self._listening())
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
        for command in self._devices.commands.read():
            worker, kind, job_id, _ = command
            if worker not in listening:
                continue
            entry, row = listening[worker]
            if kind == "shutdown":
                self._shut_down(entry)
            elif not row.execution_id and kind not in NAMED:
                log.info("worker %s runs no job: %s ignored", worker, kind)
                continue
            else:
                self._stops.ask(entry, row, command)
            log.info(
                "worker %s: %s %s",
                worker,
                kind,
                job_id,
                extra={"action": "command", "worker": worker, "command": kind},
            )

    def _shut_down(self, entry: Entry) -> None:
        if entry.stop_at is None:
            self._table.ask_to_stop(entry.name, self._devices.clock(), Reason.STOPPED)
        self._devices.board.ask_to_leave(entry.slot)
        self._devices.processes.stop(entry.name)

    def _listening(self) -> Iterator[tuple[Entry, Row]]:
        for entry in self._table:
            row = self._rows.get(entry.name)
            if row is not None and row.listens:
                yield entry, row


def _may_listen(row: Row | None) -> bool:
    """Return whether a worker leaves its commands to the pool, or may yet say so."""
    return row is None or row.listens or row.state is WorkerState.STARTING
