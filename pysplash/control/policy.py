"""The policy: decides the target, how many workers there should be, and which start or stop.

Rule of this file: no clock, no randomness, no I/O, no memory. Everything known is in the view, so
every decision can be made again.

:func:`decide` is read from the top: a stopping pool empties itself; workers that hang are
escalated; then the first rule that applies sets the size. Growth and shrinking are damped apart,
memory pressure is not damped at all. What CPU and memory allow is computed in :mod:`.cpu_headroom`
and :mod:`.memory`, whom to stop when a limit is passed in :mod:`.shedding`.

Sources: steps of 1, 2, 4, 8 and "a starting server counts as idle" from Apache's prefork; one
stop at a time from uWSGI's cheaper; headroom less what young workers have not shown yet from
dead-time compensation as in HPA and make -l; compensation for parked jobs from .NET's and
Java's fork-join pools.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType

from .cpu_headroom import active, cpu_excess, cpu_room, learn_cores
from .memory import memory_pressed, memory_room
from .model import (
    Action,
    Decision,
    Drain,
    Kill,
    Limits,
    Momentum,
    PoolView,
    Reason,
    Spawn,
    Stop,
    WorkerState,
    WorkerView,
)
from .shedding import MOST_DWELL, dwell, floor, relieve_cpu, relieve_memory

#: seconds past its timeout after which a job's worker is asked to stop, then killed
OVERDUE_STOP, OVERDUE_KILL = 1.0, 5.0
#: seconds of the first wait after a failed start, doubled each time, and the longest wait
BACKOFF_FIRST, BACKOFF_MOST = 0.5, 30.0
#: seconds a worker must have been parked to count as one that runs nothing
PARKED = 0.5
#: seconds without work before a burst is over
DRAINED = 0.5
#: a change taken back within so many seconds was flapping
FLAP = 60.0

_RUNNING = (WorkerState.BUSY, WorkerState.WAITING)


def decide(view: PoolView, limits: Limits) -> Decision:
    """Return how many workers there should be, why, and what to do about it now."""
    if view.drain is not None:
        return _empty(view)
    escalated = _escalate(view, limits)
    doomed = {action.name for action in escalated}
    leaving = tuple(w for w in view.workers if w.stopping or w.name in doomed)
    live = tuple(w for w in view.workers if w not in leaving)
    sized = _resize(replace(view, workers=live), leaving, limits)
    return replace(sized, actions=(*escalated, *sized.actions))


def remember(view: PoolView, decision: Decision, limits: Limits) -> Momentum:
    """Return the momentum for the next view after this decision."""
    old = view.momentum
    grown = sum(a.count for a in decision.actions if isinstance(a, Spawn))
    shrunk = any(isinstance(a, Stop) and a.reason in _SIZING for a in decision.actions)
    jobs = sum(w.jobs for w in view.workers)
    over = cpu_excess(view, limits) > 0
    cores, evidence = learn_cores(view)
    flapped = grown and decision.reason is Reason.BACKLOG and view.now - old.shrunk_at < FLAP
    return Momentum(
        grown_at=view.now if grown else old.grown_at,
        shrunk_at=view.now if shrunk else old.shrunk_at,
        step=_next_step(decision, grown, old.step),
        over_cpu_since=(old.over_cpu_since or view.now) if over else None,
        drained_since=_drained_since(view, jobs),
        drained_jobs=jobs,
        cores=cores,
        evidence=evidence,
        active=MappingProxyType({w.name: old.active.get(w.name, w.since) for w in active(view)}),
        dwell=min(MOST_DWELL, 2 * dwell(view)) if flapped else old.dwell,
        flapped_at=view.now if flapped else old.flapped_at,
    )


_SIZING = (Reason.IDLE, Reason.CPU, Reason.MEMORY)


def _next_step(decision: Decision, grown: int, step: int) -> int:
    if grown:
        return grown if decision.reason is Reason.BACKLOG else step
    return 0 if decision.reason in (Reason.STEADY, Reason.IDLE) else step


def _drained_since(view: PoolView, jobs: int) -> float | None:
    if view.queued != 0 or any(w.state is not WorkerState.IDLE for w in view.workers):
        return None
    old = view.momentum
    same = old.drained_since is not None and old.drained_jobs == jobs
    return old.drained_since if same else view.now


# --- a stopping pool ---------------------------------------------------------------------------


def _empty(view: PoolView) -> Decision:
    """Stop everyone; kill whoever is left when the time is up, or at once if the stop is cold."""
    cold = view.drain is Drain.COLD
    late = view.drain_deadline is not None and view.now >= view.drain_deadline
    reason = Reason.COLD if cold else Reason.DRAIN
    actions: list[Action] = [Stop(w.name, reason) for w in view.workers if w.stop_at is None]
    if cold or late:
        actions += [
            Kill(w.name, Reason.COLD if cold else Reason.TERMINATE)
            for w in view.workers
            if w.stop_at is not None and w.kill_at is None
        ]
    return Decision(0, reason, tuple(actions))


# --- workers that hang -------------------------------------------------------------------------


def _escalate(view: PoolView, limits: Limits) -> tuple[Stop | Kill, ...]:
    """Return stops and kills of workers that hang; without Redis, silence is no sign of that."""
    hearing = view.queued is not None
    verdicts = (_verdict(w, view.now, limits, hearing) for w in view.workers if w.kill_at is None)
    return tuple(v for v in verdicts if v is not None)


def _verdict(worker: WorkerView, now: float, limits: Limits, hearing: bool) -> Stop | Kill | None:
    late = _overdue(worker, now)
    if worker.stop_at is None:
        if late > OVERDUE_STOP:
            return Stop(worker.name, Reason.OVERDUE)
        silent = hearing and _silent(worker, now, limits)
        return Stop(worker.name, Reason.ZOMBIE) if silent else None
    if late > OVERDUE_KILL:
        return Kill(worker.name, Reason.OVERDUE)
    must_obey = worker.stop_reason is Reason.ZOMBIE or worker.job_started is None
    if must_obey and now - worker.stop_at >= limits.terminate:
        return Kill(worker.name, Reason.TERMINATE)
    return None


def _overdue(worker: WorkerView, now: float) -> float:
    """Seconds past the timeout of the worker's job; never positive without one."""
    if worker.job_started is None or worker.job_timeout is None:
        return -math.inf
    return now - worker.job_started - worker.job_timeout


