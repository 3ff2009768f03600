"""Recordings made on a plant: real decisions on simulated facts, a line a tick."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from random import Random

from pysplash.control.model import Limits, PoolView
from pysplash.control.simulation.workload import (
    GIB,
    MIB,
    Arrivals,
    Machine,
    endless,
    ramp,
    spin,
    wave,
)
from pysplash.control.step import Step
from pysplash.recording.format import FactWriter
from pysplash.recording.reader import Recording, parse
from pysplash.recording.writer import entry
from pysplash.testing import Law, Plant

LIMITS = Limits(max_procs=24)
MACHINE = Machine(cores=4.0, memory=16 * GIB, noise=0.04)


@dataclass(slots=True)
class Recorded(Law):
    """The policy, with every view kept as a line."""

    lines: list[str] = field(default_factory=list)
    views: list[PoolView] = field(default_factory=list)
    writer: FactWriter = field(default_factory=FactWriter)

    def step(self, view: PoolView) -> Step:
        momentum = self.momentum
        result = Law.step(self, view)
        known = replace(view, momentum=momentum, lessons=dict(self.learner.lessons))
        line = entry(1e9 + view.now, known, result.decision)
        line["view"] = self.writer.write(known, self.limits)
        self.lines.append(json.dumps(line, separators=(",", ":")))
        self.views.append(known)
        return result


def loads(random: Random) -> dict[str, Arrivals]:
    """Return what may be played, by name."""
    return {
        "spin": endless(lambda: spin(5.0, random)),
        "wave": endless(lambda: wave(15.0, 10.0, random)),
        "ramp": endless(lambda: ramp(5.0, 300 * MIB, 0.02, random)),
    }


@functools.cache
def play(
    load: str, limits: Limits = LIMITS, *, machine: Machine = MACHINE, seconds: float = 90.0
) -> Recorded:
    """Return what was recorded of a load, once for all who ask and change nothing of it."""
    policy = Recorded(limits)
    Plant(machine, loads(Random(1))[load], policy).run(seconds)
    return policy


def recording(load: str, limits: Limits = LIMITS) -> Recording:
    """Return the recording of a load."""
    return parse(play(load, limits).lines, load)
