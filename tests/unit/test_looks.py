"""When calls are looked at whose answers are not told: no server, no clock."""

from __future__ import annotations

import pytest

from pysplash.client.looks import OFTEN, SELDOM, LookSchedule


def looks_at_one(seconds: float, count: int = 1) -> list[float]:
    """Return when a call is looked at that is made at 0 and goes on for so long."""
    schedule, now, seen = LookSchedule(), 0.0, []
    while now < seconds:
        schedule.add("a", now, now, count)
        assert schedule.next is not None
        now = schedule.next
        assert schedule.due(now) == ["a"]
        seen.append(now)
    return seen


@pytest.mark.parametrize("took", [0.001, 0.01, 0.1, 1.0, 10.0, 100.0])
def test_an_answer_is_found_in_time(took: float) -> None:
    """It is found late by a part of the time it took, and by a second at most."""
    late = looks_at_one(took)[-1] - took
    assert late <= min(SELDOM, max(OFTEN, took / 3)) + 1e-9


def test_looks_come_ever_less_often() -> None:
    """A call of ten minutes is looked at once a second; its first second takes few looks."""
    seen = looks_at_one(600.0)
    assert seen[-1] - seen[-2] == pytest.approx(SELDOM)
    assert len([moment for moment in seen if moment < 1.0]) < 30


def test_many_calls_are_looked_at_less_often() -> None:
    """A thousand new calls do not keep the server busy with looks."""
    assert len(looks_at_one(0.2, count=1000)) <= 4


def test_planned_anew_a_call_is_looked_at_once() -> None:
    """A plan replaces the one before it, and whoever is next is said to be."""
    schedule = LookSchedule()
    assert schedule.add("a", 4.0, 0.0, 1)
    assert schedule.add("b", 0.0, 0.0, 1)
    assert not schedule.add("a", 8.0, 0.0, 1)
    assert schedule.due(0.5) == ["b"]
    assert schedule.due(100.0) == ["a"]
    assert schedule.next is None
