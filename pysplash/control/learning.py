"""Learning: the cores, seconds and memory that jobs of each function need. No I/O.

Cores are averaged over whole jobs: jobs that sleep now may compute later. Memory is learned by its
peaks, because a job keeps it until its end. Kept are a few numbers a function (mean, deviation and
largest as in the Kubernetes vertical autoscaler and Autopilot), for at most
:data:`MOST_FUNCTIONS` functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from .model import ANY, PROVEN, Lesson, Reason, WorkerState, WorkerView

#: functions kept; the one not seen for longest goes first
MOST_FUNCTIONS = 256
#: seconds of the pool's work after which a lesson is mostly made of newer jobs
HORIZON = 60.0
#: jobs over which means and deviations of peaks are taken
PEAKS = 64
#: CPU in per cent at which a job may get less than it would use
SATURATED = 97.0
#: cores below which a job is asleep
ASLEEP = 0.1
#: by how much a job killed for its memory would have grown on, at the least
KILLED_PEAK = 1.2
#: longest name of a function that is kept, in characters
MOST_NAME = 200


@dataclass(slots=True)
class Run:
    """Measurements of the job a worker is running."""

    view: WorkerView
    seconds: float = 0.0
    #: CPU seconds, and the seconds over which they were measured
    cpu: float = 0.0
    measured: float = 0.0
    #: bytes: the most, and the sums over seconds of them and of their squares
    peak: int = 0
    area: float = 0.0
    squares: float = 0.0
    sized: float = 0.0


class Learner:
    """Learns from the workers' state at every tick; the results are :attr:`lessons`."""

    def __init__(self, lessons: Mapping[str, Lesson] | None = None) -> None:
        self._lessons: dict[str, Lesson] = dict(lessons or {})
        self._runs: dict[str, Run] = {}
        self._at: float | None = None
        self._active = 0
        self._snapshot: Mapping[str, Lesson] = MappingProxyType(dict(self._lessons))
        self._changed = False

    @property
    def lessons(self) -> Mapping[str, Lesson]:
        """Lessons by function, and of all together under ``ANY``, as an immutable snapshot."""
        if self._changed:
            self._snapshot = MappingProxyType(dict(self._lessons))
            self._changed = False
        return self._snapshot

    def observe(self, now: float, workers: Sequence[WorkerView], cpu: float) -> None:
        """Learn from one tick: the workers now, and the CPU in per cent since the last tick."""
        interval = now - self._at if self._at is not None else 0.0
        self._at = now
        self._active = sum(w.state is WorkerState.BUSY for w in workers)
        for worker in workers:
            self._follow(worker, now, max(0.0, interval), cpu >= SATURATED)
        for name in self._runs.keys() - {w.name for w in workers}:
            self._lose(self._runs.pop(name))

    def _follow(self, worker: WorkerView, now: float, interval: float, saturated: bool) -> None:
        run = self._runs.get(worker.name)
        if run is None:
            run = self._runs[worker.name] = Run(worker)
        done = worker.jobs - run.view.jobs
        if worker.job_started is not None and worker.job_started == run.view.job_started:
            done = 0  # jobs that it ran inside the one it still has belong to that one
        fresh = 0.0
        if done > 0 and worker.job_started is not None:
            fresh = min(max(now - worker.job_started, 0.0), interval)
        if run.view.job_started is not None or done > 0:
            _add(run, worker, interval - fresh, saturated)
        if done > 0:
            self._finish(run, worker, done)
            run = self._runs[worker.name] = Run(worker)
            _add(run, worker, fresh, saturated)
        run.view = worker

    def _finish(self, run: Run, worker: WorkerView, done: int) -> None:
        function = run.view.function or worker.function
        peak = max(run.peak, worker.pss or 0)
        for key in {function, ANY}:
            self._learn(key, run, done, peak)

    def _learn(self, key: str, run: Run, done: int, peak: int) -> None:
        lesson = self._lessons.pop(key, Lesson())
        horizon = HORIZON * max(1, self._active)
        lesson = with_time(with_level(lesson, run, horizon), done, run, horizon)
        self._lessons[key] = with_peak(lesson, peak) if peak else lesson
        self._changed = True
        if len(self._lessons) > MOST_FUNCTIONS:
            del self._lessons[next(name for name in self._lessons if name != ANY)]

    def _lose(self, run: Run) -> None:
        """Forget a worker that ended in a job; one killed for its memory would have needed more."""
        if run.view.kill_at is None or run.view.stop_reason is not Reason.MEMORY or not run.peak:
            return
        for key in {run.view.function, ANY}:
            lesson = self._lessons.pop(key, Lesson())
            peak = round(KILLED_PEAK * max(run.peak, lesson.peak))
            self._lessons[key] = replace(with_peak(lesson, peak), jobs=lesson.jobs + 1)
            self._changed = True


