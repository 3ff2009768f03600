"""A recording: the lines of ``--record`` as values, for plot and replay. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pysplash.control.model import Action, Decision, Kill, Limits, Reason, Spawn, Stop, WorkerState
from pysplash.errors import ConfigError

#: seconds without a line after which the pool is taken to have been away
GAP = 10.0
#: what reading a line that is no tick may raise
_FAULTS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_KINDS: dict[str, type[Stop] | type[Kill]] = {"stop": Stop, "kill": Kill}


@dataclass(frozen=True, slots=True)
class Tick:
    """One line; times are seconds since the epoch. None: not known."""

    t: float
    cpu: float | None
    mem: float | None
    mem_bytes: float | None
    queued: int | None
    states: Mapping[WorkerState, int]
    decision: Decision
    #: every fact, as :mod:`pysplash.recording.format` writes them; None: an older record
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """The ticks of a file."""

    ticks: tuple[Tick, ...]
    #: lines that are no ticks
    skipped: int = 0
    #: of the last run in it
    limits: Limits | None = None

    @property
    def seconds(self) -> float:
        """Seconds from its first to its last tick."""
        return self.ticks[-1].t - self.ticks[0].t


@dataclass(frozen=True, slots=True)
class TargetChange:
    """A decision that moved the target, at so many seconds since the start."""

    at: float
    before: int
    after: int
    reason: Reason


def parse(lines: Iterable[str], name: str) -> Recording:
    """Return the ticks in *lines*, and how many lines are none; *name* is for the error.

    Raises :class:`~pysplash.errors.ConfigError` if not one of them is a tick.
    """
    ticks: list[Tick] = []
    skipped = 0
    limits: Limits | None = None
    for line in filter(str.strip, lines):
        try:
            tick = _tick(json.loads(line))
            limits = _limits(tick) or limits
        except _FAULTS:
            skipped += 1
        else:
            ticks.append(tick)
    if not ticks:
        what = f"none of its {skipped} lines is a tick" if skipped else "it is empty"
        raise ConfigError(f"record {name!r}: {what}: give a file that --record has written")
    return Recording(tuple(sorted(ticks, key=lambda tick: tick.t)), skipped, limits)


def _tick(line: Any) -> Tick:
    reason = Reason(line["reason"])
    actions = tuple(_action(action) for action in line["actions"])
    return Tick(
        t=_finite(line["t"]),
        cpu=_number(line["cpu"]),
        mem=_number(line["mem"]),
        mem_bytes=_number(line["mem_bytes"]),
        queued=None if line["queued"] is None else int(line["queued"]),
        states={state: int(line[state.value]) for state in WorkerState},
        decision=Decision(int(line["target"]), reason, actions),
        facts=line.get("view"),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _number(value: Any) -> float | None:
    return None if value is None else _finite(value)


def _action(action: Any) -> Action:
    reason = Reason(action["reason"])
    if action["kind"] == "spawn":
        return Spawn(int(action["count"]), reason)
    return _KINDS[action["kind"]](str(action["name"]), reason)


def _limits(tick: Tick) -> Limits | None:
    told = (tick.facts or {}).get("limits")
    return None if told is None else Limits(**told)


# --- what it tells -----------------------------------------------------------------------------


def runs(recording: Recording) -> Iterator[tuple[Tick, ...]]:
    """Yield the ticks of each stretch without a gap."""
    begin = 0
    for i, (before, after) in enumerate(pairwise(recording.ticks), 1):
        if after.t - before.t > GAP:
            yield recording.ticks[begin:i]
            begin = i
    yield recording.ticks[begin:]


def changes(recording: Recording) -> list[TargetChange]:
    """Return the decisions that moved the target, with seconds since the start."""
    start, before = recording.ticks[0].t, 0
    found = []
    for tick in recording.ticks:
        after = tick.decision.target
        if after != before:
            found.append(TargetChange(tick.t - start, before, after, tick.decision.reason))
        before = after
    return found


def means(ticks: Iterable[Tick], seconds: float) -> list[float]:
    """Return the mean CPU of the *seconds* before each tick; nan where none is known."""
    window: list[tuple[float, float]] = []
    found = []
    for tick in ticks:
        if tick.cpu is not None:
            window.append((tick.t, tick.cpu))
        window = [(t, cpu) for t, cpu in window if t > tick.t - seconds]
        found.append(sum(cpu for _, cpu in window) / len(window) if window else math.nan)
    return found
