"""How policies size a pool, in a simulation: the same jobs and machine under each of them.

``python benchmarks/plant.py`` prints the table of doc/policy-cases.md. Nothing is run and no time
is measured: the figures follow from the seeds and are the same on every machine. ``--cores 2`` and
``--scenario C`` choose; ``--seeds`` averages over more runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.plants import Scenario, scenarios
from benchmarks.rivals import Depth, First, Fixed
from pysplash.control.policy import decide
from pysplash.control.simulation.trace import Trace
from pysplash.control.step import Rule

#: seconds after which CPU is judged
SETTLED = 60.0
SHOWN = ("A", "B", "C", "D", "D2", "D3", "D4", "E")


def contestants(cores: float) -> list[tuple[str, Callable[[], Rule], bool]]:
    """Return name, what makes its rule and whether it has the throttler, for each."""
    return [
        ("first PySplash", lambda: First().decide, False),
        ("first, CPU mended", lambda: First(mended=True).decide, False),
        ("queue depth alone", lambda: Depth().decide, False),
        ("fixed, one a core", lambda: Fixed(round(cores)).decide, False),
        ("PySplash, slow loop", lambda: decide, False),
        ("PySplash, both loops", lambda: decide, True),
    ]


def row(scenario: Scenario, name: str, traces: Sequence[Trace]) -> str:
    """Return one line of the table."""
    limits, machine = scenario.limits, scenario.machine
    limit = machine.memory * limits.max_mem / 100
    settled = [t.settled(limits.max_cpu - 5, limits.max_cpu + 5) for t in traces]
    known = [at for at in settled if at is not None]
    budget = limits.mem_budget or limit - machine.others

    def average(figure: Callable[[Trace], float]) -> float:
        return mean(figure(trace) for trace in traces)

    cells = [
        scenario.name,
        name,
        f"{mean(known):.0f}" if len(known) == len(traces) else "-",
        f"{average(lambda t: t.overshoot(limits.max_cpu)):.1f}",
        f"{average(lambda t: t.error(limits.max_cpu, SETTLED)):.1f}",
        f"{average(lambda t: t.seconds_over(limit, limits.mem_budget)):.1f}",
        f"{100 * average(lambda t: t.used(SETTLED, budget)):.0f}",
        f"{average(lambda t: t.killed + t.lost):.1f}",
        f"{average(lambda t: t.spawned):.0f}",
        f"{average(lambda t: t.reversals(SETTLED)):.1f}",
        f"{average(lambda t: t.finished):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| | policy | settled s | overshoot | error | s over memory | memory used % | killed | "
    "started | turns | jobs done |"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cores", type=float, default=16.0)
    parser.add_argument("--scenario", action="append", help="letter, repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    known = scenarios(options.cores)
    print(HEAD)
    print("|---|---|" + "---:|" * 9)
    for letter in options.scenario or SHOWN:
        for name, rule, throttle in contestants(options.cores):
            traces = [
                known[letter].play(rule(), seed=seed, throttle=throttle)
                for seed in range(options.seeds)
            ]
            print(row(known[letter], name, traces), flush=True)


if __name__ == "__main__":
    main()
