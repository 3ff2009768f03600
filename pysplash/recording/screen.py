"""The live screen of a pool, as lines of text. Pure: the caller prints them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pysplash.control.model import Decision, PoolView, Reason, WorkerState

BAR = 24
HISTORY = 6
STATES = (
    WorkerState.BUSY,
    WorkerState.WAITING,
    WorkerState.IDLE,
    WorkerState.STARTING,
    WorkerState.STOPPING,
)
#: what each reason means, as a person would say it
MEANING = {
    Reason.STEADY: "as many workers as the work needed",
    Reason.MIN: "the smallest size was filled up",
    Reason.BACKLOG: "jobs waited and there was room",
    Reason.CPU: "the CPU limit allowed no more",
    Reason.MEMORY: "the memory limit allowed no more",
    Reason.MAX: "max_procs was reached",
    Reason.QUIET: "the last change was still being measured",
    Reason.IDLE: "idle workers retired",
    Reason.BACKOFF: "workers failed to start and the pool waited before the next try",
    Reason.SUSPENDED: "RQ was suspended",
    Reason.REDIS: "the queues could not be read",
    Reason.RESTART: "workers were being replaced",
    Reason.BURST: "all work was done",
    Reason.DRAIN: "the pool was stopping",
    Reason.COLD: "the pool was stopping at once",
}


@dataclass(frozen=True, slots=True)
class ExplainedChange:
    """One change of target: seconds since the start, from, to, reason, queue and CPU."""

    at: float
    before: int
    after: int
    reason: Reason
    queued: int | None
    cpu: float


@dataclass(slots=True)
class History:
    """What a pool did so far: its changes of target, and how long each reason applied."""

    started: float | None = None
    target: int = 0
    most: int = 0
    changes: list[ExplainedChange] = field(default_factory=list)
    held: Counter[Reason] = field(default_factory=Counter)
    #: jobs done by each worker, departed ones included
    jobs: dict[str, int] = field(default_factory=dict)
    _seen_at: float = 0.0

    def add(self, view: PoolView, decision: Decision) -> None:
        """Add one tick."""
        if self.started is None:
            self.started = self._seen_at = view.now
        self.held[decision.reason] += round(1000 * (view.now - self._seen_at))
        self._seen_at = view.now
        self.most = max(self.most, len(view.workers))
        self.jobs.update((worker.name, worker.jobs) for worker in view.workers)
        if decision.target != self.target:
            cpu = view.samples[-1].cpu if view.samples else 0.0
            self.changes.append(
                ExplainedChange(
                    view.now - self.started,
                    self.target,
                    decision.target,
                    decision.reason,
                    view.queued,
                    cpu,
                )
            )
            self.target = decision.target


def bar(per_cent: float, limit: float, width: int = BAR) -> str:
    """Return a bar of *width* cells, the limit marked in it."""
    full = round(min(100.0, max(0.0, per_cent)) / 100 * width)
    cells = ["█" if i < full else "·" for i in range(width)]
    mark = min(width - 1, round(limit / 100 * width))
    if cells[mark] != "█":
        cells[mark] = "┊"
    return "".join(cells)


def census(view: PoolView) -> Counter[WorkerState]:
    """Return how many workers there are in each state, those asked to stop as stopping."""
    return Counter(WorkerState.STOPPING if w.stopping else w.state for w in view.workers)


def clock(seconds: float) -> str:
    """Return seconds as mm:ss."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def screen(
    view: PoolView, decision: Decision, history: History, max_cpu: float, max_mem: float
) -> list[str]:
    """Return the lines of the live screen, the same number each time."""
    latest = view.samples[-1] if view.samples else None
    cpu, mem = (latest.cpu, latest.mem) if latest else (0.0, 0.0)
    states = census(view)
    done = sum(history.jobs.values())
    queued = "?" if view.queued is None else view.queued
    lines = [
        f"{clock(view.now - (history.started or view.now))}  "
        f"workers {len(view.workers)} of {decision.target}  "
        + "  ".join(f"{state} {states[state]}" for state in STATES if states[state]),
        f"CPU  {bar(cpu, max_cpu)} {cpu:3.0f} %   limit {max_cpu:.0f} %",
        f"MEM  {bar(mem, max_mem)} {mem:3.0f} %   limit {max_mem:.0f} %",
        f"jobs {queued} waiting, {done} done",
        f"now  {decision.reason}: {MEANING.get(decision.reason, '')}",
        "",
    ]
    changes = [change_line(change) for change in history.changes[-HISTORY:]]
    return lines + changes + [""] * (HISTORY - len(changes))


def change_line(change: ExplainedChange) -> str:
    """Return one change of target in a line."""
    queued = "?" if change.queued is None else change.queued
    return (
        f"{clock(change.at)}  {change.before:3d} -> {change.after:<3d} {change.reason:<9} "
        f"({queued} waiting, CPU {change.cpu:.0f} %)"
    )


def tick_line(view: PoolView, decision: Decision, history: History) -> str:
    """Return one tick as a plain line, for output that is no terminal."""
    states = census(view)
    cpu = view.samples[-1].cpu if view.samples else 0.0
    return (
        f"{clock(view.now - (history.started or view.now))} CPU {cpu:3.0f} % "
        f"queued {view.queued if view.queued is not None else '?'} "
        + " ".join(f"{state} {states[state]}" for state in STATES if states[state])
        + f" target {decision.target} {decision.reason}"
    )


def explain(history: History) -> list[str]:
    """Return the reasons of all changes of size, and of long times without one, a line each."""
    lines = []
    for reason in Reason:
        steps = [change for change in history.changes if change.reason is reason]
        if steps:
            first, last = steps[0], steps[-1]
            when = clock(first.at) if len(steps) == 1 else f"{clock(first.at)}-{clock(last.at)}"
            count = "" if len(steps) == 1 else f" in {len(steps)} steps"
            sizes = f"{first.before} -> {last.after}{count}"
            lines.append(f"{when:<11}  {reason}: {sizes}: {MEANING.get(reason, reason)}")
    for reason, milliseconds in history.held.most_common():
        if milliseconds >= 100 and not any(c.reason is reason for c in history.changes):
            seconds = milliseconds / 1000
            lines.append(f"for {seconds:5.1f} s  {reason}: {MEANING.get(reason, reason)}")
    return lines
