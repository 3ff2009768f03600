"""Other ways to size a pool, to be tried on the same plants as PySplash's own.

Each is written anew from what the system does, and is given what it would have: the first
PySplash as it was and with its CPU reading mended, a fixed number as `rq worker-pool` has it, and
the depth of the queue alone as Celery's autoscaler has it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from random import Random

from pysplash.control.model import (
    Decision,
    Kill,
    Limits,
    PoolView,
    Reason,
    Spawn,
    Stop,
    WorkerState,
    WorkerView,
)

#: seconds the first PySplash gives a worker to leave
FIRST_TERMINATE = 10.0
#: rows of statistics it keeps, and most workers it adds at a time
FIRST_ROWS, FIRST_STEP = 30, 2
#: seconds Celery's autoscaler waits after a growth before it shrinks
KEEPALIVE = 30.0


@dataclass(slots=True)
class First:
    """The first PySplash: divide what is left by what a running worker uses on average.

    It asks for the CPU a second time a moment after its statistics did; then the answer is nothing
    at all, or once in a while everything. *mended* lets it see the truth.
    """

    mended: bool = False
    random: Random = field(default_factory=lambda: Random(1))
    rows: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=FIRST_ROWS))
    base: tuple[float, float] | None = None
    scaled_at: float = -math.inf

    def decide(self, view: PoolView, limits: Limits) -> Decision:
        """Return what it would do."""
        latest = view.samples[-1]
        if self.base is None:
            self.base = (latest.cpu, latest.mem)
        running = sum(w.state is not WorkerState.STARTING for w in view.workers)
        self.rows.append((running, latest.cpu, latest.mem))
        size = len(view.workers)
        kills = tuple(Kill(w.name, Reason.CPU) for w in view.workers if self._late(w, view.now))
        if running < limits.min_procs:
            return Decision(size + 1, Reason.MIN, (*kills, Spawn(1, Reason.MIN)))
        if view.now - self.scaled_at < limits.scale_frequency or not view.queued:
            return Decision(size, Reason.STEADY, kills)
        self.scaled_at = view.now
        return self._scale(view, limits, kills)

    def _late(self, worker: WorkerView, now: float) -> bool:
        asked = worker.stop_at is not None and worker.kill_at is None
        return asked and now - (worker.stop_at or 0.0) >= FIRST_TERMINATE

    def _scale(self, view: PoolView, limits: Limits, kills: tuple[Kill, ...]) -> Decision:
        size = len(view.workers)
        cpu = view.samples[-1].cpu
        if not self.mended:
            cpu = 100.0 if self.random.random() < 4 / 60 else 0.0
        room = min(
            limits.max_procs - size,
            self._room(limits.max_cpu - cpu, 1),
            self._room(limits.max_mem - view.samples[-1].mem, 2),
        )
        if room > 0:
            count = min(room, FIRST_STEP)
            return Decision(size + count, Reason.BACKLOG, (*kills, Spawn(count, Reason.BACKLOG)))
        able = [w.name for w in view.workers if not w.stopping]
        chosen = self.random.sample(able, min(len(able), -room))
        stops = tuple(Stop(name, Reason.CPU) for name in chosen)
        return Decision(size - len(stops), Reason.CPU, (*kills, *stops))

    def _room(self, left: float, column: int) -> int:
        base = (self.base or (0.0, 0.0))[column - 1]
        shares = [(row[column] - base) / row[0] for row in self.rows if row[0]]
        each = max(0.1, sum(shares) / len(self.rows))
        return math.floor(left / each)


@dataclass(slots=True)
class Fixed:
    """A fixed number of workers."""

    count: int

    def decide(self, view: PoolView, limits: Limits) -> Decision:
        """Return what is missing."""
        missing = self.count - len(view.workers)
        spawns = (Spawn(missing, Reason.MIN),) if missing > 0 else ()
        return Decision(self.count, Reason.MIN, spawns)


@dataclass(slots=True)
class Depth:
    """As many workers as jobs, up at once, down half a minute after the last growth."""

    grown_at: float = -math.inf

    def decide(self, view: PoolView, limits: Limits) -> Decision:
        """Return what the depth of the queue asks for."""
        size = len(view.workers)
        busy = sum(w.state in (WorkerState.BUSY, WorkerState.WAITING) for w in view.workers)
        wanted = max(limits.min_procs, min(limits.max_procs, busy + (view.queued or 0)))
        if wanted > size:
            self.grown_at = view.now
            return Decision(wanted, Reason.BACKLOG, (Spawn(wanted - size, Reason.BACKLOG),))
        idle = [w.name for w in view.workers if w.state is WorkerState.IDLE and not w.stopping]
        if wanted < size and view.now - self.grown_at > KEEPALIVE and idle:
            gone = idle[: size - wanted]
            return Decision(wanted, Reason.IDLE, tuple(Stop(name, Reason.IDLE) for name in gone))
        return Decision(size, Reason.STEADY)
