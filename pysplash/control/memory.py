"""Memory headroom: how many more workers it allows, by what their jobs will need. Pure.

Memory is taken for good until a job ends, so it is sized by peaks and checked before a start. What
jobs need is learned; an unproven job is taken to grow on as it has so far. Sizing by peaks per
job with a margin is the Kubernetes vertical autoscaler's way, checking before a start GNU
parallel's, looking ahead along the growth systemd-oomd's and oomd's.
"""

from __future__ import annotations

import math

from .cpu_headroom import lesson_of
from .model import ANY, Lesson, Limits, PoolView, WorkerState, WorkerView

#: bytes one worker is taken to need before any has been measured
FIRST_PSS = 32 * 2**20
#: part of the memory limit beyond which nobody is started, and at which one is killed
MEMORY_SOFT, MEMORY_HARD = 0.95, 0.99
#: part of the limit at which a busy worker is asked to leave where the fast loop holds at first
MEMORY_FIRM = 0.98
#: per cent of the time in which some process waits for memory, beyond which nobody is started
STALLED = 10.0
#: seconds between two decisions when memory is pressed
HURRY = 0.25
#: deviations of the mean peak that are held ready
DEVIATIONS = 3.0
#: the same for the mean level of all jobs, where throttling can hold workers back
CROWD_DEVIATIONS = 1.0
#: deviations of its peak that the oldest job may go beyond the mean, up to the largest known
OLDEST_DEVIATIONS = 2.0
#: part of what is left that an unproven job is taken to need at first, and seconds until that fades
UNPROVEN_SHARE, UNPROVEN_FADE = 1 / 6, 20.0
#: seconds for which the memory of an unproven job is taken to grow on as it has so far
UNPROVEN_GROWTH = 10.0


def memory_limit(view: PoolView, limits: Limits) -> tuple[float, float]:
    """Return the limit that is nearest to being reached, and its use, both in bytes."""
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
    """Return whether memory is so near its limit, or grows so fast, that nobody may start."""
    limit, used = memory_limit(view, limits)
    if used > MEMORY_SOFT * limit:
        return True
    if len(view.samples) < 2:
        return False
    before, latest = view.samples[-2:]
    if latest.swapping or (latest.stalled or 0.0) > STALLED:
        return True
    seconds = latest.at - before.at
    grown = max(latest.mem_used - before.mem_used, latest.pool_mem - before.pool_mem)
    return seconds > 0 and limit - used < 2 * grown / seconds


def pause(view: PoolView, limits: Limits) -> float:
    """Return the most seconds until the next decision."""
    return min(HURRY if memory_pressed(view, limits) else 1.0, limits.scale_frequency)


def memory_room(view: PoolView, limits: Limits, *, asked_for: bool = False) -> int:
    """Return how many more workers memory allows, by what all their jobs will need.

    Every worker is expected to grow to its job's mean peak, with a margin for deviations and for
    one of them to become the largest known. With throttling, which holds the newest back if too
    many grow at once, the mean level of all jobs is enough.

    If the size was *asked_for*, no memory is reserved for unknown jobs that do not run yet: a pool
    of a fixed size would otherwise stay too small until some come.
    """
    limit, used = memory_limit(view, limits)
    if math.isinf(limit):
        return 2**31
    lesson = lesson_of(view, ANY)
    if limits.throttle and lesson is not None and lesson.level > 0:
        return _crowd_room(view, lesson, MEMORY_SOFT * limit - used)
    strange = any(w.job_started is not None for w in view.workers)
    left = max(0.0, limit - used) if strange or not asked_for else 0.0
    usual = _any_peak(view, left)
    growth = sum(max(0.0, peak_of(view, w, left) - (w.pss or 0)) for w in view.workers)
    spread, most = (lesson.spread, lesson.most) if lesson else (0.0, 0.0)
    most = max([most, usual, *(w.pss for w in view.workers if w.pss)])
    room = MEMORY_SOFT * limit - used - growth - (most - usual)
    return _fitting(len(view.workers), room, usual, DEVIATIONS * spread)


def _crowd_room(view: PoolView, lesson: Lesson, left: float) -> int:
    """Return how many more fit into *left* bytes if each uses the mean over its job."""
    size = len(view.workers)
    room = left + sum(w.pss or 0 for w in view.workers) - size * lesson.level
    room -= max(0.0, lesson.most - lesson.peak)
    return _fitting(size, room, lesson.level, CROWD_DEVIATIONS * lesson.sway)


def _fitting(size: int, room: float, each: float, deviation: float) -> int:
    """Return how many more than *size* fit into *room*, with a safety margin of *deviation*."""
    count = max(0, math.floor(room / each))
    while count and count * each + deviation * math.sqrt(size + count) > room:
        count -= 1
    return count


def reserve(view: PoolView, limits: Limits) -> float:
    """Return the bytes to keep free for the oldest job, so that it can finish."""
    running = [w for w in view.workers if w.state is WorkerState.BUSY and w.job_started is not None]
    oldest = min(running, key=lambda w: w.job_started or 0.0, default=None)
    if oldest is None:
        return 0.0
    room = max(0.0, memory_headroom(view, limits))
    peak, lesson = peak_of(view, oldest, room), lesson_of(view, oldest.function)
    if lesson is not None:
        peak = max(peak, min(lesson.most, lesson.peak + OLDEST_DEVIATIONS * lesson.spread))
    return min(room, peak - (oldest.pss or 0))


def peak_of(view: PoolView, worker: WorkerView, room: float) -> float:
    """Return the expected peak of *worker* in bytes; *room* bytes are left."""
    if worker.state is not WorkerState.BUSY and worker.state is not WorkerState.WAITING:
        return _any_peak(view, room)
    lesson = lesson_of(view, worker.function)
    if lesson is not None:
        return max(lesson.peak, float(worker.pss or FIRST_PSS))
    return _unproven_peak(view, worker, room)


def _any_peak(view: PoolView, room: float) -> float:
    """Return the expected peak of the next job in bytes."""
    lesson = lesson_of(view, ANY)
    largest = max((w.pss for w in view.workers if w.pss), default=FIRST_PSS)
    if lesson is not None:
        return lesson.peak or float(largest)
    strange = (w for w in view.workers if w.state is WorkerState.BUSY)
    return max(
        (_unproven_peak(view, w, room) for w in strange),
        default=max(2.0 * largest, UNPROVEN_SHARE * room),
    )


def _unproven_peak(view: PoolView, worker: WorkerView, room: float) -> float:
    """Return the expected peak of an unproven job: it grows on as before, or takes a share.

    Both fade with the time the job, or the longest-running job, has run without needing it.
    """
    fade = max(0.0, 1 - _age(view, worker) / UNPROVEN_FADE)
    size = float(worker.pss or FIRST_PSS)
    growth = size / max(1.0, _age(view, worker)) * UNPROVEN_GROWTH * fade
    longest = max(_age(view, w) for w in view.workers)
    share = UNPROVEN_SHARE * room * max(0.0, 1 - longest / UNPROVEN_FADE)
    return max(size + growth, share)


def _age(view: PoolView, worker: WorkerView) -> float:
    return view.now - worker.job_started if worker.job_started is not None else 0.0
