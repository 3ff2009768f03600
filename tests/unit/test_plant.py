"""The plant obeys arithmetic, so that what a policy does on it can be believed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest

from pysplash.control.model import Decision, Kill, Limits, PoolView, Reason, Spawn, Stop
from pysplash.control.simulation.workload import (
    GIB,
    MIB,
    Job,
    Machine,
    Phase,
    burst,
    endless,
    fib,
    spin,
)
from pysplash.testing import Law, Plant

QUIET = Machine(cores=2.0)


@dataclass
class Many:
    """Starts so many workers at once, and nothing else."""

    count: int

    def decide(self, view: PoolView, limits: Limits) -> Decision:
        missing = self.count - len(view.workers)
        spawns = (Spawn(missing, Reason.MIN),) if missing > 0 else ()
        return Decision(self.count, Reason.MIN, spawns)


def under(rule: Many) -> Law:
    """Return what has a plant sized by *rule*."""
    return Law(Limits(), rule.decide)


def test_cores_are_shared_among_those_who_want_them() -> None:
    """Four jobs of two core seconds on two cores take four seconds, at 100 %."""
    job = Job("spin", (Phase(2.0),))
    trace = Plant(QUIET, burst(4, lambda: job), under(Many(4))).run(60, until_done=True)

    assert trace.finished == 4
    assert trace.done_at == pytest.approx(4.0 + QUIET.boot, abs=0.3)
    assert max(trace.cpu) == 100


def test_short_jobs_follow_one_another_within_a_step() -> None:
    """A worker does two hundred jobs of ten milliseconds in two seconds."""
    job = Job("tiny", (Phase(0.01),))
    trace = Plant(QUIET, burst(200, lambda: job), under(Many(1))).run(60, until_done=True)

    assert trace.finished == 200
    assert trace.done_at == pytest.approx(2.0, abs=0.4)


def test_memory_grows_evenly_and_is_given_back() -> None:
    """Half way through a ramp half of it is there; after the job nothing is."""
    job = Job("ramp", (Phase(10.0, 0.1, 100 * MIB),))
    trace = Plant(QUIET, burst(1, lambda: job), under(Many(1))).run(20)

    assert trace.pool[50] - QUIET.worker == pytest.approx(50 * MIB, rel=0.1)
    assert max(trace.pool) - QUIET.worker == pytest.approx(100 * MIB, rel=0.02)
    assert trace.pool[-1] == QUIET.worker


def test_others_take_their_share() -> None:
    """A core used by others leaves one."""
    machine = replace(QUIET, external=lambda now: 2.0)
    job = Job("spin", (Phase(2.0),))
    trace = Plant(machine, burst(2, lambda: job), under(Many(2))).run(60, until_done=True)

    assert trace.done_at == pytest.approx(4.0, abs=0.4)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_waiting_job_runs_its_own_children(workers: int) -> None:
    """Nested jobs finish with any number of workers, one included."""
    trace = Plant(QUIET, burst(1, lambda: fib(6, 0.1)), under(Many(workers))).run(
        60, until_done=True
    )

    assert trace.finished == 25


def test_a_kill_for_memory_puts_the_job_back() -> None:
    """It is counted, run again, and nothing is lost; any other kill loses the job."""

    class Killer(Many):
        """Kills the first worker it sees, at the fifth second."""

        reason = Reason.MEMORY

        def decide(self, view: PoolView, limits: Limits) -> Decision:
            name = view.workers[0].name if view.workers else ""
            if view.now == pytest.approx(5.0):
                return Decision(1, self.reason, (Stop(name, self.reason),))
            if view.now == pytest.approx(6.0):
                return Decision(1, self.reason, (Kill(name, self.reason),))
            return super().decide(view, limits)

    class Zombies(Killer):
        reason = Reason.ZOMBIE

    job = Job("long", (Phase(10.0),))
    relieved = Plant(QUIET, burst(1, lambda: job), under(Killer(1))).run(60, until_done=True)
    lost = Plant(QUIET, burst(1, lambda: job), under(Zombies(1))).run(60, until_done=True)

    assert (relieved.killed, relieved.lost, relieved.finished) == (1, 0, 1)
    assert (lost.killed, lost.lost, lost.finished) == (0, 1, 0)


def test_the_same_seed_is_the_same_run() -> None:
    """Noise and loads come from seeds, and from nothing else."""

    def play(seed: int) -> list[float]:
        random = Random(seed)
        machine = Machine(cores=4.0, memory=16 * GIB, noise=0.1)
        plant = Plant(machine, endless(lambda: spin(3.0, random)), Law(Limits()), seed=seed)
        trace = plant.run(40)
        return trace.cpu

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_the_figures_of_a_trace_are_what_they_say() -> None:
    """A step from 0 to 100 % in the middle of a minute, with a limit on memory passed in it."""
    trace = Plant(QUIET, iter(()), under(Many(0))).run(0)
    for second in range(60):
        for _ in range(10):
            trace.note(100.0 if second >= 30 else 0.0, 5.0 if second == 40 else 1.0, 1.0, 1)

    assert trace.settled(95, 100, hold=15) == pytest.approx(39.5, abs=0.2)
    assert trace.overshoot(80) == pytest.approx(20)
    assert trace.error(100, 45) == pytest.approx(0)
    assert trace.error(80, 0, 30) == pytest.approx(80)
    assert trace.seconds_over(4.0) == pytest.approx(1.0)
    assert trace.within(90, 100, 40) == 1.0
    assert trace.seconds_above(50, 30) == pytest.approx(25, abs=0.2)
