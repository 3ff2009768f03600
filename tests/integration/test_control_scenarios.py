"""The policy on simulated plants: what is right there can be worked out, so bounds are absolute.

Fifty seeds and more at each number of cores, shared out among the scenarios; with the fast loop and
without. No process is started and no time is measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.plants import BURSTS_APART, STEP_FROM, STEP_UNTIL, Scenario, mixes, scenarios
from benchmarks.rivals import Depth, First, Fixed
from pysplash.control.model import Limits
from pysplash.control.simulation.plant import Law, Plant
from pysplash.control.simulation.trace import Trace
from pysplash.control.simulation.workload import GIB, MIB, Job, Machine, Phase, endless

TARGET = 80.0
#: bytes a core can fill in a second, with nothing: half of that is usual
FILLED = 4 * GIB
#: examples of loads; more of them, and others each time, where somebody looks for one that breaks
EXAMPLES = int(os.environ.get("PYSPLASH_LOADS", "25"))
#: runs of each scenario: with 2 and 16 cores, and with 128, where the costly ones get fewer
SEEDS = {
    "A": (5, 4),
    "B": (4, 1),
    "C": (5, 4),
    "D": (4, 1),
    "D2": (4, 1),
    "D3": (4, 7),
    "D4": (8, 8),
    "E": (4, 4),
    "F": (4, 9),
    "G": (4, 6),
    "H": (4, 3),
    "I": (4, 6),
    "J": (4, 4),
}
CORES = (2.0, 16.0, 128.0)


def runs(letter: str, cores: float, *, throttle: bool) -> tuple[Scenario, list[Trace]]:
    """Return a scenario, played with all its seeds; without the fast loop with the first two."""
    scenario = scenarios(cores)[letter]
    seeds = SEEDS[letter][cores > 100] if throttle else min(2, SEEDS[letter][cores > 100])
    return scenario, [scenario.play(seed=n, throttle=throttle) for n in range(seeds)]


def grown(cores: float, each: float) -> float:
    """Return the seconds it takes to grow to the size at which jobs of *each* cores fill it."""
    workers = TARGET / 100 * cores / each
    return 25 + 2 * max(math.log2(workers + 1), workers / Limits().max_per_scale)


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("letter", ["A", "J"])
def test_computing_jobs_are_held_at_the_target_by_both_loops(letter: str, cores: float) -> None:
    """CPU settles at 80 % whatever part of the machine one worker is, and nothing is taken back."""
    _, traces = runs(letter, cores, throttle=True)

    for trace in traces:
        settled = trace.settled(TARGET - 5, TARGET + 5)
        assert settled is not None
        assert settled <= grown(cores, 1.0)
        assert trace.overshoot(TARGET) <= 2.0
        assert trace.error(TARGET, grown(cores, 1.0)) <= 1.0
        assert trace.stopped == trace.killed == trace.lost == 0


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("letter", ["A", "J"])
def test_without_the_fast_loop_the_quantum_is_the_error(letter: str, cores: float) -> None:
    """With the slow loop alone the CPU is as near as a whole number of workers allows."""
    scenario, traces = runs(letter, cores, throttle=False)
    workers = max(1, math.floor(TARGET / 100 * scenario.machine.cores + 0.25))
    best = abs(100 * workers / scenario.machine.cores - TARGET)
    quantum = 100 / scenario.machine.cores

    for trace in traces:
        assert trace.error(TARGET, grown(cores, 1.0)) <= best + 3.0
        assert trace.overshoot(TARGET) <= 0.25 * quantum + 3.0
        assert trace.reversals(30.0) == trace.killed == trace.lost == 0


@pytest.mark.parametrize("boot", [0.1, 3.0])
@pytest.mark.parametrize("cores", CORES)
def test_jobs_too_long_to_be_known_are_not_overdone(cores: float, boot: float) -> None:
    """Nothing finishes while it grows, and workers may be slow to start: still none too many."""
    machine = Machine(cores=cores, memory=round(max(16, 2 * cores)) * GIB, boot=boot)
    job = Job("long", (Phase(1e4),))
    plant = Plant(machine, endless(lambda: job), Law(Limits(max_procs=500)), step=0.2)
    trace = plant.run(grown(cores, 1.0) + 60)

    assert trace.overshoot(TARGET) <= 0.25 * 100 / cores + 1.0
    assert trace.error(TARGET, grown(cores, 1.0) + 30) <= 0.75 * 100 / cores + 1.0
    assert trace.stopped == 0


@pytest.mark.parametrize("throttle", [False, True])
@pytest.mark.parametrize("cores", CORES)
def test_jobs_that_compute_now_and_then_fill_the_cpu(cores: float, throttle: bool) -> None:
    """A third of a core each: as many as fill the machine, found by what whole jobs used."""
    _, traces = runs("B", cores, throttle=throttle)
    start = grown(cores, 0.3)
    noise = 100 * math.sqrt(TARGET / 100 * cores / 0.3 * 0.3 * 0.7 / 10) / cores

    for trace in traces:
        assert trace.error(TARGET, start) <= 2.0 + noise
        assert trace.overshoot(TARGET, start) <= (2.0 if throttle else 3.0 + 2 * noise)
        assert trace.reversals(start) <= 2
        assert trace.killed == trace.lost == 0


@pytest.mark.parametrize("cores", CORES)
def test_a_wave_is_clipped_at_the_target(cores: float) -> None:
    """Jobs that sleep and then compute neither invite a flood nor overshoot when they wake."""
    _, traces = runs("C", cores, throttle=True)
    start = max(60.0, grown(cores, 0.4) + 15)

    for trace in traces:
        assert trace.within(TARGET - 8, TARGET + 8, start) >= 0.85
        assert trace.overshoot(TARGET) <= 3.0
        assert trace.most_workers() <= 2 * TARGET / 100 * cores / 0.4 + 3
        assert trace.killed == trace.lost == 0


@pytest.mark.parametrize("mix", mixes(2.0), ids=lambda mix: mix.name)
def test_a_mix_takes_little_longer_than_with_the_best_number(mix: Scenario) -> None:
    """Nobody has told the pool how many workers its jobs need; with the fast loop it dares."""
    fixed = [Fixed(count).decide for count in (2, 4, 8, 16, 32)]
    for seed in range(3):
        best = min(mix.play(rule, seed=seed).done_at for rule in fixed)

        assert mix.play(seed=seed, throttle=True).done_at <= 1.12 * best


@pytest.mark.parametrize("cores", CORES)
def test_without_the_fast_loop_a_wave_still_invites_no_flood(cores: float) -> None:
    """Sleeping jobs are counted at what they will need, so the pool stays near what it can feed."""
    _, traces = runs("C", cores, throttle=False)

    for trace in traces:
        assert trace.most_workers() <= 1.3 * TARGET / 100 * cores / 0.4 + 2
        assert trace.reversals(60.0) <= 4
        assert trace.killed == trace.lost == 0


@pytest.mark.parametrize("throttle", [False, True])
@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("letter", ["D", "D2", "D3", "D4"])
def test_memory_is_never_over_its_limit(letter: str, cores: float, throttle: bool) -> None:
    """Not for a tenth of a second, and without a kill; with both loops most of it is used."""
    scenario, traces = runs(letter, cores, throttle=throttle)
    limit = scenario.machine.memory * scenario.limits.max_mem / 100
    budget = scenario.limits.mem_budget or limit - scenario.machine.others

    for trace in traces:
        assert trace.seconds_over(limit, scenario.limits.mem_budget) == 0.0
        assert trace.killed == 0
        if letter in ("D", "D3"):
            assert trace.used(60.0, budget) >= (0.6 if throttle else 0.4)
    if letter == "D4" and throttle:
        assert sum(trace.used(60.0, budget) for trace in traces) >= 0.6 * len(traces)


@pytest.mark.parametrize("cores", CORES)
def test_load_from_outside_is_made_room_for(cores: float) -> None:
    """The fast loop gives way at once; the slow one alone within a job's length and a little."""
    _, held = runs("E", cores, throttle=True)
    _, slow = runs("E", cores, throttle=False)

    for trace in held:
        assert trace.overshoot(TARGET) <= 2.0
        assert trace.stopped == trace.killed == trace.lost == 0
    for trace in slow:
        assert trace.seconds_above(TARGET + 8, STEP_FROM, STEP_UNTIL) <= 35.0
        assert trace.killed == trace.lost == 0
        assert trace.reversals(30.0) <= 3


