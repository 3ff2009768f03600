"""CPU headroom: how many more workers the CPU bears, and what one costs. Pure arithmetic.

How many workers there should be is decided in :mod:`pysplash.control.policy`, which asks here.
CPU can be shared, so it is sized by its mean and corrected by feedback; memory cannot, and has
rules of its own (:mod:`pysplash.control.memory`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from .model import ANY, Lesson, Limits, PoolView, Sample, WorkerState, WorkerView

#: seconds over which CPU is averaged
FAST_WINDOW, SLOW_WINDOW = 3.0, 10.0
#: per cent points over the limit that are no reason to shrink
CPU_BAND = 4.0
#: the same in parts of a worker: a little more than growing may overdo it by, so they do not meet
SHRINK = 0.3
#: the part of a worker that may be missing for one to be started all the same
ROUNDING = 0.25
#: the same with the fast loop, which trims what is too much
ROUNDING_UP = 0.9
#: per cent points below the limit that are idle enough for one more than the jobs' mean needs;
#: and the most such needs, as a part of the limit
IDLE_BAND, OVERCOMMIT = 2.0, 2.0
#: worker-seconds of CPU evidence that are remembered
MOST_EVIDENCE = 40.0
LEAST_CORES = 0.02
#: busy workers a core while what they run is not proven, and the same with the fast loop, which
#: clips the wave should all of them wake at once
UNPROVEN_PER_CORE, UNPROVEN_PER_CORE_HELD = 1.5, 4.0


# --- what a worker costs -----------------------------------------------------------------------


def learn_cores(view: PoolView) -> tuple[float, float]:
    """Return the cores a busy worker uses, one tick on, and the worker-seconds measured for it."""
    seen = [w.cores for w in view.workers if w.state is WorkerState.BUSY and w.cores is not None]
    cores, evidence = view.momentum.cores, view.momentum.evidence
    if not seen or not view.samples:
        return cores, evidence
    weight = len(seen) * view.samples[-1].interval
    if weight <= 0:
        return cores, evidence
    mean = sum(seen) / len(seen)
    total = evidence + weight
    return (cores * evidence + mean * weight) / total, min(total, MOST_EVIDENCE)


def lesson_of(view: PoolView, function: str) -> Lesson | None:
    """Return the lesson of *function*; None if it is not proven yet."""
    lesson = view.lessons.get(function)
    return lesson if lesson is not None and lesson.proven else None


def worker_cores(view: PoolView, function: str = ANY) -> float:
    """Return the mean cores a job of *function* uses over its whole run."""
    lesson = lesson_of(view, function) or lesson_of(view, ANY)
    return max(LEAST_CORES, lesson.cores if lesson else view.momentum.cores)


def active(view: PoolView) -> Iterator[WorkerView]:
    """Yield the workers that run a job, or ran one a moment ago."""
    return (
        w
        for w in view.workers
        if w.state is WorkerState.BUSY or (w.state is WorkerState.IDLE and w.cores is not None)
    )


# --- CPU ---------------------------------------------------------------------------------------


def cpu_used(samples: Sequence[Sample], window: float) -> float:
    """Return the mean per cent of CPU in use over the last *window* seconds."""
    return _mean(samples, window, lambda s: s.cpu)


def cpu_held(samples: Sequence[Sample], window: float) -> float:
    """Return the mean per cent of CPU that the fast loop kept from being used."""
    return _mean(samples, window, lambda s: 100 * s.held / s.capacity)


def _mean(samples: Sequence[Sample], window: float, value: Callable[[Sample], float]) -> float:
    recent = [s for s in samples if s.at > samples[-1].at - window and s.interval > 0]
    seconds = sum(s.interval for s in recent)
    return sum(value(s) * s.interval for s in recent) / seconds if seconds else 0.0


def external_cores(samples: Sequence[Sample]) -> float:
    """Return the cores used by other processes than the pool's workers, over the slow window."""
    return max(0.0, _mean(samples, SLOW_WINDOW, lambda s: s.cpu / 100 * s.capacity - s.pool_cores))


def fresh(view: PoolView) -> int:
    """Return how many workers are starting or idle and have not been measured yet."""
    states = (WorkerState.STARTING, WorkerState.IDLE)
    return sum(w.state in states and w.cores is None for w in view.workers)


