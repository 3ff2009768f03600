"""Sensing: read everything one tick needs from the devices, in an order that keeps it true."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from pysplash.connections.outage import COMPLAIN
from pysplash.control.model import MEMORY, Sample, WorkerState, WorkerView
from pysplash.errors import BacklogUnavailable
from pysplash.log import Seldom, logger
from pysplash.worker.row import Row
from pysplash.worker.scoreboard import told_name

from .devices import Devices
from .workers import WorkerTable

log = logger("pool")


class Sensors:
    """Reads machine, scoreboard and queues, and keeps the last rows and samples."""

    def __init__(self, devices: Devices, table: WorkerTable) -> None:
        self._devices = devices
        self._table = table
        self.rows: dict[str, Row] = {}
        self.samples: deque[Sample] = deque()
        self._jobs_seen: dict[str, int] = {}
        #: seconds held, at the last sample, and the part of the interval before it
        self._held: dict[str, float] = {}
        self._held_share: dict[str, float] = {}
        self._complaint = Seldom(COMPLAIN)

    def read_board(self) -> None:
        """Read the row of every worker."""
        for entry in self._table:
            row = self._devices.board.read(entry.slot)
            if row is not None and row.name == told_name(entry.name):
                self.rows[entry.name] = row

    def forget(self, name: str) -> Row | None:
        """Forget a worker that has ended; return its last row."""
        for kept in (self._jobs_seen, self._held, self._held_share):
            kept.pop(name, None)
        return self.rows.pop(name, None)

    def sample(self, now: float) -> None:
        """Measure CPU and memory; too soon after the last sample, that one is kept."""
        pids = {entry.name: entry.pid for entry in self._table if entry.pid}
        busy = [pid for name, pid in pids.items() if self._was_busy(name)]
        alive = [*pids.values(), *self._devices.processes.server_pids]
        sample = self._devices.sampler.sample(now, busy, alive)
        if not self.samples or sample.at == now:
            self.samples.append(replace(sample, held=self._measure_held(sample.interval)))
        while self.samples[0].at < now - MEMORY:
            self.samples.popleft()

    def _measure_held(self, interval: float) -> float:
        """Return the cores that throttling kept workers from using over the last interval."""
        kept = 0.0
        for entry in self._table:
            row = self.rows.get(entry.name)
            if row is None:
                continue
            seconds = row.held - self._held.get(entry.name, 0.0)
            self._held[entry.name] = row.held
            share = min(0.95, seconds / interval) if interval > 0 else 0.0
            self._held_share[entry.name] = share
            kept += share / (1 - share) * (self._devices.sampler.cores(entry.pid) or 0.0)
        return kept

    def _was_busy(self, name: str) -> bool:
        """Whether the worker ran a job at any time since the last sample."""
        row = self.rows.get(name)
        if row is None:
            return False
        before = self._jobs_seen.get(name, 0)
        self._jobs_seen[name] = row.jobs
        return row.state is WorkerState.BUSY or row.jobs != before

    def read_queues(self, now: float) -> tuple[int | None, float | None, bool]:
        """Return jobs waiting (None: unknown), age of the oldest, and whether RQ is suspended."""
        try:
            waiting = self._devices.backlog.read()
        except BacklogUnavailable as error:
            if self._complaint.due(now):
                log.warning("%s; trying again", error, extra={"action": "redis-away"})
            return None, None, False
        return waiting.total, waiting.oldest, waiting.suspended

    def workers(self, now: float) -> tuple[WorkerView, ...]:
        """Return every worker as the policy is to see it."""
        sampler = self._devices.sampler
        return self._table.views(self.rows, self._held_share, sampler.pss, sampler.cores, now)
