"""Headroom: what CPU and memory still allow, and what a worker costs. Pure arithmetic.

CPU is sized by its mean and corrected by feedback; memory by its largest peak and checked
before a start, because CPU can be shared and memory cannot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .state import ANY, Lesson, Limits, PoolView, Sample, WorkerState, WorkerView

#: seconds over which CPU is averaged
FAST_WINDOW, SLOW_WINDOW = 3.0, 10.0
#: per cent points over the limit that are no reason to shrink
CPU_BAND = 4.0
#: the part of a worker that may be missing for one to be started all the same
ROUNDING = 0.25
#: bytes one worker is taken to need before any has been measured
FIRST_PSS = 32 * 2**20
#: worker-seconds of CPU evidence that are remembered
MOST_EVIDENCE = 40.0
LEAST_CORES = 0.02
#: busy workers a core while what they run is not proven
UNPROVEN_PER_CORE = 1.5
#: part of the memory limit beyond which nobody is started, and at which one is killed
MEMORY_SOFT, MEMORY_HARD = 0.95, 0.99
#: deviations of the mean peak that are held ready
DEVIATIONS = 3.0
#: part of what is left that an unproven job is taken to need at first, and seconds until that fades
UNPROVEN_SHARE, UNPROVEN_FADE = 1 / 6, 20.0


# --- what a worker costs -----------------------------------------------------------------------


def learn_cores(view: PoolView) -> tuple[float, float]:
    """Return the cores a busy worker uses, and the worker-seconds that rests on, one tick on."""
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
    """Return what is known of *function*; None: it has not been proven."""
    lesson = view.lessons.get(function)
    return lesson if lesson is not None and lesson.proven else None


def worker_cores(view: PoolView, function: str = ANY) -> float:
    """Return the cores a job of *function* uses on the mean of its life."""
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
    recent = [s for s in samples if s.at > samples[-1].at - window and s.interval > 0]
    seconds = sum(s.interval for s in recent)
    return sum(s.cpu * s.interval for s in recent) / seconds if seconds else 0.0


def external_cores(samples: Sequence[Sample]) -> float:
    """Return the cores others than the pool's workers used, over the slow window."""
    recent = [s for s in samples if s.at > samples[-1].at - SLOW_WINDOW and s.interval > 0]
    seconds = sum(s.interval for s in recent)
    used = sum((s.cpu / 100 * s.capacity - s.pool_cores) * s.interval for s in recent)
    return max(0.0, used / seconds) if seconds else 0.0


def fresh(view: PoolView) -> int:
    """Return how many workers start or idle and have shown nothing of what they will use."""
    states = (WorkerState.STARTING, WorkerState.IDLE)
    return sum(w.state in states and w.cores is None for w in view.workers)


def cpu_room(view: PoolView, limits: Limits) -> int:
    """Return how many more workers the CPU bears.

    The least of three: what the means leave, less what workers have not shown yet (dead-time
    compensation); what the whole lives of the jobs at work leave, which sleeping ones hide; and
    a small number while nobody knows what the jobs are like. Workers that start or idle while jobs
    wait are about to run one.
    """
    if not view.samples:
        return 0
    proven = lesson_of(view, ANY) is not None
    cores = worker_cores(view)
    capacity = view.samples[-1].capacity
    allowed = limits.max_cpu / 100 * capacity
    headroom = min(
        allowed - cpu_used(view.samples, window) / 100 * capacity - _unseen(view, window)
        for window in ((SLOW_WINDOW,) if proven else (FAST_WINDOW, SLOW_WINDOW))
    )
    if proven:
        lives = sum(worker_cores(view, w.function) for w in active(view))
        headroom = min(headroom, allowed - external_cores(view.samples) - lives)
    headroom -= fresh(view) * cores
    return min(math.floor(headroom / cores + ROUNDING), _unproven_room(view, limits))


def _unseen(view: PoolView, window: float) -> float:
    """Return the cores that the mean over *window* seconds does not show of workers busy since."""
    started = ((w, view.momentum.active.get(w.name, w.since)) for w in active(view))
    return sum(
        worker_cores(view, w.function) * (1 - (view.now - since) / window)
        for w, since in started
        if view.now - since < window
    )


def _unproven_room(view: PoolView, limits: Limits) -> int:
    """Return how many more workers may run what is not known yet: few, then one at a time."""
    proven = lesson_of(view, ANY) is not None
    strange = sum(
        not (lesson_of(view, w.function) if w.function else proven)
        for w in view.workers
        if w.state is WorkerState.BUSY
    )
    if proven and not strange:
        return limits.max_procs
    most = max(1, math.ceil(UNPROVEN_PER_CORE * view.samples[-1].capacity))
    coming = fresh(view)
    patient = not coming and view.now - view.momentum.grown_at >= SLOW_WINDOW
    return max(most - strange - coming, int(patient))


