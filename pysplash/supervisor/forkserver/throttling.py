"""The throttler: pauses and resumes workers ten times a second, in the fork server.

It measures a slice, asks :mod:`pysplash.control.throttle` whom to hold, and sends SIGSTOP and
SIGCONT to their process groups. It runs in the fork server, the parent of all workers, so that no
worker stays stopped: all are resumed first when the pool has ended, and when the fork server dies
the kernel kills its workers. A worker that is sent a signal is resumed to handle it. An error ends
throttling for good and resumes everyone. Only PySplash's own workers are held: only they correct
their timeouts by the time held.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import psutil

from pysplash.control.model import Limits
from pysplash.control.throttle import Grip, Runner, Slice, trim
from pysplash.host.capacity import Host
from pysplash.host.footprint import UNREADABLE
from pysplash.worker.scoreboard import Scoreboard

#: seconds of a slice
SLICE = 0.1
#: part of the limit in use below which the workers' own counters are not read
NEAR = 0.7
#: shortest hold in seconds that is worth two signals
LEAST_HOLD = 0.002


class WorkerProcess(Protocol):
    """A worker process as the fork server knows it."""

    @property
    def pid(self) -> int:
        """Process id, and number of its process group."""

    @property
    def slot(self) -> int:
        """Row on the scoreboard."""


@dataclass(slots=True)
class _Hold:
    """One process group that is stopped."""

    slot: int
    since: float
    until: float


class Throttler:
    """Holds workers for parts of slices; see :func:`pysplash.control.throttle.trim`."""

    def __init__(
        self,
        limits: Limits,
        board: Scoreboard,
        machine: Host,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._board = board
        self._machine = machine
        self._clock = clock
        self._grip = Grip()
        self._holds: dict[int, _Hold] = {}
        self._at = clock()
        #: CPU seconds of the machine at the end of the last slice; None: not read
        self._busy_seconds: float | None = None
        #: CPU seconds of each busy worker at the end of the last slice
        self._cpu: dict[int, float] = {}
        self._processes: dict[int, psutil.Process] = {}
        #: what the pool last said of memory, and the resident bytes of the busy at that time
        self._pool_mem = self._reserve = 0.0
        self._resident: float | None = None

    def wait(self) -> float:
        """Return the seconds until :meth:`turn` has something to do."""
        due = min((hold.until for hold in self._holds.values()), default=self._at + SLICE)
        return max(0.0, min(due, self._at + SLICE) - self._clock())

    def turn(self, workers: Iterable[WorkerProcess]) -> None:
        """Resume workers whose hold is over; at the end of a slice, plan the next one."""
        now = self._clock()
        for pid in [pid for pid, hold in self._holds.items() if hold.until <= now]:
            self.resume(pid)
        if now - self._at < SLICE:
            return
        busy = {w.pid: w.slot for w in workers if self._board.busy(w.slot)}
        parts = {int(name): part for name, part in self._measured(busy, now)}
        for pid in [pid for pid in self._holds if parts.get(pid, 0.0) < 1]:
            self.resume(pid)
        for pid, part in parts.items():
            self._hold(pid, busy[pid], part, now)

    def _measured(self, busy: dict[int, int], now: float) -> tuple[tuple[str, float], ...]:
        """Return which *busy* workers to hold in the next slice, and for what part of it."""
        seconds, self._at = now - self._at, now
        self._forget_idle(busy)
        before, self._busy_seconds = self._busy_seconds, None
        if not busy:
            return ()  # an idle pool costs a look at the scoreboard, and no reading of counters
        self._busy_seconds = self._machine.busy_seconds()
        if before is None:
            return ()
        used = max(0.0, self._busy_seconds - before) / seconds
        self._grip = trim(self._slice(seconds, used, busy), self._grip, self._limits)
        return self._grip.holds

    def resume_all(self) -> None:
        """Resume every worker that is held."""
        for pid in list(self._holds):
            self.resume(pid)

    def resume(self, pid: int) -> None:
        """Resume a worker, if it is held."""
        hold = self._holds.pop(pid, None)
        if hold is not None:
            _signal(pid, signal.SIGCONT)
            self._board.hold(hold.slot, self._clock() - hold.since)

    def forget(self, pid: int) -> None:
        """Forget a worker that has ended, before its process id is reused."""
        self._holds.pop(pid, None)

    def set_memory(self, pool_mem: float, reserve: float) -> None:
        """Take the bytes the pool's processes use, and those to keep for the oldest job."""
        self._pool_mem, self._reserve = pool_mem, reserve
        self._resident = None

    # --- measuring ---

    def _slice(self, seconds: float, used: float, busy: dict[int, int]) -> Slice:
        capacity = self._machine.cores()
        memory = self._machine.memory()
        near = used >= NEAR * self._limits.max_cpu / 100 * capacity or bool(self._grip.holds)
        return Slice(
            seconds=seconds,
            capacity=capacity,
            used=min(used, capacity),
            runners=self._runners(seconds, busy, measured=near),
            mem_used=memory.used,
            mem_total=memory.total,
            pool_mem=self._pool_mem_now(busy),
            reserve=self._reserve,
        )

    def _runners(
        self, seconds: float, busy: dict[int, int], *, measured: bool
    ) -> tuple[Runner, ...]:
        """Return the busy workers that may be held, the oldest job first."""
        parts = dict(self._grip.holds)
        before, self._cpu = self._cpu, {}
        found = []
        for pid, slot in busy.items():
            row = self._board.read(slot)
            if row is None or row.job_started is None or not row.listens or row.pid != pid:
                continue
            cores = 0.0
            if measured and (now := cpu_seconds(pid)) is not None:
                self._cpu[pid] = now
                cores = max(0.0, now - before.get(pid, now)) / seconds
            found.append((row.job_started, Runner(str(pid), cores, parts.get(str(pid), 0.0))))
        return tuple(runner for _, runner in sorted(found, key=lambda pair: pair[0]))

    def _pool_mem_now(self, busy: dict[int, int]) -> float:
        """Return the pool's last figure, plus the growth of its busy workers since."""
        if self._limits.mem_budget is None:
            return 0.0
        resident = 0.0
        for pid in busy:
            with contextlib.suppress(*UNREADABLE):
                resident += self._process(pid).memory_info().rss
        if self._resident is None:
            self._resident = resident
        return self._pool_mem + max(0.0, resident - self._resident)

    def _process(self, pid: int) -> psutil.Process:
        process = self._processes.get(pid)
        if process is None:
            process = self._processes[pid] = psutil.Process(pid)
        return process

    def _forget_idle(self, busy: dict[int, int]) -> None:
        for pid in self._processes.keys() - busy.keys():
            del self._processes[pid]

    # --- holding ---

    def _hold(self, pid: int, slot: int, part: float, now: float) -> None:
        """Hold a worker for *part* of a slice; for all of it: until a slice says otherwise."""
        held = self._holds.get(pid)
        if held is not None:
            self._board.hold(slot, now - held.since)
            held.since = now
        elif part * SLICE >= LEAST_HOLD and _signal(pid, signal.SIGSTOP):
            self._holds[pid] = _Hold(slot, now, now + part * SLICE if part < 1 else math.inf)


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU seconds of a process so far; None: it is gone.

    The clock is the one that clock_getcpuclockid(3) names. It counts nanoseconds; psutil's times
    are hundredths of a second, and a slice has but ten of these.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None


def _signal(group: int, number: int) -> bool:
    """Signal a worker with all it has started; False if it is gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
