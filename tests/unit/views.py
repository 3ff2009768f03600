"""Short ways to say what a pool sees, for tests of the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pysplash.control.model import ANY, Lesson, Momentum, PoolView, Sample, WorkerState, WorkerView

NOW = 1000.0
GIB = 2**30
MIB = 2**20
#: what a pool knows that has long run cheap and small jobs
KNOWN = {ANY: Lesson(jobs=64, cores=0.1, weight=60, seconds=1, peak=10 * MIB, most=10 * MIB)}


def worker(name: str = "w", state: WorkerState = WorkerState.IDLE, **fields: Any) -> WorkerView:
    """Return a worker that is an hour old and shows life."""
    base = WorkerView(
        name=name, pid=1, state=state, spawned_at=NOW - 3600, since=NOW - 1, beat=NOW, pss=10 * MIB
    )
    return replace(base, **fields)


def busy(name: str, **fields: Any) -> WorkerView:
    """Return a worker that has run a job for a second, with three minutes to go."""
    defaults: dict[str, Any] = {"job_started": NOW - 1, "job_timeout": 180.0, "cores": 0.1}
    return worker(name, WorkerState.BUSY, **{**defaults, **fields})


def waiting(name: str, **fields: Any) -> WorkerView:
    """Return a worker whose job is parked."""
    defaults: dict[str, Any] = {"job_started": NOW - 1, "job_timeout": 180.0}
    return worker(name, WorkerState.WAITING, **{**defaults, **fields})


def samples(cpu: float = 20.0, mem: float = 10.0, **fields: Any) -> tuple[Sample, ...]:
    """Return ten seconds of the same sample, two cores and 16 GiB."""
    base = Sample(
        at=NOW,
        interval=1.0,
        capacity=2.0,
        cpu=cpu,
        pool_cores=0.0,
        mem=mem,
        mem_used=round(16 * GIB * mem / 100),
        mem_total=16 * GIB,
        pool_mem=100 * MIB,
    )
    base = replace(base, **fields)
    return tuple(replace(base, at=NOW - 9 + i) for i in range(10))


def view(*workers: WorkerView, queued: int | None = 0, **fields: Any) -> PoolView:
    """Return a calm view of *workers*: nothing changed lately, workers are known to be cheap."""
    defaults: dict[str, Any] = {
        "samples": samples(),
        "momentum": Momentum(cores=0.1, evidence=40.0),
        "lessons": KNOWN,
    }
    return PoolView(now=NOW, workers=workers, queued=queued, **{**defaults, **fields})