@pytest.mark.parametrize("throttle", [False, True])
@pytest.mark.parametrize("cores", CORES)
def test_nested_jobs_finish(cores: float, throttle: bool) -> None:
    """fib(12) ends, with few more workers than cores, in not much more than its work takes."""
    _, traces = runs("F", cores, throttle=throttle)
    work = 465 * 0.2

    for trace in traces:
        assert trace.finished == 465
        assert trace.done_at <= 1.1 * work / (TARGET / 100 * cores if throttle else 1.0) + 30
        assert trace.most_workers() <= max(12, cores)
        assert trace.killed == trace.lost == 0


@pytest.mark.parametrize("cores", CORES)
def test_bursts_are_served_and_forgotten(cores: float) -> None:
    """Each burst is done long before the next, without a worker for every job."""
    _, traces = runs("G", cores, throttle=True)
    jobs = max(4, round(4 * cores))

    for trace in traces:
        assert trace.finished == 3 * jobs
        assert trace.done_at <= 2 * BURSTS_APART + 30
        assert trace.spawned <= max(6, 0.5 * 3 * jobs)
        assert trace.overshoot(TARGET) <= 3.0


@pytest.mark.parametrize("cores", CORES)
def test_a_hung_job_costs_itself_alone(cores: float) -> None:
    """What ignores its timeout is killed; the CPU is at the target as if it had not been."""
    _, traces = runs("H", cores, throttle=True)

    for trace in traces:
        assert trace.lost == 1
        assert trace.killed == 0
        assert trace.error(TARGET, grown(cores, 1.0)) <= 1.0