def _silent(worker: WorkerView, now: float, limits: Limits) -> bool:
    """Return whether an idle or starting worker gives no sign of life; jobs have timeouts."""
    if worker.state is WorkerState.STARTING:
        return now - worker.beat > min(limits.boot_timeout, limits.zombie_timeout)
    return worker.job_started is None and now - worker.beat > limits.zombie_timeout


# --- the size ----------------------------------------------------------------------------------


def _resize(view: PoolView, leaving: tuple[WorkerView, ...], limits: Limits) -> Decision:
    """Decide the size; `view.workers` are those that stay."""
    size = len(view.workers)
    processes = size + len(leaving)
    if view.queued is None:
        return Decision(size, Reason.REDIS)
    if view.suspended:
        return Decision(size, Reason.SUSPENDED)
    if limits.burst and _burst_over(view):
        return Decision(0, Reason.BURST, tuple(Stop(w.name, Reason.BURST) for w in view.workers))
    return (
        relieve_memory(view, leaving, limits)
        or _fill(view, processes, limits)
        or _restart(view, processes, limits)
        or relieve_cpu(view, len(leaving), limits)
        or _grow(view, processes, limits)
        or _retire(view, limits)
        or Decision(size, Reason.STEADY)
    )


def _burst_over(view: PoolView) -> bool:
    since = view.momentum.drained_since
    calm = since is not None and view.now - since >= DRAINED
    same = view.momentum.drained_jobs == sum(w.jobs for w in view.workers)
    return calm and same and _drained_since(view, view.momentum.drained_jobs) is not None


def _fill(view: PoolView, processes: int, limits: Limits) -> Decision | None:
    size, least = len(view.workers), floor(view, limits)
    if size >= least:
        return None
    room = limits.max_procs - processes
    if room <= 0:
        return Decision(least, Reason.MAX)
    count, held = _admit(view, min(least - size, room), limits, asked_for=True)
    if count <= 0:
        return Decision(least, held)
    return Decision(least, Reason.MIN, (Spawn(count, Reason.MIN),))