def cpu_excess(view: PoolView, limits: Limits) -> float:
    """Return the per cent points of CPU beyond limit and dead band; <= 0: within them."""
    if not view.samples:
        return -math.inf
    quantum = 100 * worker_cores(view) / view.samples[-1].capacity
    used = min(cpu_used(view.samples, FAST_WINDOW), cpu_used(view.samples, SLOW_WINDOW))
    return used - limits.max_cpu - max(CPU_BAND, 0.6 * quantum)


def surplus(view: PoolView, limits: Limits) -> int:
    """Return how many workers are too many for the CPU: whole ones, one at least."""
    used = min(cpu_used(view.samples, FAST_WINDOW), cpu_used(view.samples, SLOW_WINDOW))
    over = (used - limits.max_cpu) / 100 * view.samples[-1].capacity
    return max(1, math.floor(over / worker_cores(view) + 0.5))


# --- memory ------------------------------------------------------------------------------------


def memory_limit(view: PoolView, limits: Limits) -> tuple[float, float]:
    """Return the limit that is nearest, and what counts against it, both in bytes."""
    if not view.samples:
        return math.inf, 0.0
    latest = view.samples[-1]
    bounds = [(latest.mem_total * limits.max_mem / 100, float(latest.mem_used))]
    if limits.mem_budget is not None:
        bounds.append((float(limits.mem_budget), float(latest.pool_mem)))
    return min(bounds, key=lambda bound: bound[0] - bound[1])


def memory_headroom(view: PoolView, limits: Limits) -> float:
    """Return the bytes that may still be used before a limit; negative: over it."""
    limit, used = memory_limit(view, limits)
    return limit - used


def memory_pressed(view: PoolView, limits: Limits) -> bool:
    """Return whether memory is so near its limit, or so fast, that nobody may be started."""
    limit, used = memory_limit(view, limits)
    if used > MEMORY_SOFT * limit:
        return True
    if len(view.samples) < 2:
        return False
    before, latest = view.samples[-2:]
    if latest.swapping or (latest.stalled or 0.0) > 1.0:
        return True
    seconds = latest.at - before.at
    grown = max(latest.mem_used - before.mem_used, latest.pool_mem - before.pool_mem)
    return seconds > 0 and limit - used < 2 * grown / seconds


def memory_room(view: PoolView, limits: Limits) -> int:
    """Return how many workers memory admits, each taken to grow to what its job usually needs.

    Held ready on top: deviations of the whole, and for one of them to be the largest known.
    """
    limit, used = memory_limit(view, limits)
    if math.isinf(limit):
        return 2**31
    left = max(0.0, limit - used)
    usual = _any_peak(view, left)
    growth = sum(max(0.0, peak_of(view, w, left) - (w.pss or 0)) for w in view.workers)
    lesson = lesson_of(view, ANY)
    spread, most = (lesson.spread, lesson.most) if lesson else (0.0, 0.0)
    most = max([most, usual, *(w.pss for w in view.workers if w.pss)])
    room = MEMORY_SOFT * limit - used - growth - (most - usual)
    count = max(0, math.floor(room / usual))
    size = len(view.workers)
    while count and count * usual + DEVIATIONS * spread * math.sqrt(size + count) > room:
        count -= 1
    return count


def peak_of(view: PoolView, worker: WorkerView, room: float) -> float:
    """Return the bytes *worker* is taken to need at the most; *room* bytes are left."""
    if worker.state is not WorkerState.BUSY and worker.state is not WorkerState.WAITING:
        return _any_peak(view, room)
    lesson = lesson_of(view, worker.function)
    if lesson is not None and lesson.peak > 0:
        return max(lesson.peak, float(worker.pss or 0))
    age = view.now - worker.job_started if worker.job_started is not None else 0.0
    return _unproven_peak(view, room, age)


def _any_peak(view: PoolView, room: float) -> float:
    """Return the bytes the next job is taken to need."""
    lesson = lesson_of(view, ANY)
    if lesson is not None and lesson.peak > 0:
        return lesson.peak
    ages = (view.now - w.job_started for w in view.workers if w.job_started is not None)
    return _unproven_peak(view, room, max(ages, default=0.0))


def _unproven_peak(view: PoolView, room: float, age: float) -> float:
    """Return what a job is taken to need that nobody knows: twice the largest, a share at least.

    Both fade while it runs: what it has not taken in a while, it will not take.
    """
    largest = max((w.pss for w in view.workers if w.pss), default=FIRST_PSS)
    fade = max(0.0, 1 - age / UNPROVEN_FADE)
    return max(largest * (1 + 1 / (1 + age / UNPROVEN_FADE)), UNPROVEN_SHARE * room * fade)
