"""Liaison: the pool speaks for its workers in Redis, and hears what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redis.exceptions import RedisError, ResponseError

from .commands import NAMED
from .devices import Devices
from .heartbeats import Pulse
from .log import logger
from .outage import COMPLAIN
from .roster import Entry, Facts, Roster
from .state import NEVER

#: seconds between two heartbeats
BEAT = 5.0

log = logger("pool")


class Liaison:
    """Sends heartbeats when they are due, and passes commands on to the workers that listen.

    RQ's own worker classes hear and speak for themselves.
    """

    def __init__(self, devices: Devices, roster: Roster, facts: Mapping[str, Facts]) -> None:
        self._devices = devices
        self._roster = roster
        self._facts = facts
        self._due = devices.clock()
        self._complained_at = NEVER

    def speak(self, now: float) -> None:
        """Say that the workers live, if that is due; an absent Redis hears of it next time."""
        listening = list(self._listening())
        self._devices.commands.follow([entry.name for entry, _ in listening])
        if now < self._due:
            return
        self._due = now + BEAT
        pulses = [
            Pulse(entry.name, facts.job_id if facts.execution_id else "", facts.execution_id)
            for entry, facts in listening
        ]
        try:
            self._devices.heartbeats.send(pulses)
        except RedisError as error:
            self._complain(error, now)

    def _complain(self, error: RedisError, now: float) -> None:
        """Say why heartbeats are not sent; who cannot read the queues says that Redis is away."""
        if not isinstance(error, ResponseError):
            log.debug("heartbeats not sent: %s", error)
        elif now - self._complained_at >= COMPLAIN:
            self._complained_at = now
            log.warning(
                "Redis answers and takes nothing in (%s): workers wait with what their jobs "
                "returned until it does",
                error,
                extra={"action": "redis-refuses"},
            )

    def heed(self) -> None:
        """Carry out the commands that have come."""
        listening = {entry.name: (entry, facts) for entry, facts in self._listening()}
        for worker, kind, job_id, execution_id in self._devices.commands.read():
            if worker not in listening:
                continue
            entry, facts = listening[worker]
            if kind == "shutdown":
                self._devices.processes.stop(worker)
            elif not facts.execution_id and kind not in NAMED:
                log.info("worker %s runs nothing: %s ignored", worker, kind)
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

    def _listening(self) -> Iterator[tuple[Entry, Facts]]:
        for entry in self._roster:
            facts = self._facts.get(entry.name)
            if facts is not None and facts.listens:
                yield entry, facts
