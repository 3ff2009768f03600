"""Throttling, the fast loop: which workers to hold in the next tenth of a second. Pure.

On two cores one worker is half the machine and two are all of it. So about ten times a second the
newest busy workers are held (paused) for a part of a slice, just so much that the mean of a second
stays at the limit. Many jobs that start to compute at once are limited in the same way. Near the
memory limit the newest are held from slice to slice until older jobs have finished: parts of
slices do not slow a job that sleeps between two steps of its growth.

The newest are held so that the oldest finish: each job becomes the oldest in its turn. Held workers
run for short times in turn, so no job starves. Suspending the youngest is GNU
parallel's idea (``--memsuspend``); counting what was overdrawn and paying it back is a token
bucket.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .model import Limits

#: longest part of a slice a worker is held for the CPU's sake, and when it has a turn
MOST_HELD = 0.9
#: seconds without a pause after which one that is held for memory's sake has a turn, one a slice
TURN = 5.0
#: seconds in which overdrawn CPU is paid back, and seconds of the limit that may be owed or saved
PAYBACK, MOST_DEBT, MOST_SAVED = 0.5, 1.0, 0.1
#: part of the limit that is left to the pool whatever others use: they may want all there is
LEAST_SHARE = 0.25
#: per cent of the cores in use beyond which what a job uses says nothing of what it wants
SATURATED = 97.0
#: parts of the memory limit at which holding begins, and at which all but one are held
MEMORY_FROM, MEMORY_TO = 0.84, 0.93
#: seconds of growth that memory is taken to go on growing
FORESIGHT = 0.3
#: cores below which a job is asleep
ASLEEP = 0.1


@dataclass(frozen=True, slots=True)
class Runner:
    """One busy worker in the last slice: cores it used, and the part in which it was held."""

    name: str
    cores: float
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """Measurements of the last slice."""

    #: length in seconds
    seconds: float
    #: cores there are, and cores in use by anyone
    capacity: float
    used: float
    #: busy workers, those whose jobs are oldest first
    runners: tuple[Runner, ...] = ()
    mem_used: float = 0.0
    mem_total: float = math.inf
    #: bytes of the pool's processes together
    pool_mem: float = 0.0
    #: bytes the oldest job is still to take, so that it can end
    reserve: float = 0.0


@dataclass(frozen=True, slots=True)
class Grip:
    """Which workers are held in a slice, and what it carries over to the next."""

    #: core seconds saved; negative: owed
    balance: float = 0.0
    #: part of the memory limit in use
    memory: float = 0.0
    #: by name, part of the next slice for which a worker is held
    holds: tuple[tuple[str, float], ...] = ()
    #: cores this keeps from being used
    cores: float = 0.0
    #: by name, seconds for which a worker will have been held without a pause
    whole: tuple[tuple[str, float], ...] = ()


def trim(slice_: Slice, before: Grip, limits: Limits) -> Grip:
    """Return which workers to hold in the next slice, and for what part of it."""
    allowed = limits.max_cpu / 100 * slice_.capacity
    balance = before.balance + (allowed - slice_.used) * slice_.seconds
    balance = min(max(balance, -MOST_DEBT * allowed), MOST_SAVED * allowed)
    memory = _memory(slice_, limits)
    growth = (memory - before.memory) / slice_.seconds if before.memory else 0.0
    crowd = _crowd(slice_, memory + max(0.0, growth) * FORESIGHT)
    budget = max(0.0, allowed + balance / PAYBACK)
    if not crowd and not before.holds and slice_.used <= budget:
        return Grip(balance, memory)
    wishes = sum(_wish(runner, slice_) for runner in slice_.runners)
    others = max(0.0, slice_.used - sum(runner.cores for runner in slice_.runners))
    excess = wishes - max(budget - others, LEAST_SHARE * allowed)
    whole = dict(before.whole)
    due = _due(slice_.runners[len(slice_.runners) - crowd :], whole)
    holds, cores = [], 0.0
    for runner in reversed(slice_.runners):
        part, wish = 0.0, _wish(runner, slice_)
        if excess > 0 and wish > 0:
            part = min(MOST_HELD, excess / wish)
            excess -= part * wish
        if crowd > 0:
            part, crowd = MOST_HELD if runner.name == due else 1.0, crowd - 1
        if part > 0:
            holds.append((runner.name, part))
            cores += part * wish
    kept = ((name, whole.get(name, 0.0) + slice_.seconds) for name, part in holds if part >= 1)
    return Grip(balance, memory, tuple(holds), cores, tuple(kept))


def _due(crowd: tuple[Runner, ...], whole: Mapping[str, float]) -> str | None:
    """Return which worker held for memory may run in this slice; None: none."""
    longest = max((runner.name for runner in crowd), key=lambda n: whole.get(n, 0.0), default=None)
    return longest if longest is not None and whole.get(longest, 0.0) >= TURN else None


def _wish(runner: Runner, slice_: Slice) -> float:
    """Return the cores a worker would use if it were not held and there were enough."""
    wish = runner.cores / max(1 - runner.held, 1 - MOST_HELD)
    saturated = slice_.used >= SATURATED / 100 * slice_.capacity
    return max(wish, 1.0) if saturated and wish > ASLEEP else wish


def _memory(slice_: Slice, limits: Limits) -> float:
    """Return the part of the nearest memory limit that is in use, or kept for the oldest job."""
    part = (slice_.mem_used + slice_.reserve) / (slice_.mem_total * limits.max_mem / 100)
    if limits.mem_budget is not None:
        part = max(part, (slice_.pool_mem + slice_.reserve) / limits.mem_budget)
    return part


def _crowd(slice_: Slice, memory: float) -> int:
    """Return how many of the newest are held for memory; the oldest never is."""
    pressure = min(1.0, max(0.0, (memory - MEMORY_FROM) / (MEMORY_TO - MEMORY_FROM)))
    return math.ceil(pressure * max(0, len(slice_.runners) - 1))
