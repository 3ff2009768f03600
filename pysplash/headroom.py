"""Headroom: what CPU and memory still allow, and what a worker costs. Pure arithmetic.

CPU is sized by its mean and corrected by feedback; memory by its largest peak and checked
before a start, because CPU can be shared and memory cannot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .state import Limits, PoolView, Sample, WorkerState

#: seconds over which CPU is averaged: the higher of the two counts
FAST_WINDOW, SLOW_WINDOW = 3.0, 10.0
#: seconds after its start in which a worker's CPU is expected rather than seen
YOUNG = 3.0
#: per cent points over the limit that are no reason to shrink
CPU_BAND = 4.0
#: bytes one worker is taken to need before any has been measured
FIRST_PSS = 32 * 2**20
#: worker-seconds of CPU evidence that are remembered
MOST_EVIDENCE = 40.0
LEAST_CORES = 0.02


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


def cpu_used(samples: Sequence[Sample], window: float) -> float:
    """Return the mean per cent of CPU in use over the last *window* seconds."""
    recent = [s for s in samples if s.at > samples[-1].at - window and s.interval > 0]
    seconds = sum(s.interval for s in recent)
    return sum(s.cpu * s.interval for s in recent) / seconds if seconds else 0.0


def cpu_room(view: PoolView, free: int, limits: Limits) -> int:
    """Return how many more workers the CPU bears: headroom less what is yet to be shown.

    Workers that start or idle (*free*) while jobs wait are about to run one; young busy ones
    may not have reached their usual CPU.
    """
    if not view.samples:
        return 0
    capacity = view.samples[-1].capacity
    cores = max(LEAST_CORES, view.momentum.cores)
    used = max(cpu_used(view.samples, FAST_WINDOW), cpu_used(view.samples, SLOW_WINDOW))
    young = (
        w for w in view.workers if w.state is WorkerState.BUSY and view.now - w.spawned_at < YOUNG
    )
    unseen = free * cores + sum(max(0.0, cores - (w.cores or 0.0)) for w in young)
    headroom = (limits.max_cpu - used) / 100 * capacity - unseen
    return math.floor(headroom / cores + 0.25)


def cpu_excess(view: PoolView, limits: Limits) -> float:
    """Return the per cent points of CPU beyond limit and dead band; <= 0: within them."""
    if not view.samples:
        return -math.inf
    quantum = 100 * max(LEAST_CORES, view.momentum.cores) / view.samples[-1].capacity
    used = min(cpu_used(view.samples, FAST_WINDOW), cpu_used(view.samples, SLOW_WINDOW))
    return used - limits.max_cpu - max(CPU_BAND, 0.6 * quantum)


def memory_headroom(view: PoolView, limits: Limits) -> float:
    """Return the bytes that may still be used before a limit; negative: over it."""
    if not view.samples:
        return math.inf
    latest = view.samples[-1]
    headroom = latest.mem_total * limits.max_mem / 100 - latest.mem_used
    if limits.mem_budget is not None:
        headroom = min(headroom, limits.mem_budget - latest.pool_mem)
    return headroom


def memory_room(view: PoolView, limits: Limits) -> int:
    """Return how many workers memory admits, each taken to grow to the largest seen so far."""
    known = [w.pss for w in view.workers if w.pss]
    largest = max(known, default=FIRST_PSS)
    growth = sum(largest - (w.pss or 0) for w in view.workers)
    room = memory_headroom(view, limits) - growth
    return 2**31 if math.isinf(room) else math.floor(room / largest)