def _admit(
    view: PoolView, wanted: int, limits: Limits, *, asked_for: bool = False
) -> tuple[int, Reason]:
    """Return how many of *wanted* may start, and what holds the others back."""
    if view.boot_failures:
        wait = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(view.boot_failures - 1, 10))
        starting = any(w.state is WorkerState.STARTING for w in view.workers)
        if starting or view.now < view.boot_failed_at + wait:
            return 0, Reason.BACKOFF
        wanted = min(wanted, 1)
    if memory_pressed(view, limits):
        return 0, Reason.MEMORY
    room = memory_room(view, limits, asked_for=asked_for)
    return (wanted, Reason.STEADY) if room >= wanted else (max(0, room), Reason.MEMORY)


def _grow(view: PoolView, processes: int, limits: Limits) -> Decision | None:
    size = len(view.workers)
    free = sum(w.state in (WorkerState.IDLE, WorkerState.STARTING) for w in view.workers)
    wanted = (view.queued or 0) - free
    if wanted <= 0:
        return None
    parked = _all_parked(view)
    if not parked and not _settled(view, limits):
        return Decision(size, Reason.QUIET)
    latest = view.samples[-1] if view.samples else None
    step = min(limits.max_per_scale, max(1, 2 * view.momentum.step))
    compensation = max(1, math.ceil(latest.capacity)) if latest else 1
    caps = (
        (limits.max_procs - processes, Reason.MAX),
        (compensation if parked else cpu_room(view, limits), Reason.CPU),
        (min(wanted, step, limits.max_per_scale), Reason.BACKLOG),
    )
    count, binding = min(caps, key=lambda cap: cap[0])
    if count <= 0:
        return Decision(size, binding)
    count, held = _admit(view, count, limits)
    if count == 0:
        return Decision(size, held)
    return Decision(size + count, Reason.BACKLOG, (Spawn(count, Reason.BACKLOG),))


def _all_parked(view: PoolView) -> bool:
    """Return whether every worker waits for other jobs, so that nobody is left to run these.

    Short waits do not count: most jobs that are waited for end soon, or run inside the waiting one.
    """
    return bool(view.workers) and all(
        w.state is WorkerState.WAITING and view.now - w.since >= PARKED for w in view.workers
    )


def _settled(view: PoolView, limits: Limits) -> bool:
    """Return whether the last change of size has had time to show in the measurements."""
    past = view.momentum
    return view.now - past.grown_at >= max(
        limits.scale_frequency, limits.quiet_period
    ) and view.now - past.shrunk_at >= limits.quiet_period * dwell(view)


def _retire(view: PoolView, limits: Limits) -> Decision | None:
    size = len(view.workers)
    spare = size - floor(view, limits)
    if not limits.retire_idle or view.queued or spare <= 0:
        return None
    rested = sorted(
        (w for w in view.workers if w.state is WorkerState.IDLE),
        key=lambda w: w.since,
    )
    gone = [w for w in rested if view.now - w.since >= limits.idle_seconds * dwell(view)]
    gone = gone[: min(spare, limits.max_per_scale)]
    if not gone:
        return None
    return Decision(size - len(gone), Reason.IDLE, tuple(Stop(w.name, Reason.IDLE) for w in gone))


def _restart(view: PoolView, processes: int, limits: Limits) -> Decision | None:
    """Replace workers from before the restart, a quarter of the pool at a time."""
    size = len(view.workers)
    old = [w for w in view.workers if w.spawned_at < view.restart_before]
    moving = processes - size + sum(w.state is WorkerState.STARTING for w in view.workers)
    batch = min(len(old), max(1, size // 4) - moving)
    if batch <= 0:
        return None
    chosen = sorted(old, key=lambda w: (w.state in _RUNNING, w.spawned_at))[:batch]
    stops: tuple[Action, ...] = tuple(Stop(w.name, Reason.RESTART) for w in chosen)
    count, _ = _admit(view, min(batch, limits.max_procs - processes), limits, asked_for=True)
    spawns = (Spawn(count, Reason.RESTART),) if count > 0 else ()
    return Decision(size - batch + max(count, 0), Reason.RESTART, (*stops, *spawns))