@pytest.mark.parametrize("cores", CORES)
def test_a_parked_parent_is_no_zombie(cores: float) -> None:
    """It outlives the zombie timeout three times over, and finishes, and so do all others."""
    _, traces = runs("I", cores, throttle=True)

    for trace in traces:
        assert trace.finished == 24
        assert trace.killed == trace.lost == 0


def test_the_rivals_fail_where_they_are_known_to() -> None:
    """The plants tell policies apart: each rival breaks a bound that is kept above."""
    known = scenarios(16.0)
    limit = known["D"].machine.memory * 0.8

    assert known["A"].play(First().decide).error(TARGET, 60.0) > 15
    assert known["D"].play(First(mended=True).decide).seconds_over(limit) > 1
    assert known["A"].play(Depth().decide).error(TARGET, 60.0) > 15
    assert known["D"].play(Depth().decide).seconds_over(limit) > 60
    assert known["B"].play(Fixed(16).decide).error(TARGET, 60.0) > 40


def possible(seconds: float, cores: float, memory: float | None) -> Phase:
    """Return a phase that uses the CPU that writing to its memory takes, at the least."""
    return Phase(seconds, max(cores, (memory or 0.0) / (seconds * FILLED)), memory)


@st.composite
def plants(draw: st.DrawFn) -> tuple[Machine, Callable[[], Job], int]:
    """Draw a machine, jobs of up to three phases each, and a seed."""
    cores = draw(st.sampled_from([1.0, 1.5, 2.0, 4.0, 8.0]))
    machine = Machine(
        cores=cores,
        memory=16 * GIB,
        boot=draw(st.floats(0.02, 2.0)),
        noise=draw(st.floats(0, 0.05)) * cores,
    )
    phase = st.builds(
        possible,
        st.floats(0.2, 8.0),
        st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        st.none() | st.floats(0, 400 * MIB),
    )
    kinds = draw(
        st.lists(
            st.builds(Job, st.sampled_from("abc"), st.lists(phase, min_size=1, max_size=3)),
            min_size=1,
            max_size=3,
        )
    )
    seed = draw(st.integers(0, 2**16))
    jobs = [Job(kind.function, tuple(kind.phases)) for kind in kinds]
    turn = iter(range(10**9))
    return machine, lambda: jobs[next(turn) % len(jobs)], seed


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PYSPLASH_LOADS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(plants(), st.booleans())
def test_no_load_makes_it_swing_starve_or_pass_memory(
    plant: tuple[Machine, Callable[[], Job], int], throttle: bool
) -> None:
    """Whatever the jobs: it comes to rest, it works, and memory is kept without a kill."""
    machine, make, seed = plant
    limits = Limits(max_procs=40, mem_budget=4 * GIB, throttle=throttle)
    law = Law(limits)
    trace = Plant(machine, endless(make), law, seed=seed, throttled=throttle).run(180.0)

    assert trace.seconds_over(machine.memory * 0.8, limits.mem_budget) == 0.0, "memory passed"
    assert trace.killed == trace.lost == 0
    assert trace.reversals(60.0) <= 6, "it swings"
    assert trace.finished > 0, "nothing is done"
    if throttle:
        assert trace.overshoot(TARGET) <= 3.0, "the limit is passed"
