"""Replay: decides recorded ticks again, with other limits. Pure.

Each tick is decided by itself, from what had really happened until then; the effects of a
different decision on later ticks are not simulated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from pysplash.control.model import Decision, Limits, Momentum, Spawn
from pysplash.control.step import step
from pysplash.errors import ConfigError

from .format import FactReader
from .reader import Recording, Tick
from .screen import clock

#: what facts that are not as they were written may raise
_FAULTS = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ReplayedTick:
    """One tick, decided again."""

    recorded: Tick
    decision: Decision

    @property
    def same(self) -> bool:
        """Whether target, reason and actions are what they were."""
        was, would = self.recorded.decision, self.decision
        return (was.target, was.reason, was.actions) == (would.target, would.reason, would.actions)


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording, decided again."""

    ticks: tuple[ReplayedTick, ...]
    #: ticks without all their facts
    lost: int


def replay(recording: Recording, change: Callable[[Limits], Limits]) -> Replay:
    """Return every decision under the limits that *change* makes of the recorded ones.

    A ConfigError of *change* ends it; facts that are not as they were written cost their tick.
    """
    reader, momentum = FactReader(), Momentum()
    ticks: list[ReplayedTick] = []
    lost = 0
    for tick in recording.ticks:
        try:
            known = reader.read(tick.facts or {})
            if known is None:
                lost += 1
                continue
            view = known.view if known.fresh else replace(known.view, momentum=momentum)
            again = step(view, change(known.limits), done=tick.decision)
        except ConfigError:
            raise
        except _FAULTS:
            reader = FactReader()
            lost += 1
        else:
            momentum = again.momentum
            ticks.append(ReplayedTick(tick, again.decision))
    return Replay(tuple(ticks), lost)


# --- in words ----------------------------------------------------------------------------------


def differences(found: Replay) -> Iterator[str]:
    """Yield a line for each stretch in which the decisions differ in the same way."""
    if not found.ticks:
        return
    start = found.ticks[0].recorded.t
    for kind, group in groupby(found.ticks, _kind):
        ticks = list(group)
        if kind is None:
            continue
        first, last = ticks[0].recorded, ticks[-1].recorded
        when = clock(first.t - start)
        if last is not first:
            when += "-" + clock(last.t - start)
        cpu = "?" if first.cpu is None else f"{first.cpu:.0f}"
        queued = "?" if first.queued is None else first.queued
        facts = f"({queued} waiting, CPU {cpu} %)"
        yield f"{when:<11}  {_told(first.decision)}  ->  {_told(ticks[0].decision)}  {facts}"


def _kind(tick: ReplayedTick) -> tuple[str, str] | None:
    """Return the key by which differences are grouped: both reasons and kinds of action."""
    return None if tick.same else (_sort(tick.recorded.decision), _sort(tick.decision))


def _sort(decision: Decision) -> str:
    return " ".join([decision.reason, *sorted({type(a).__name__ for a in decision.actions})])


def _told(decision: Decision) -> str:
    counts: Counter[str] = Counter()
    for action in decision.actions:
        name = type(action).__name__.lower()
        counts[name] += action.count if isinstance(action, Spawn) else 1
    done = "".join(f", {name} {count}" for name, count in counts.items())
    return f"{decision.target} {decision.reason}{done}"