def _add(run: Run, worker: WorkerView, seconds: float, saturated: bool) -> None:
    if worker.pss:
        run.peak = max(run.peak, worker.pss)
        run.sized += seconds
        run.area += seconds * worker.pss
        run.squares += seconds * worker.pss**2
    if worker.state is WorkerState.WAITING:
        return
    run.seconds += seconds
    if worker.cores is None:
        return
    run.cpu += worker.cores * seconds
    # In a full machine a job that computes takes longer than it would. Nobody knows by how much:
    # half of what it did not get is taken for waiting, half for sleep of its own.
    crowded = saturated and worker.cores >= ASLEEP
    waited = max(0.0, 1 - worker.cores) / 2 if crowded else worker.held
    run.measured += seconds * (1 - waited)


def with_level(lesson: Lesson, run: Run, horizon: float) -> Lesson:
    """Return *lesson* updated by the memory of one more run over time."""
    if run.sized <= 0:
        return lesson
    kept = min(lesson.seconds * lesson.jobs, horizon) if lesson.level else 0.0
    share = run.sized / (kept + run.sized)
    mean = lesson.level + share * (run.area / run.sized - lesson.level)
    square = lesson.level**2 + lesson.sway**2
    square += share * (run.squares / run.sized - square)
    return replace(lesson, level=mean, sway=math.sqrt(max(0.0, square - mean**2)))


def with_time(lesson: Lesson, done: int, run: Run, horizon: float) -> Lesson:
    """Return *lesson* updated by *done* more jobs as *run* measured them; old ones fade."""
    jobs = lesson.jobs + done
    share = done / min(jobs, PEAKS) if jobs else 1.0
    seconds = lesson.seconds + min(1.0, share) * (run.seconds / done - lesson.seconds)
    lesson = replace(lesson, jobs=jobs, seconds=seconds)
    if run.measured <= 0:
        return lesson
    kept = lesson.weight * max(0.0, 1 - run.measured / horizon)
    weight = kept + run.measured
    return replace(lesson, cores=(lesson.cores * kept + run.cpu) / weight, weight=weight)


def with_peak(lesson: Lesson, peak: float) -> Lesson:
    """Return *lesson* updated by one more peak in bytes; the largest sinks slowly to the mean."""
    if lesson.peak <= 0:
        return replace(lesson, peak=float(peak), spread=0.0, most=float(peak))
    share = 1 / min(max(lesson.jobs, 2), PEAKS)
    apart = peak - lesson.peak
    mean = lesson.peak + share * apart
    variance = (1 - share) * (lesson.spread**2 + share * apart**2)
    most = max(float(peak), lesson.most - share * (lesson.most - mean) / 4)
    return replace(lesson, peak=mean, spread=math.sqrt(variance), most=most)


def to_record(lesson: Lesson) -> dict[str, float]:
    """Return *lesson* as plain numbers, to be saved."""
    return {field.name: round(getattr(lesson, field.name), 6) for field in fields(lesson)}


def from_record(record: Any) -> Lesson | None:
    """Return the lesson in *record*; None if it is not one."""
    if not isinstance(record, dict):
        return None
    amounts = {field.name: _amount(record.get(field.name)) for field in fields(Lesson)}
    if None in amounts.values():
        return None
    known: dict[str, Any] = amounts | {"jobs": int(amounts["jobs"] or 0)}
    return Lesson(**known)


def _amount(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) and 0 <= value < 2.0**63 else None


def carried(lessons: Iterable[tuple[str, Lesson]]) -> dict[str, Lesson]:
    """Return saved lessons with small weight, so that new jobs soon outweigh them."""
    kept = [(name, lesson) for name, lesson in lessons if len(name) <= MOST_NAME]
    return {
        name: replace(lesson, jobs=min(lesson.jobs, PROVEN), weight=min(lesson.weight, PROVEN))
        for name, lesson in kept[:MOST_FUNCTIONS]
    }
