"""Shedding: which workers to stop when the CPU or the memory limit is exceeded. Pure.

CPU can be shared, so it is given time, and several may stop together; memory cannot, so it is
not damped at all, but one at a time stops, and never the last.

Sources: a wait that learns from its own flapping, and the two memory thresholds, from uWSGI's
cheaper; two windows from Crawlee; the newest first, and back into the queue, from GNU parallel
and Ray, which also waits until the one it killed is gone.
"""

from __future__ import annotations

import math

from .cpu_headroom import cpu_excess, surplus
from .memory import MEMORY_FIRM, MEMORY_HARD, MEMORY_SOFT, memory_limit
from .model import Decision, Kill, Limits, PoolView, Reason, Stop, WorkerState, WorkerView

#: seconds CPU must be over its limit before a worker is taken back
OVER_CPU = 4.0
#: part of the pool that may be leaving for the CPU's sake
MOST_SHRINK = 1 / 3
#: most that flapping stretches a wait, and the seconds in which half of it is forgotten
MOST_DWELL, DWELL_HALF_LIFE = 16.0, 60.0


def floor(view: PoolView, limits: Limits) -> int:
    """Return the smallest size in force: min_procs, moved by TTIN and TTOU."""
    return max(0, min(limits.max_procs, limits.min_procs + view.floor))


def dwell(view: PoolView) -> float:
    """Return the factor on waits before a change: 1 unless changes were soon reversed."""
    past = view.momentum
    faded: float = 0.5 ** ((view.now - past.flapped_at) / DWELL_HALF_LIFE)
    return 1 + (past.dwell - 1) * min(1.0, faded)


def relieve_cpu(view: PoolView, leaving: int, limits: Limits) -> Decision | None:
    """Stop the workers that are too many for the CPU, less those *leaving* already."""
    since = view.momentum.over_cpu_since
    size = len(view.workers)
    over = since is not None and view.now - since >= OVER_CPU * dwell(view)
    quiet = view.now - view.momentum.shrunk_at < limits.quiet_period
    if not over or quiet or cpu_excess(view, limits) <= 0:
        return None
    most = max(1, math.floor(MOST_SHRINK * (size + leaving)))
    count = min(surplus(view, limits), most) - leaving
    return _stop(view, min(count, size - max(1, floor(view, limits))), Reason.CPU)


def _stop(view: PoolView, count: int, reason: Reason) -> Decision | None:
    """Stop *count* workers warmly: idle ones if there are any, else the newest busy ones.

    A parked one holds others up, so it is never chosen.
    """
    able = [w for w in view.workers if w.state in (WorkerState.IDLE, WorkerState.BUSY)]
    able.sort(key=lambda w: (w.state is WorkerState.IDLE, w.spawned_at), reverse=True)
    stops = tuple(Stop(w.name, reason) for w in able[: max(0, count)])
    return Decision(len(view.workers) - len(stops), reason, stops) if stops else None


def relieve_memory(
    view: PoolView, leaving: tuple[WorkerView, ...], limits: Limits
) -> Decision | None:
    """Stop one worker at a time, idle or newest, when memory is short; in the end kill it.

    It is killed only if the pool's own memory exceeds the limit: a kill frees no one else's.
    """
    limit, used = memory_limit(view, limits)
    size = len(view.workers)
    if used <= MEMORY_SOFT * limit or not size:
        return None
    own = view.samples[-1].pool_mem
    victim = _last_resort(leaving)
    if used > MEMORY_HARD * limit and used - own < limit and victim is not None:
        dying = any(w.kill_at is not None for w in leaving)
        kills = () if dying else (Kill(victim.name, Reason.MEMORY),)
        return Decision(size, Reason.MEMORY, kills)
    holding = limits.throttle and used <= MEMORY_FIRM * limit
    idle = any(w.state is WorkerState.IDLE for w in view.workers)
    if leaving or size <= 1 or (holding and not idle):
        return None
    return _stop(view, 1, Reason.MEMORY)


def _last_resort(leaving: tuple[WorkerView, ...]) -> WorkerView | None:
    """Return the newest worker that was stopped for memory and still runs its job."""
    return max(
        (
            w
            for w in leaving
            if w.stop_reason is Reason.MEMORY and w.job_started is not None and not w.parked
        ),
        key=lambda w: w.spawned_at,
        default=None,
    )
