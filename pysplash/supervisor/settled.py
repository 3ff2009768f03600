"""What became of the jobs of a dead worker, until the pool takes note of it."""

from __future__ import annotations

from dataclasses import dataclass

from pysplash.jobs.abandoned import AbandonedJob


@dataclass(frozen=True, slots=True)
class Settled:
    """One job of a dead worker, and what was done with it."""

    worker: str
    job_id: str
    #: as :meth:`Settlement.settle` says it
    outcome: str
    #: where it has failed, or is retried: what callbacks are told of it
    abandoned: AbandonedJob | None = None


class SettledJobs:
    """The jobs settled since the last look, each with its first outcome.

    Settling a worker is repeated where Redis went away meanwhile. What the first try has stored is
    found as "kept" by the next one, also where the first did not hear that it was stored.
    """

    def __init__(self) -> None:
        self._trying: dict[str, AbandonedJob] = {}
        self._done: dict[str, Settled] = {}

    def begin(self, abandoned: AbandonedJob) -> None:
        """Note that a failure is about to be stored."""
        self._trying[abandoned.id] = abandoned

    def note(self, worker: str, job_id: str, outcome: str) -> str:
        """Note what was done with a job; return what was done with it in truth."""
        tried = self._trying.get(job_id)
        if outcome == "kept" and job_id in self._done:
            return self._done[job_id].outcome
        if outcome == "kept" and tried is not None:
            outcome = "stopped" if tried.stopped else "retried" if tried.retried else "failed"
        abandoned = tried if outcome in ("failed", "retried", "stopped") else None
        self._done[job_id] = Settled(worker, job_id, outcome, abandoned)
        return outcome

    def take(self) -> list[Settled]:
        """Return all, in the order in which they were settled, and forget them."""
        done = [*self._done.values()]
        self._trying.clear()
        self._done.clear()
        return done
