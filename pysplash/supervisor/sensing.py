"""Senses: gather every fact of one tick from the devices, in an order that keeps them true."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from pysplash.connections.outage import COMPLAIN
from pysplash.control.model import MEMORY, NEVER, Sample, WorkerState, WorkerView
from pysplash.errors import BacklogUnavailable
from pysplash.log import logger

from .devices import Devices
from .workers import Facts, Roster

log = logger("pool")


class Senses:
    """Reads machine, scoreboard and queues; remembers what one reading leaves for the next."""

    def __init__(self, devices: Devices, roster: Roster) -> None:
        self._devices = devices
        self._roster = roster
        self.facts: dict[str, Facts] = {}
        self.samples: deque[Sample] = deque()
        self._jobs_seen: dict[str, int] = {}
        #: seconds held, at the last sample, and the part of the interval before it
        self._held: dict[str, float] = {}
        self._held_share: dict[str, float] = {}
        self._complained_at = NEVER

    def read_board(self) -> None:
        """Bring the facts of every worker up to date."""
        for entry in self._roster:
            row = self._devices.board.read(entry.slot)
            if row is None or row.name != entry.name:
                continue
            self.facts[entry.name] = Facts(
                state=row.state,
                since=row.since,
                beat=row.beat,
                jobs=row.jobs,
                failed=row.failed,
                job_started=row.job_started,
                job_timeout=row.job_timeout,
                job_id=row.job_id,
                execution_id=row.execution_id,
                listens=row.listens,
                unsaid=row.unsaid,
                function=row.function,
                held=row.held,
                held_in_job=row.held_in_job,
                held_share=self._held_share.get(entry.name, 0.0),
            )

    def forget(self, name: str) -> Facts | None:
        """Drop a worker that is gone; return what was last known of it."""
        for kept in (self._jobs_seen, self._held, self._held_share):
            kept.pop(name, None)
        return self.facts.pop(name, None)

    def sample(self, now: float) -> None:
        """Measure CPU and memory; a reading too soon after the last one is the last one."""
        pids = {entry.name: entry.pid for entry in self._roster if entry.pid}
        busy = [pid for name, pid in pids.items() if self._was_busy(name)]
        alive = [*pids.values(), *self._devices.processes.server_pids]
        sample = self._devices.sampler.sample(now, busy, alive)
        if not self.samples or sample.at == now:
            self.samples.append(replace(sample, held=self._measure_held(sample.interval)))
        while self.samples[0].at < now - MEMORY:
            self.samples.popleft()

    def _measure_held(self, interval: float) -> float:
        """Return the cores that being held kept workers from using over the last interval."""
        kept = 0.0
        for entry in self._roster:
            facts = self.facts.get(entry.name)
            if facts is None:
                continue
            seconds = facts.held - self._held.get(entry.name, 0.0)
            self._held[entry.name] = facts.held
            share = min(0.95, seconds / interval) if interval > 0 else 0.0
            self._held_share[entry.name] = share
            kept += share / (1 - share) * (self._devices.sampler.cores(entry.pid) or 0.0)
        return kept

    def _was_busy(self, name: str) -> bool:
        """Whether the worker ran a job at any time since the last sample."""
        facts = self.facts.get(name)
        if facts is None:
            return False
        before = self._jobs_seen.get(name, 0)
        self._jobs_seen[name] = facts.jobs
        return facts.state is WorkerState.BUSY or facts.jobs != before

    def waiting(self, now: float) -> tuple[int | None, float | None, bool]:
        """Return jobs waiting (None: not to be known), age of the oldest, and suspension."""
        try:
            waiting = self._devices.backlog.read()
        except BacklogUnavailable as error:
            if now - self._complained_at >= COMPLAIN:
                self._complained_at = now
                log.warning("%s; trying again", error, extra={"action": "redis-away"})
            return None, None, False
        return waiting.total, waiting.oldest, waiting.suspended

    def workers(self, now: float) -> tuple[WorkerView, ...]:
        """Return every worker as the policy is to see it."""
        sampler = self._devices.sampler
        return self._roster.views(self.facts, sampler.pss, sampler.cores, now)
