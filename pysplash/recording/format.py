"""The format of a record: a view as JSON values, and the same view read back.

One tick differs little from the one before it, so most lines hold what has changed; every
:data:`EVERY` lines, and at the start of a run, one holds everything. A reader that misses a line
waits for the next such one. Numbers are written in full, so a decision on what was read back is
the decision that was made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import MappingProxyType
from typing import Any, NamedTuple

from pysplash.control.model import (
    ANY,
    MEMORY,
    Drain,
    Lesson,
    Limits,
    Momentum,
    PoolView,
    Reason,
    Sample,
    WorkerState,
    WorkerView,
)

#: lines from one that holds everything to the next
EVERY = 60
#: fields of a view that are written in each line; the others are written as they change
_PLAIN = (
    "now",
    "queued",
    "oldest",
    "suspended",
    "boot_failures",
    "boot_failed_at",
    "floor",
    "restart_before",
    "drain",
    "drain_deadline",
)
_ENUMS: dict[str, Any] = {"state": WorkerState, "stop_reason": Reason, "drain": Drain}
_UNSET = object()


class RecordedView(NamedTuple):
    """A view and its limits, as one line gives them."""

    view: PoolView
    limits: Limits
    #: whether a run begins here, or lines before it are missing: only then is the view's momentum
    #: on record
    fresh: bool


class FactWriter:
    """Turns each view of a run into the values of its line."""

    def __init__(self) -> None:
        self._number = 0
        self._workers: dict[str, dict[str, Any]] = {}
        self._lessons: dict[str, Lesson | None] = {}
        self._sampled_at: float | None = None
        self._whole = True

    def start_over(self) -> None:
        """Make the next line complete, because one before it was lost."""
        self._whole = True

    def write(self, view: PoolView, limits: Limits) -> dict[str, Any]:
        """Return the values for the line of this tick."""
        workers = {worker.name: _all(worker) for worker in view.workers}
        kept = [name for name in self._workers if name in workers]
        known = list(workers)[: len(kept)] == kept
        whole = self._whole or not known or self._number % EVERY == 0
        if whole:
            self._workers, self._lessons, self._sampled_at = {}, {}, None
        line = {"n": self._number, **_plain(view)}
        if whole:
            line |= {"limits": lean(limits), "momentum": lean(view.momentum)}
        line |= self._changes(view, workers)
        self._number += 1
        self._whole = False
        return line

    def _changes(self, view: PoolView, workers: dict[str, dict[str, Any]]) -> dict[str, Any]:
        lessons = _lessons(view)
        since = self._sampled_at
        new = {w.name: self._changed(w, workers[w.name]) for w in view.workers}
        changes: dict[str, Any] = {
            "samples": [lean(s) for s in view.samples if since is None or s.at > since],
            "workers": {name: values for name, values in new.items() if values},
            "gone": [name for name in self._workers if name not in workers],
            "lessons": {
                name: lesson and lean(lesson)
                for name, lesson in lessons.items()
                if self._lessons.get(name) != lesson
            },
        }
        self._workers, self._lessons = workers, lessons
        self._sampled_at = view.samples[-1].at if view.samples else None
        return {name: change for name, change in changes.items() if change}

    def _changed(self, worker: WorkerView, now: dict[str, Any]) -> dict[str, Any]:
        before = self._workers.get(worker.name)
        if before is None:
            return {name: value for name, value in lean(worker).items() if name != "name"}
        return {name: value for name, value in now.items() if before[name] != value}


class FactReader:
    """Turns lines back into views; a bad line raises TypeError, ValueError or KeyError."""

    def __init__(self) -> None:
        self._number = -1
        self._limits: Limits | None = None
        self._workers: dict[str, dict[str, Any]] = {}
        self._lessons: dict[str, Lesson] = {}
        self._samples: deque[Sample] = deque()

    def read(self, line: Mapping[str, Any]) -> RecordedView | None:
        """Return the view of this line; None if a line before it is missing."""
        number = int(line["n"])
        missed = number != self._number + 1
        if "limits" in line:
            self._limits = Limits(**line["limits"])
            self._workers, self._lessons = {}, {}
            self._samples.clear()
        elif missed or self._limits is None:
            self._limits = None
            self._number = -1
            return None
        fresh = missed or number == 0
        self._take(line)
        self._number = number
        momentum = line.get("momentum", {}) if fresh else {}
        return RecordedView(self._view(line, momentum), self._limits, fresh)

    def _take(self, line: Mapping[str, Any]) -> None:
        for name in line.get("gone", ()):
            self._workers.pop(name, None)
        for name, changes in line.get("workers", {}).items():
            self._workers.setdefault(name, {}).update(_typed(changes))
        for name, lesson in line.get("lessons", {}).items():
            if lesson is None:
                self._lessons.pop(name, None)
            else:
                self._lessons[name] = Lesson(**lesson)
        self._samples.extend(Sample(**sample) for sample in line.get("samples", ()))
        while self._samples and self._samples[0].at < line["now"] - MEMORY:
            self._samples.popleft()

    def _view(self, line: Mapping[str, Any], momentum: Mapping[str, Any]) -> PoolView:
        plain = _typed({name: line[name] for name in _PLAIN if name in line})
        active = MappingProxyType(dict(momentum.get("active", {})))
        return PoolView(
            **plain,
            workers=tuple(WorkerView(name=name, **it) for name, it in self._workers.items()),
            samples=tuple(self._samples),
            lessons=MappingProxyType(dict(self._lessons)),
            momentum=Momentum(**{**momentum, "active": active}),
        )


def lean(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults."""
    return {
        name: dict(it) if isinstance(it := getattr(value, name), Mapping) else it
        for name, default in _DEFAULTS[type(value)].items()
        if default is _UNSET or getattr(value, name) != default
    }


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return _UNSET if field.default_factory is MISSING else field.default_factory()


#: by class, its fields with their defaults
_DEFAULTS = {
    kind: {field.name: _default(field) for field in fields(kind)}
    for kind in (PoolView, WorkerView, Sample, Lesson, Momentum, Limits)
}


def _all(worker: WorkerView) -> dict[str, Any]:
    return {name: getattr(worker, name) for name in _DEFAULTS[WorkerView] if name != "name"}


def _plain(view: PoolView) -> dict[str, Any]:
    defaults = _DEFAULTS[PoolView]
    values = {name: getattr(view, name) for name in _PLAIN}
    return {name: value for name, value in values.items() if value != defaults[name]}


def _lessons(view: PoolView) -> dict[str, Lesson | None]:
    """Return the lessons a decision may use: of all jobs, and of those that run."""
    asked = {ANY, *(worker.function for worker in view.workers)}
    return {name: view.lessons.get(name) for name in asked}


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _ENUMS[name](value) if name in _ENUMS and value is not None else value
        for name, value in values.items()
    }
