"""Workloads: jobs, when they come, and the machine they run on, as plain values for a plant."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from random import Random

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a job: so long, with so much CPU, up to so much memory."""

    #: seconds it takes if it gets the cores it wants
    seconds: float
    #: cores it wants; 0 sleeps
    cores: float = 1.0
    #: bytes of the job at its end, reached evenly; None: as before
    memory: float | None = None
    #: jobs put into the queue at its start, and waited for
    children: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One job: its function's name and what it does."""

    function: str
    phases: tuple[Phase, ...]
    #: seconds it may take; None: no limit
    timeout: float | None = None


#: jobs and when they are put into the queue, in the order of time
Arrivals = Iterator[tuple[float, Job]]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the pool runs on."""

    cores: float = 2.0
    memory: int = 16 * GIB
    #: bytes others use
    others: int = GIB
    #: seconds from a start to being ready
    boot: float = 0.1
    #: bytes of a worker without a job
    worker: int = 10 * MIB
    #: cores others use at a time
    external: Callable[[float], float] = lambda now: 0.0
    #: standard deviation of what others use, in cores
    noise: float = 0.0


def endless(make: Callable[[], Job]) -> Arrivals:
    """Return a supply that never ends, all there from the start."""
    return ((0.0, make()) for _ in repeat(None))


def burst(count: int, make: Callable[[], Job], at: float = 0.0) -> Arrivals:
    """Return *count* jobs at once."""
    return ((at, make()) for _ in range(count))


def spin(seconds: float, random: Random, spread: float = 0.1) -> Job:
    """Return a job that computes on one core; lengths vary by *spread* of themselves."""
    return Job("spin", (Phase(seconds * random.uniform(1 - spread, 1 + spread)),))


def duty(seconds: float, share: float, random: Random) -> Job:
    """Return a job that computes for *share* of its time, now and then."""
    phases, left = [], seconds
    while left > 0:
        length = random.expovariate(1.0) + 0.05
        phases += [Phase(share * length), Phase((1 - share) * length, cores=0.0)]
        left -= length
    return Job("duty", tuple(phases))


def wave(sleep: float, seconds: float, random: Random) -> Job:
    """Return a job that sleeps, then computes."""
    vary = random.uniform(0.95, 1.05)
    return Job("wave", (Phase(sleep * vary, cores=0.0), Phase(seconds * vary)))


def ramp(seconds: float, memory: float, cores: float, random: Random) -> Job:
    """Return a job whose memory grows evenly to *memory* bytes."""
    return Job("ramp", (Phase(seconds * random.uniform(0.9, 1.1), cores, memory),))


def heavy(
    seconds: float, median: float, sigma: float, cores: float, random: Random, most: float = 4.0
) -> Job:
    """Return a ramp to a size that is log-normal around *median* bytes, *most* deviations off."""
    size = median * math.exp(sigma * max(-most, min(most, random.gauss(0, 1))))
    return ramp(seconds, size, cores, random)


def fib(n: int, seconds: float = 0.2) -> Job:
    """Return the job that waits for the two Fibonacci numbers before *n* and adds them."""
    if n < 2:
        return Job("fib", (Phase(seconds),))
    children = (fib(n - 1, seconds), fib(n - 2, seconds))
    return Job("fib", (Phase(seconds), Phase(0.0, children=children)))
