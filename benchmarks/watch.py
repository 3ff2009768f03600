"""A look at the machine from outside the pool: the kernel's own counters, ten times a second."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pysplash.control.simulation.trace import Trace

#: seconds between two looks
LOOK = 0.1


class Watch:
    """Keeps a trace while it is open; CPU of all programs, memory of some, jobs waiting."""

    def __init__(
        self, pids: Callable[[], list[int]], queued: Callable[[], int], *, memory: bool
    ) -> None:
        self.trace = Trace(cores(), LOOK)
        self._pids, self._queued, self._memory = pids, queued, memory
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextlib.contextmanager
    def open(self) -> Iterator[Trace]:
        """Look as long as the block lasts."""
        self._thread.start()
        try:
            yield self.trace
        finally:
            self._end.set()
            self._thread.join()

    def _run(self) -> None:
        begin, before = time.monotonic(), cpu_ticks()
        while not self._end.wait(LOOK):
            now = cpu_ticks()
            total = now[1] - before[1]
            cpu = 100 * (now[0] - before[0]) / total if total else 0.0
            before = now if total else before
            pool = float(sum(map(pss, self._pids()))) if self._memory else 0.0
            queued = self._queued()
            # a look that came late stands for those that were missed
            while len(self.trace.cpu) * LOOK < time.monotonic() - begin:
                self.trace.note(cpu, 0.0, pool, queued)


def cpu_ticks() -> tuple[int, int]:
    """Return the ticks in which a core was busy since the machine started, and all ticks."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = list(map(int, words))
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def cores() -> int:
    """Return how many cores the counters are over."""
    lines = Path("/proc/stat").read_text().splitlines()
    return sum(line.startswith("cpu") for line in lines) - 1


def pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes; 0 once it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
