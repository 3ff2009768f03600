"""Sampling: CPU and memory used by the machine and by the pool's processes.

A counter only means something between two readings taken by the same reader with a known time
between them. So nobody else reads them, and readings less than :data:`MIN_INTERVAL` apart, in
which the kernel's ticks are mostly noise, are not taken at all.

Memory is measured as the proportional set size, for forked workers share most of their pages. It
is slow to get, and grows with the process, so each sample measures only as many processes as
fit its budget, the oldest figures first. In between, what a busy process has grown by is read off
its resident set, which is quick. A process that stays idle is measured ever less often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

import psutil

from pysplash.control.model import Sample

from .footprint import UNREADABLE, Remark, footprint

MIN_INTERVAL = 0.2  #: seconds
#: seconds between two figures of the memory of a process that does nothing, at most
LONGEST_REST = 60.0


class MemoryLike(Protocol):
    """Bytes in use, and the bytes there are to use."""

    @property
    def used(self) -> int:
        """Bytes in use."""

    @property
    def total(self) -> int:
        """Bytes there are."""


class MachineLike(Protocol):
    """What the sampler needs to know of the machine."""

    def cores(self) -> float:
        """Cores this process may use."""

    def busy_seconds(self) -> float:
        """CPU seconds used so far, by anyone, of those cores."""

    def memory(self) -> MemoryLike:
        """Memory this process may use, and how much of it is in use."""

    def stalled_seconds(self) -> float | None:
        """Seconds so far in which some process waited for memory; None: not counted."""

    def swaps(self) -> tuple[float, float]:
        """Bytes that ever came back from swap, and went out to it."""


class ProcessLike(Protocol):
    """What the sampler needs to know of a process: a part of :class:`psutil.Process`."""

    def cpu_times(self) -> Any:
        """CPU seconds of the process and of its reaped children."""

    def memory_info(self) -> Any:
        """Resident set size, in bytes."""

    def memory_full_info(self) -> Any:
        """Proportional (Linux) or unique set size, in bytes; slow."""


class Sampler:
    """Measures CPU and memory; all times are on the clock it is given.

    The first reading of the counters is taken when the sampler is made.
    """

    def __init__(
        self,
        machine: MachineLike,
        *,
        processes: Callable[[int], ProcessLike] = psutil.Process,
        pss_budget: float = 0.005,
        pss_interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._open = processes
        self._pss_budget = pss_budget
        self._pss_interval = pss_interval
        self._clock = clock
        self._remark = Remark()
        self._processes: dict[int, ProcessLike] = {}
        #: CPU seconds of the busy processes at the last sample, and cores used up to it
        self._seconds: dict[int, float] = {}
        self._cores: dict[int, float] = {}
        #: bytes (None: vanished) and time of each figure, oldest first
        self._pss: dict[int, tuple[int | None, float]] = {}
        #: seconds for which a figure holds; twice as long each time as its process stays idle
        self._holds: dict[int, float] = {}
        #: resident bytes when the figure was taken, and growth since
        self._resident: dict[int, int] = {}
        self._growth: dict[int, int] = {}
        self._busy_seconds = machine.busy_seconds()
        self._stalled = machine.stalled_seconds()
        self._swaps = machine.swaps()
        self._last = self._picture(clock(), 0.0, machine.cores(), 0.0, 0)

    def sample(self, now: float, busy: Collection[int], alive: Collection[int]) -> Sample:
        """Return what was used since the last sample, or that one if it is younger than 0.2 s.

        *busy* are the pids whose CPU use is measured, *alive* all pids of the pool.
        """
        interval = now - self._last.at
        if interval < MIN_INTERVAL:
            return self._last
        capacity = self._machine.cores()
        cpu = self._cpu_percent(interval, capacity)
        pids = {*alive, *busy}
        self._forget(pids)
        self._measure_cores(busy, interval, capacity)
        if cpu == 0.0:
            # Some sandboxes hide the machine's counters. The pool's own use is known all the same.
            cpu = 100.0 * min(sum(self._cores.values()) / capacity, 1.0)
        for pid in busy:
            self._holds[pid] = self._pss_interval
        self._measure_pss(now, pids)
        self._measure_growth(busy)
        self._last = self._picture(now, interval, capacity, cpu, self._pool_mem(pids))
        return self._last

    def cores(self, pid: int) -> float | None:
        """Cores used by *pid* over the last interval; None: not measured."""
        return self._cores.get(pid)

    def pss(self, pid: int) -> int | None:
        """Last known proportional set size of *pid* in bytes; None: not measured."""
        size = self._pss.get(pid, (None, 0.0))[0]
        return None if size is None else max(0, size + self._growth.get(pid, 0))

    def _picture(
        self, at: float, interval: float, capacity: float, cpu: float, pool_mem: int
    ) -> Sample:
        memory = self._machine.memory()
        return Sample(
            at=at,
            interval=interval,
            capacity=capacity,
            cpu=cpu,
            pool_cores=min(sum(self._cores.values(), 0.0), capacity),
            mem=100.0 * memory.used / memory.total if memory.total else 100.0,
            mem_used=memory.used,
            mem_total=memory.total,
            pool_mem=pool_mem,
            stalled=self._stalled_percent(interval),
            swapping=self._swapping(),
        )

    def _stalled_percent(self, interval: float) -> float | None:
        before, self._stalled = self._stalled, self._machine.stalled_seconds()
        if before is None or self._stalled is None or interval <= 0:
            return None
        return 100.0 * min(max((self._stalled - before) / interval, 0.0), 1.0)

    def _swapping(self) -> bool:
        """Return whether pages were swapped both in and out since the last sample."""
        before, self._swaps = self._swaps, self._machine.swaps()
        return all(now > then for now, then in zip(self._swaps, before, strict=True))

    def _cpu_percent(self, interval: float, capacity: float) -> float:
        """Per cent of *capacity* used over *interval*, from the counter's advance."""
        before, self._busy_seconds = self._busy_seconds, self._machine.busy_seconds()
        if capacity != self._last.capacity:
            # Another quota or affinity is another counter: its advance is known next time.
            return self._last.cpu
        used = (self._busy_seconds - before) / (interval * capacity)
        return 100.0 * min(max(used, 0.0), 1.0)

    def _forget(self, pids: Collection[int]) -> None:
        """Forget processes not in *pids*: their ids may be reused."""
        for pid in [pid for pid in self._processes if pid not in pids]:
            del self._processes[pid]
        for figures in (self._pss, self._holds, self._resident, self._growth):
            for pid in [pid for pid in figures if pid not in pids]:
                del figures[pid]

    def _process(self, pid: int) -> ProcessLike:
        process = self._processes.get(pid)
        if process is None:
            process = self._processes[pid] = self._open(pid)
        return process

    def _measure_cores(self, busy: Collection[int], interval: float, capacity: float) -> None:
        """Measure the cores each of *busy* used, if it was busy at the last sample too."""
        before, self._seconds = self._seconds, {}
        self._cores = {}
        for pid in busy:
            seconds = self._cpu_seconds(pid)
            if seconds is None:
                continue
            self._seconds[pid] = seconds
            if pid in before:
                # A reaped child brings its whole life at once: nobody uses more than there is.
                used = (seconds - before[pid]) / interval
                self._cores[pid] = min(max(used, 0.0), capacity)

    def _cpu_seconds(self, pid: int) -> float | None:
        try:
            times = self._process(pid).cpu_times()
        except UNREADABLE:
            return None
        return float(times.user + times.system + times.children_user + times.children_system)

    def _measure_pss(self, now: float, pids: Collection[int]) -> None:
        """Measure again the oldest figures: at least one, more while the time budget lasts."""
        least = self._pss_interval
        due = [pid for pid in pids if pid not in self._pss]
        due += [p for p, (_, at) in self._pss.items() if at <= now - self._holds.get(p, least)]
        start = before = self._clock()
        slowest = 0.0
        for pid in due:
            if before + slowest - start > self._pss_budget:
                break
            self._pss.pop(pid, None)  # to the end: the order of the figures is their age
            self._pss[pid] = self._footprint(pid), now
            longest = max(LONGEST_REST, least)
            self._holds[pid] = min(longest, 2 * self._holds.get(pid, least / 2))
            self._resident.pop(pid, None)
            self._growth.pop(pid, None)
            after = self._clock()
            slowest, before = max(slowest, after - before), after

    def _measure_growth(self, busy: Collection[int]) -> None:
        """Measure how much busy processes have grown since their last figures."""
        for pid in busy:
            try:
                resident = int(self._process(pid).memory_info().rss)
            except UNREADABLE:
                continue
            self._growth[pid] = resident - self._resident.setdefault(pid, resident)

    def _footprint(self, pid: int) -> int | None:
        """Measure the memory of *pid*; None where nothing is told."""
        try:
            size, kind = footprint(self._process(pid))
        except UNREADABLE:
            return None
        self._remark.hear(kind)
        return size

    def _pool_mem(self, pids: Collection[int]) -> int:
        """Return the bytes of all *pids*; one not measured yet counts as the mean."""
        sizes = (self.pss(pid) for pid in self._pss)
        known = [size for size in sizes if size is not None]
        unmeasured = len(pids) - len(self._pss)
        return sum(known) + (unmeasured * sum(known) // len(known) if known else 0)
