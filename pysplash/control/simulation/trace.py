"""A trace: what happened on a plant, and the figures by which a policy is judged.

The figures are the usual ones of control: error, overshoot, settling time, seconds over a limit,
and churn. CPU is per cent of all cores, averaged over ten seconds unless said otherwise.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, pairwise

from pysplash.control.model import Decision, Kill, Reason, Spawn, Stop

#: seconds over which CPU is averaged
MEAN = 10.0


class Trace:
    """Everything that was seen of one run, *step* seconds apart."""

    def __init__(self, cores: float, step: float) -> None:
        self.cores = cores
        self.step = step
        #: per cent of the cores; bytes in use by anyone, and by the pool; jobs waiting
        self.cpu: list[float] = []
        self.memory: list[float] = []
        self.pool: list[float] = []
        self.queued: list[int] = []
        #: (seconds, workers there, target, reason) of every decision
        self.decisions: list[tuple[float, int, int, Reason]] = []
        #: workers started and asked to leave; jobs put back for memory, lost otherwise, and done
        self.spawned = self.stopped = self.killed = self.lost = self.finished = 0
        #: seconds at which the last job was done
        self.done_at = 0.0
        #: the latest decisions that changed the size, and what for
        self.changes: list[tuple[float, int, Reason]] = []

    def note(self, cpu: float, memory: float, pool: float, queued: int) -> None:
        """Take in one step."""
        self.cpu.append(cpu)
        self.memory.append(memory)
        self.pool.append(pool)
        self.queued.append(queued)

    def decided(self, now: float, workers: int, decision: Decision) -> None:
        """Take in one decision."""
        self.decisions.append((now, workers, decision.target, decision.reason))
        for action in decision.actions:
            if isinstance(action, Spawn):
                self.spawned += action.count
                self.changes.append((now, action.count, action.reason))
            elif isinstance(action, Stop):
                self.stopped += 1
                self.changes.append((now, -1, action.reason))
            else:
                assert isinstance(action, Kill)

    # --- CPU ---

    def means(self, seconds: float = MEAN) -> list[float]:
        """Return the mean CPU of the *seconds* before each step, of what there is at first."""
        width = max(1, round(seconds / self.step))
        sums = [0.0, *accumulate(self.cpu)]
        return [(sums[i] - sums[max(0, i - width)]) / min(i, width) for i in range(1, len(sums))]

    def _from(self, after: float, until: float | None) -> slice:
        return slice(round(after / self.step), None if until is None else round(until / self.step))

    def error(self, target: float, after: float, until: float | None = None) -> float:
        """Return the mean distance from *target* while jobs wait, in points."""
        span = self._from(after, until)
        apart = [
            abs(mean - target)
            for mean, queued in zip(self.means()[span], self.queued[span], strict=True)
            if queued
        ]
        return sum(apart) / len(apart) if apart else 0.0

    def overshoot(self, target: float, after: float = MEAN, until: float | None = None) -> float:
        """Return the most points by which *target* was passed; 0 if it never was."""
        return max(0.0, max(self.means()[self._from(after, until)], default=0.0) - target)

    def settled(self, low: float, high: float, hold: float = 30.0) -> float | None:
        """Return when the mean came within *low* and *high* for *hold* seconds; None: never."""
        width, inside = round(hold / self.step), 0
        for i, mean in enumerate(self.means()):
            inside = inside + 1 if low <= mean <= high else 0
            if inside >= width:
                return (i - width + 1) * self.step
        return None

    def within(self, low: float, high: float, after: float, seconds: float = 5.0) -> float:
        """Return the part of the time in which the mean of *seconds* lay between, jobs waiting."""
        span = self._from(after, None)
        pairs = zip(self.means(seconds)[span], self.queued[span], strict=True)
        means = [mean for mean, queued in pairs if queued]
        return sum(low <= mean <= high for mean in means) / len(means) if means else 1.0

    def seconds_above(self, cpu: float, after: float = 0.0, until: float | None = None) -> float:
        """Return for how many seconds the mean was above *cpu* per cent."""
        return self.step * sum(mean > cpu for mean in self.means()[self._from(after, until)])

    # --- memory ---

    def seconds_over(self, limit: float, budget: float | None = None) -> float:
        """Return the seconds in which memory was above *limit*, or the pool's above *budget*."""
        over = (
            memory > limit or (budget is not None and pool > budget)
            for memory, pool in zip(self.memory, self.pool, strict=True)
        )
        return self.step * sum(over)

    def used(self, after: float, budget: float) -> float:
        """Return the mean part of *budget* bytes that the pool used."""
        pool = self.pool[self._from(after, None)]
        return sum(pool) / len(pool) / budget if pool else 0.0

    # --- churn ---

    def reversals(self, after: float, until: float | None = None) -> int:
        """Return how often growing turned into shrinking or back."""
        signs = [
            change > 0
            for at, change, _ in self.changes
            if at >= after and (until is None or at < until)
        ]
        return sum(a != b for a, b in pairwise(signs))

    def most_workers(self, after: float = 0.0) -> int:
        """Return the most workers there were at a decision."""
        return max((workers for at, workers, _, _ in self.decisions if at >= after), default=0)

    def reasons(self) -> Counter[Reason]:
        """Return how many decisions had which reason."""
        return Counter(reason for _, _, _, reason in self.decisions)
