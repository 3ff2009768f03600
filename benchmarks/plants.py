"""The plants on which policies are tried: ten situations, each at any number of cores.

What is right in each can be worked out with a pencil, so a policy is judged by it and not by
another policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from random import Random

from pysplash.control.model import Limits
from pysplash.control.policy import decide
from pysplash.control.simulation.plant import Law, Plant
from pysplash.control.simulation.trace import Trace
from pysplash.control.simulation.workload import (
    GIB,
    MIB,
    Arrivals,
    Job,
    Machine,
    Phase,
    burst,
    duty,
    endless,
    fib,
    heavy,
    ramp,
    spin,
    wave,
)
from pysplash.control.step import Rule

#: seconds in which others use six sixteenths of the cores
STEP_FROM, STEP_UNTIL = 60.0, 120.0
#: seconds from one burst to the next, and how many there are
BURSTS_APART, BURSTS = 40.0, 3
#: seconds a hung job may take
HUNG_TIMEOUT = 10.0
#: seconds a parent waits, with a zombie timeout shorter than that
LONG_WAIT, SHORT_ZOMBIE = 60.0, 20.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load on a machine, under limits."""

    name: str
    says: str
    machine: Machine
    limits: Limits
    load: Callable[[Random], Arrivals]
    seconds: float = 150.0
    #: whether it ends with the last job
    ends: bool = False

    def play(self, rule: Rule = decide, *, seed: int = 0, throttle: bool = False) -> Trace:
        """Play it under a rule; *throttle* runs the throttler too."""
        limits = replace(self.limits, throttle=throttle)
        step = 0.1 if self.machine.cores <= 32 else 0.2
        random = Random(seed)
        plant = Plant(
            self.machine,
            self.load(random),
            Law(limits, rule),
            seed=seed,
            throttled=throttle,
            step=step,
        )
        return plant.run(self.seconds, until_done=self.ends)


def scenarios(cores: float) -> dict[str, Scenario]:
    """Return all scenarios for a machine of so many cores, by their letters."""
    machine = Machine(cores=cores, memory=round(max(16, 2 * cores)) * GIB, noise=0.01 * cores)
    limits = Limits(max_procs=round(max(24, 10 * cores)))
    return {s.name: s for s in chain(_steady(machine, limits), _eventful(machine, limits))}


def mixes(cores: float) -> list[Scenario]:
    """Return the mixes of benchmarks/loads.py: so many jobs, as fast as the machine can."""
    machine = Machine(cores=cores, memory=round(max(16, 2 * cores)) * GIB, noise=0.01 * cores)
    limits = Limits(max_cpu=100.0, max_procs=round(max(32, 16 * cores)))
    kinds: list[tuple[str, int, Callable[[Random], Job]]] = [
        ("cpu", 10, lambda r: spin(5.0, r)),
        ("duty", 20, lambda r: duty(8.0, 0.3, r)),
        ("wave", 6, lambda r: wave(15.0, 10.0, r)),
    ]
    return [
        Scenario(
            name,
            f"{each} jobs a core",
            machine,
            limits,
            partial(_crowd, round(each * cores), make),
            900.0,
            ends=True,
        )
        for name, each, make in kinds
    ]


def _crowd(count: int, make: Callable[[Random], Job], random: Random) -> Arrivals:
    return burst(count, lambda: make(random))


def _steady(machine: Machine, limits: Limits) -> list[Scenario]:
    budget = replace(limits, mem_budget=2 * GIB)

    def job(make: Callable[[Random], Job]) -> Callable[[Random], Arrivals]:
        return lambda random: endless(lambda: make(random))

    return [
        Scenario("A", "jobs of 5 s on one core", machine, limits, job(lambda r: spin(5.0, r))),
        Scenario("B", "jobs that compute 30 %", machine, limits, job(lambda r: duty(8.0, 0.3, r))),
        Scenario(
            "C", "15 s asleep, 10 s computing", machine, limits, job(lambda r: wave(15.0, 10.0, r))
        ),
        Scenario(
            "D", "ramps to 1 GB in 10 s", machine, limits, job(lambda r: ramp(10.0, GIB, 0.0, r))
        ),
        Scenario(
            "D2",
            "ramps to log-normal sizes",
            machine,
            limits,
            job(lambda r: heavy(10.0, 0.4 * GIB, 0.5, 0.0, r)),
        ),
        Scenario(
            "D3",
            "ramps to 300 MB in 5 s, 2 GB for the pool",
            machine,
            budget,
            job(lambda r: ramp(5.0, 300 * MIB, 0.0, r)),
        ),
        Scenario(
            "D4",
            "the same to log-normal sizes, 800 MB at most",
            machine,
            budget,
            job(lambda r: heavy(5.0, 150 * MIB, 0.6, 0.0, r, 2.8)),
        ),
    ]


def _eventful(machine: Machine, limits: Limits) -> list[Scenario]:
    crowd = max(4, round(4 * machine.cores))
    bursts = range(BURSTS)
    return [
        Scenario(
            "E",
            "others take 6/16 of the cores for 60 s",
            replace(machine, external=_Others(machine.cores)),
            limits,
            lambda random: endless(lambda: spin(5.0, random)),
            200.0,
        ),
        Scenario(
            "F",
            "fib(12): jobs that wait for jobs",
            machine,
            limits,
            lambda random: iter([(0.0, fib(12))]),
            600.0,
            ends=True,
        ),
        Scenario(
            "G",
            "bursts",
            machine,
            limits,
            lambda random: chain.from_iterable(
                burst(crowd, lambda: spin(1.0, random), BURSTS_APART * n) for n in bursts
            ),
        ),
        Scenario("H", "one job hangs", machine, limits, _with_a_hung_job),
        Scenario(
            "I",
            "a parent waits longer than zombies live",
            machine,
            replace(limits, zombie_timeout=SHORT_ZOMBIE),
            _with_a_patient_parent,
            300.0,
            ends=True,
        ),
        Scenario(
            "J",
            "a quota of three quarters of the cores",
            replace(machine, cores=0.75 * machine.cores),
            limits,
            lambda random: endless(lambda: spin(5.0, random)),
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Others:
    cores: float

    def __call__(self, now: float) -> float:
        return 6 / 16 * self.cores if STEP_FROM <= now < STEP_UNTIL else 0.0


def _with_a_hung_job(random: Random) -> Arrivals:
    hung = Job("hang", (Phase(1e6, cores=0.0),), timeout=HUNG_TIMEOUT)
    return chain([(0.0, hung)], endless(lambda: spin(2.0, random)))


def _with_a_patient_parent(random: Random) -> Arrivals:
    slow = Job("slow", (Phase(LONG_WAIT, cores=0.1),))
    parent = Job("parent", (Phase(0.0, children=tuple(repeat(slow, 3))),))
    return chain([(0.0, parent)], burst(20, lambda: spin(1.0, random)))
