"""The fast loop: who is held, for how much of a slice, and never for all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysplash.control.model import Limits
from pysplash.control.throttle import MEMORY_FROM, MOST_HELD, Grip, Runner, Slice, trim

LIMITS = Limits(max_cpu=80.0, max_mem=80.0)


def slice_of(*cores: float, capacity: float = 2.0, **fields: float) -> Slice:
    """Return a slice in which workers, the oldest first, used so many cores each."""
    runners = tuple(Runner(f"w{n}", used) for n, used in enumerate(cores))
    return replace(Slice(0.1, capacity, sum(cores), runners), **fields)  # type: ignore[arg-type]


def test_below_the_limit_nobody_is_held() -> None:
    """One of two cores is used: there is nothing to trim."""
    assert trim(slice_of(1.0), Grip(), LIMITS).holds == ()


def test_the_newest_is_held_for_what_is_too_much() -> None:
    """Two cores used where 1.6 are allowed: the newest gives up 0.4, and what was overdrawn."""
    grip = trim(slice_of(1.0, 1.0), Grip(), LIMITS)

    assert [name for name, _ in grip.holds] == ["w1"]
    assert grip.cores == pytest.approx(0.4 + 0.04 / 0.5)


def test_two_computing_jobs_on_two_cores_come_to_the_target() -> None:
    """The mean of ten slices is 80 % from the second second on, and the oldest runs freely."""
    grip, used, held = Grip(), [], []
    runners: tuple[Runner, ...] = (Runner("w0", 1.0), Runner("w1", 1.0))
    for _ in range(100):
        cores = sum(runner.cores for runner in runners)
        grip = trim(Slice(0.1, 2.0, cores, runners), grip, LIMITS)
        parts = dict(grip.holds)
        held.append(set(parts))
        runners = tuple(
            Runner(name, 1 - parts.get(name, 0.0), parts.get(name, 0.0)) for name in ("w0", "w1")
        )
        used.append(cores)

    assert sum(used[10:20]) / 10 == pytest.approx(1.6, abs=0.02)
    assert sum(used[20:]) / 80 == pytest.approx(1.6, abs=0.005)
    assert set().union(*held[20:]) == {"w1"}


def test_a_full_machine_is_not_believed() -> None:
    """Where eight share two cores each would use one: so many are held at once."""
    grip = trim(slice_of(*[0.25] * 8), Grip(), LIMITS)

    assert len(grip.holds) >= 7


def test_others_are_made_room_for() -> None:
    """A core used by strangers is a core less for the pool's jobs."""
    grip = trim(slice_of(0.9, 0.1, used=2.0), Grip(), LIMITS)

    assert grip.cores == pytest.approx(0.4 + 0.08, abs=0.3)


def test_others_cannot_take_all() -> None:
    """Where strangers use the whole machine and more, a quarter of the limit stays the pool's."""
    grip = trim(slice_of(0.0, 0.5, used=2.0), Grip(balance=-9.0), LIMITS)

    assert grip.cores == pytest.approx(1.0 - 0.25 * 1.6)


def test_who_sleeps_is_not_held() -> None:
    """Holding a sleeping job helps nobody."""
    grip = trim(slice_of(1.0, 1.0, 0.0), Grip(), LIMITS)

    assert "w2" not in dict(grip.holds)


@pytest.mark.parametrize(("used", "held"), [(0.82, 0), (0.85, 1), (0.88, 2), (0.93, 4), (0.99, 4)])
def test_memory_holds_ever_more_of_the_newest(used: float, held: int) -> None:
    """From 84 % of the limit on; at 93 % all but the oldest, which can end and free its own."""
    full = slice_of(*[0.1] * 5, mem_used=used * 80, mem_total=100)
    grip = trim(full, Grip(memory=used), LIMITS)

    assert sorted(dict(grip.holds)) == [f"w{n}" for n in range(5 - held, 5)]


def test_memory_that_grows_is_held_before_it_is_there() -> None:
    """A limit that will be passed in a moment counts as passed."""
    now = slice_of(*[0.1] * 5, mem_used=0.82 * 80, mem_total=100)

    assert trim(now, Grip(memory=0.82), LIMITS).holds == ()
    assert trim(now, Grip(memory=0.79), LIMITS).holds != ()


def test_memory_holds_from_slice_to_slice_and_gives_turns() -> None:
    """Nobody has a part of every slice, for growth is done in an instant; each has one in time."""
    full = slice_of(*[0.0] * 5, mem_used=99, mem_total=100)
    grip, free = Grip(memory=1.2), []
    for number in range(200):
        grip = trim(full, grip, LIMITS)
        turns = [name for name, part in grip.holds if part < 1]
        assert len(grip.holds) == 4
        assert len(turns) <= 1
        free += [(number, name) for name in turns]

    assert {name for _, name in free} == {"w1", "w2", "w3", "w4"}
    assert all(sum(name == w for _, name in free) in (3, 4) for w in ("w1", "w2", "w3", "w4"))


def test_the_budget_counts_as_the_limit_does() -> None:
    """The pool's own bytes, and what the oldest job still needs, are seen against mem_budget."""
    limits = replace(LIMITS, mem_budget=1000)

    assert trim(slice_of(0.1, 0.1, pool_mem=900), Grip(memory=0.9), limits).holds != ()
    assert trim(slice_of(0.1, 0.1, pool_mem=800), Grip(memory=0.8), limits).holds == ()
    assert trim(slice_of(0.1, 0.1, pool_mem=800, reserve=150), Grip(), limits).holds != ()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 4), st.floats(0, MOST_HELD)), max_size=12),
    st.floats(0.5, 16),
    st.floats(0, 64),
    st.floats(0, 2),
    st.builds(Grip, st.floats(-100, 100), st.floats(0, 2)),
)
def test_only_memory_holds_for_a_whole_slice(
    workers: list[tuple[float, float]], capacity: float, others: float, mem: float, before: Grip
) -> None:
    """Whatever is seen: for the CPU's sake who is held crawls on; the oldest does in any case."""
    runners = tuple(Runner(f"w{n}", cores, held) for n, (cores, held) in enumerate(workers))
    used = min(capacity, others + sum(r.cores for r in runners))
    grip = trim(Slice(0.1, capacity, used, runners, mem, 1.0), before, LIMITS)
    names = [name for name, _ in grip.holds]

    full = 100 * mem / LIMITS.max_mem
    tight = full > MEMORY_FROM or full > before.memory
    assert all(0 < part <= MOST_HELD or part == 1 == tight for _, part in grip.holds)
    assert all(part <= MOST_HELD for name, part in grip.holds if name == "w0")
    assert len(set(names)) == len(names)
    assert set(names) <= {runner.name for runner in runners}