def cpu_room(view: PoolView, limits: Limits) -> int:
    """Return how many more workers the CPU bears.

    The least of three: what the measured means leave, less what workers busy for a short time
    have not shown in them yet (dead-time compensation); what the learned means of the running
    jobs leave, as some of them sleep now; and a small number while the jobs' needs are unknown.
    Workers that start or idle while jobs wait are about to run one.
    """
    if not view.samples:
        return 0
    proven = lesson_of(view, ANY) is not None
    cores = worker_cores(view)
    capacity = view.samples[-1].capacity
    allowed = limits.max_cpu / 100 * capacity
    headroom = min(
        allowed - _demand(view, window) / 100 * capacity - _unseen(view, window)
        for window in _windows(proven, limits)
    )
    if proven:
        lives = sum(worker_cores(view, w.function) for w in active(view))
        headroom = min(headroom, allowed - external_cores(view.samples) - lives)
    headroom -= fresh(view) * cores
    rounding = ROUNDING_UP if limits.throttle else ROUNDING
    room = max(math.floor(headroom / cores + rounding), _idle_room(view, limits))
    return min(room, _unproven_room(view, limits))


def _windows(proven: bool, limits: Limits) -> tuple[float, ...]:
    """Return the windows over which CPU is averaged; the least headroom of them counts.

    With the fast loop the short one is enough: if it misleads, throttling still keeps the limit.
    """
    if proven:
        return (SLOW_WINDOW,)
    return (FAST_WINDOW,) if limits.throttle else (FAST_WINDOW, SLOW_WINDOW)


def _demand(view: PoolView, window: float) -> float:
    """Return the per cent of CPU that is used, or would be without throttling."""
    return cpu_used(view.samples, window) + cpu_held(view.samples, window)


def _idle_room(view: PoolView, limits: Limits) -> int:
    """Return 1 if the CPU is idle though learned means leave no room, and throttling is on.

    Jobs that sleep and compute by turns leave the CPU idle whenever too few are awake; with the
    fast loop a few more than their mean needs fill it, and are held when all are awake.
    """
    patient = view.now - max(view.momentum.grown_at, view.momentum.shrunk_at) >= FAST_WINDOW
    if not limits.throttle or not patient or fresh(view) or not lesson_of(view, ANY):
        return 0
    windows = (FAST_WINDOW, SLOW_WINDOW)
    idle = all(cpu_used(view.samples, w) < limits.max_cpu - IDLE_BAND for w in windows)
    return int(idle and _overcommitted(view, limits) < 0)


def _overcommitted(view: PoolView, limits: Limits) -> float:
    """Return the cores by which the jobs' mean needs exceed what throttling can cope with."""
    lives = sum(worker_cores(view, w.function) for w in active(view))
    allowed = limits.max_cpu / 100 * view.samples[-1].capacity
    return lives + external_cores(view.samples) - OVERCOMMIT * allowed


def _unseen(view: PoolView, window: float) -> float:
    """Return the cores of newly busy workers that the mean over *window* seconds misses."""
    started = ((w, view.momentum.active.get(w.name, w.since)) for w in active(view))
    return sum(
        worker_cores(view, w.function) * (1 - (view.now - since) / window)
        for w, since in started
        if view.now - since < window
    )


def _unproven_room(view: PoolView, limits: Limits) -> int:
    """Return how many more workers may run unproven jobs: few at first, then one at a time."""
    proven = lesson_of(view, ANY) is not None
    strange = sum(
        not (lesson_of(view, w.function) if w.function else proven)
        for w in view.workers
        if w.state is WorkerState.BUSY
    )
    if proven and not strange:
        return limits.max_procs
    each, pause = UNPROVEN_PER_CORE, SLOW_WINDOW
    if limits.throttle:
        each, pause = UNPROVEN_PER_CORE_HELD, FAST_WINDOW
    most = max(1, math.ceil(each * view.samples[-1].capacity))
    coming = fresh(view)
    patient = not coming and view.now - view.momentum.grown_at >= pause
    return max(most - strange - coming, int(patient))


def cpu_excess(view: PoolView, limits: Limits) -> float:
    """Return the percentage points of CPU above limit and dead band; <= 0: within them.

    With the fast loop the CPU does not pass its limit; then it is by how much the jobs' mean needs
    exceed what throttling can cope with.
    """
    if not view.samples:
        return -math.inf
    quantum = 100 * worker_cores(view) / view.samples[-1].capacity
    used = min(cpu_used(view.samples, FAST_WINDOW), cpu_used(view.samples, SLOW_WINDOW))
    if limits.throttle:
        over = 100 * _overcommitted(view, limits) / view.samples[-1].capacity
        return over - 0.5 * quantum if used > limits.max_cpu - CPU_BAND else -math.inf
    return used - limits.max_cpu - max(CPU_BAND, SHRINK * quantum)


def surplus(view: PoolView, limits: Limits) -> int:
    """Return how many workers are too many for the CPU, at least one."""
    used = min(cpu_used(view.samples, FAST_WINDOW), cpu_used(view.samples, SLOW_WINDOW))
    over = (used - limits.max_cpu) / 100 * view.samples[-1].capacity
    if limits.throttle:
        over = _overcommitted(view, limits)
    return max(1, math.floor(over / worker_cores(view) + 0.5))
