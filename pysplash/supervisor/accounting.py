"""Accounting: what a pool has done so far, in counts and rates. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from pysplash.control.model import PoolView, Reason
from pysplash.worker.row import Row

COUNTED = ("spawned", "exited", "failed", "zombies", "jobs", "jobs_failed")


@dataclass(slots=True)
class Accounting:
    """Running totals of one pool; *started* and every *now* are monotonic seconds."""

    started: float
    #: workers started, ended well, died or could not start, stopped as they showed no life
    spawned: int = 0
    exited: int = 0
    failed: int = 0
    zombies: int = 0
    #: jobs ended, and those among them that failed
    jobs: int = 0
    jobs_failed: int = 0
    workers: int = 0
    most: int = 0
    stopping: int = 0
    worker_seconds: float = 0.0
    seen_at: float | None = None
    _reported: tuple[int, ...] = field(default=(), repr=False)
    #: jobs and failed jobs of those workers that are still there, as last seen
    _present: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def _count_workers(self, now: float, workers: int) -> None:
        self.worker_seconds += self.workers * (now - (self.seen_at or now))
        self.seen_at = now
        self.workers = workers

    def close(self, now: float) -> None:
        """Count the end of the pool."""
        self._count_workers(now, 0)
        self.stopping = 0

    def observe(self, view: PoolView) -> None:
        """Count one tick."""
        self._count_workers(view.now, len(view.workers))
        self.most = max(self.most, self.workers)
        self.stopping = sum(worker.stopping for worker in view.workers)
        for worker in view.workers:
            self._count_jobs(worker.name, worker.jobs, worker.failed)

    def note_spawn(self) -> None:
        """Count a worker that is started."""
        self.spawned += 1

    def note_stop(self, reason: Reason) -> None:
        """Count a worker that is asked to stop."""
        self.zombies += reason is Reason.ZOMBIE

    def note_exit(self, name: str, row: Row | None, *, well: bool) -> None:
        """Count a worker that has ended, and the jobs on its last *row*."""
        self.exited += well
        self.failed += not well
        if row is not None:
            self._count_jobs(name, row.jobs, row.failed)
        self._present.pop(name, None)

    def note_settled(self, outcome: str) -> None:
        """Count the job of a dead worker; *outcome* says where it was put."""
        self.jobs_failed += outcome == "failed"

    def _count_jobs(self, name: str, jobs: int, failed: int) -> None:
        jobs_before, failed_before = self._present.get(name, (0, 0))
        self.jobs += jobs - jobs_before
        self.jobs_failed += failed - failed_before
        self._present[name] = (jobs, failed)

    def uptime(self, now: float) -> float:
        """Return the seconds since the start."""
        return now - self.started

    def average(self, now: float) -> float:
        """Return the mean number of workers since the start."""
        uptime = self.uptime(now)
        return self.worker_seconds / uptime if uptime > 0 else float(self.workers)

    def changed(self) -> bool:
        """Return whether any count has changed since the last call."""
        now = (self.workers, self.stopping, *(getattr(self, name) for name in COUNTED))
        before, self._reported = self._reported, now
        return now != before

    def line(self, now: float) -> str:
        """Return everything in one line: each count, and in brackets its rate a minute."""
        minutes = max(self.uptime(now), 1.0) / 60
        totals = {name.replace("_", " "): getattr(self, name) for name in COUNTED}
        counts = ", ".join(f"{name} {n} ({n / minutes:.1f}/min)" for name, n in totals.items())
        return (
            f"up {self.uptime(now):.0f} s, workers {self.workers} "
            f"(average {self.average(now):.1f}, most {self.most}), "
            f"waiting for termination {self.stopping}, {counts}"
        )
