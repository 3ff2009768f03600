"""What is on record is enough to decide again: exactly, or with other limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import pytest

from pysplash.control.model import ANY, Lesson, Limits, Momentum, Reason, WorkerState
from pysplash.control.simulation.workload import GIB
from pysplash.recording.format import EVERY, FactReader, FactWriter
from pysplash.recording.reader import Recording, parse
from pysplash.recording.replay import differences, replay

from .recorded import LIMITS, play, recording
from .views import NOW, busy, view, waiting, worker

BUDGET = replace(LIMITS, mem_budget=GIB)


def same(limits: Limits) -> Limits:
    """Change nothing."""
    return limits


def less(cpu: float) -> Callable[[Limits], Limits]:
    """Change the CPU limit."""
    return lambda limits: replace(limits, max_cpu=cpu)


@pytest.mark.parametrize(
    ("load", "limits"), [("spin", LIMITS), ("wave", LIMITS), ("ramp", BUDGET)], ids=str
)
def test_the_same_limits_decide_the_same(load: str, limits: Limits) -> None:
    """Every recorded decision is made again: target, reason and actions."""
    recorded = recording(load, limits)
    found = replay(recorded, same)

    assert found.lost == 0
    assert len(found.ticks) == len(recorded.ticks) > 80
    assert [tick for tick in found.ticks if not tick.same] == []
    assert len({tick.decision.reason for tick in found.ticks}) > 2
    assert list(differences(found)) == []


def test_views_are_read_back_whole() -> None:
    """What is read is what was written, but for lessons that no decision asks for."""
    recorded = play("wave")
    reader = FactReader()
    for line, was in zip(recorded.lines, recorded.views, strict=True):
        known = reader.read(json.loads(line)["view"])
        assert known is not None
        asked = {ANY, *(w.function for w in was.workers)} & set(was.lessons)
        lessons = {name: known.view.lessons.get(name) for name in asked}
        assert lessons == {name: was.lessons[name] for name in asked}
        momentum = known.view.momentum if known.fresh else was.momentum
        assert replace(known.view, lessons=was.lessons, momentum=momentum) == was


def test_every_kind_of_fact_is_read_back() -> None:
    """Also what a plant never shows: states, stops, floors, restarts, a Redis that is away."""
    facts = view(
        worker("new", WorkerState.STARTING, pss=None),
        busy("a", function="f", stop_at=NOW - 1, stop_reason=Reason.OVERDUE, kill_at=NOW),
        waiting("b"),
        queued=None,
        suspended=True,
        floor=2,
        restart_before=NOW - 50,
        boot_failures=3,
        boot_failed_at=NOW - 9,
        momentum=Momentum(step=4, over_cpu_since=3.5, active=MappingProxyType({"a": NOW - 1})),
        lessons={ANY: Lesson(jobs=7, cores=0.3), "f": Lesson(jobs=1)},
    )
    line = json.loads(json.dumps(FactWriter().write(facts, LIMITS)))
    known = FactReader().read(line)

    assert known is not None
    assert known.fresh
    assert known.limits == LIMITS
    assert known.view == facts


def test_other_limits_decide_otherwise_and_say_why() -> None:
    """With less CPU allowed, the ticks that grew would not have, and the reason is named."""
    recorded = recording("spin")
    found = replay(recorded, less(30.0))
    told = list(differences(found))

    assert any(not tick.same for tick in found.ticks)
    assert any("cpu" in line.partition("->")[2] for line in told)
    assert all(tick.decision.target <= tick.recorded.decision.target for tick in found.ticks)


def test_a_missing_line_costs_the_lines_to_the_next_whole_one() -> None:
    """What is decided after it is exact again."""
    lines = play("wave").lines
    whole = parse(lines, "x")
    holed = parse([*lines[:10], "garbage", *lines[11:]], "x")
    found = replay(holed, same)

    assert holed.skipped == 1
    assert found.lost == EVERY - 11
    assert len(found.ticks) == len(whole.ticks) - (EVERY - 10)
    assert all(tick.same for tick in found.ticks)


def test_a_line_that_was_never_written_is_no_end_of_exactness() -> None:
    """A disk that was full: the next line that gets there holds everything."""
    recorded = play("spin")
    writer = FactWriter()
    lines = []
    for number, (line, was) in enumerate(zip(recorded.lines, recorded.views, strict=True)):
        tick = json.loads(line)
        tick["view"] = writer.write(was, LIMITS)
        if 20 <= number < 30:
            writer.start_over()
        else:
            lines.append(json.dumps(tick))
    found = replay(parse(lines, "x"), same)

    assert found.lost == 0
    assert all(tick.same for tick in found.ticks)


def test_a_second_run_in_the_file_begins_anew() -> None:
    """A pool that was restarted, with other limits and the same file."""
    first, second = play("wave").lines, play("ramp", BUDGET).lines
    found = replay(_after(first[:25], second), same)

    assert found.lost == 0
    assert all(tick.same for tick in found.ticks)


def _after(first: list[str], second: list[str]) -> Recording:
    later = [json.loads(line) for line in second]
    return parse([*first, *(json.dumps({**tick, "t": tick["t"] + 1e4}) for tick in later)], "x")


def test_a_line_stays_small() -> None:
    """128 workers that compute, a line a second: within 12 kB a line on the mean."""
    machine_lines = []
    writer = FactWriter()
    for second in range(EVERY):
        crowd = (
            busy(f"somehost-a1b2c3-{i:08x}", cores=0.5 + second / (i + 7), beat=NOW + second / 3)
            for i in range(128)
        )
        line = writer.write(view(*crowd), LIMITS)
        machine_lines.append(len(json.dumps(line, separators=(",", ":"))))

    assert sum(machine_lines) / len(machine_lines) < 12_000


def test_an_older_record_has_nothing_to_decide_on() -> None:
    """Lines without facts are counted, not guessed at."""
    lines = [json.loads(line) for line in play("spin", seconds=20.0).lines]
    for line in lines:
        del line["view"]
    found = replay(parse(map(json.dumps, lines), "x"), same)

    assert found.ticks == ()
    assert found.lost == len(lines)


@pytest.mark.parametrize("field", ["now", "n", "limits", "workers", "samples", "lessons", "queued"])
def test_facts_that_were_tampered_with_cost_their_ticks(field: str) -> None:
    """Whatever stands there, it is no crash."""
    lines = [json.loads(line) for line in play("spin", seconds=20.0).lines]
    wrong: object
    for wrong in ("x", [], [1], {"x": "y"}, {"x": {"state": "y"}}):
        bad = {**lines[5], "view": {**lines[5]["view"], field: wrong}}
        found = replay(parse(map(json.dumps, [*lines[:5], bad, *lines[6:]]), "x"), same)
        assert len(found.ticks) >= 5
        assert all(tick.same for tick in found.ticks[:5])
