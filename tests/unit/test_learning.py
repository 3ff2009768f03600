"""What finished jobs teach: whole lives, peaks, and only so much of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from pysplash.control.learning import (
    MOST_FUNCTIONS,
    MOST_NAME,
    Learner,
    carried,
    from_record,
    to_record,
    with_peak,
)
from pysplash.control.model import ANY, PROVEN, Lesson, Reason, WorkerState, WorkerView

from .views import MIB, NOW, busy, worker


def watch(learner: Learner, ticks: Iterable[WorkerView], cpu: float = 50.0) -> None:
    """Let a learner see one worker, second by second from `NOW`."""
    for second, seen in enumerate(ticks):
        learner.observe(NOW + second, [seen], cpu)


def life(seconds: int, cores: float, **fields: object) -> list[WorkerView]:
    """Return a worker idle, through a job that starts and ends on a tick, and idle again."""
    job = [
        replace(busy("a", job_started=NOW, cores=cores, function="f"), **fields)  # type: ignore[arg-type]
        for _ in range(seconds)
    ]
    last = job[-1]
    return [*job, worker("a", jobs=1, cores=cores, pss=last.pss, held=last.held)]


def test_a_job_is_learned_over_its_whole_life() -> None:
    """Fifteen seconds asleep and ten at work are 0.4 cores, under its name and under all."""
    learner = Learner()
    asleep, awake = life(16, 0.0)[:-1], life(9, 1.0)
    watch(learner, [*asleep, *awake])

    for name in ("f", ANY):
        assert learner.lessons[name].cores == pytest.approx(0.4, abs=0.03)
        assert learner.lessons[name].seconds == pytest.approx(25, abs=1)
        assert learner.lessons[name].jobs == 1


def test_a_parked_job_uses_no_time() -> None:
    """What a job waits for others says nothing of the cores it uses."""
    learner = Learner()
    parked = [replace(seen, state=WorkerState.WAITING, cores=None) for seen in life(30, 0.0)[:-1]]
    watch(learner, [*parked, *life(4, 0.5)])

    assert learner.lessons[ANY].cores == pytest.approx(0.5)
    assert learner.lessons[ANY].seconds == pytest.approx(5, abs=1)


def test_jobs_inside_a_job_belong_to_it() -> None:
    """A parent that runs its children itself is one long job, not many short ones."""
    learner = Learner()
    helping = [replace(seen, jobs=n) for n, seen in enumerate(life(10, 0.7)[:-1])]
    watch(learner, [*helping, worker("a", jobs=10, cores=0.7)])

    assert learner.lessons["f"].jobs == 1
    assert learner.lessons["f"].seconds == pytest.approx(10, abs=1)


def test_a_held_job_is_not_taken_for_a_light_one() -> None:
    """The part of the time in which it was held is not counted."""
    learner = Learner()
    watch(learner, life(20, 0.6, held=0.4))

    assert learner.lessons[ANY].cores == pytest.approx(1.0)


def test_many_jobs_in_a_tick_are_counted_and_timed() -> None:
    """Jobs too short to be seen one by one share the tick's CPU and its length."""
    learner = Learner()
    watch(learner, [busy("a", cores=0.8, jobs=100 * n, job_started=NOW + n) for n in range(6)])

    assert learner.lessons[ANY].jobs == 500
    assert learner.lessons[ANY].cores == pytest.approx(0.8)
    assert learner.lessons[ANY].seconds == pytest.approx(0.01, rel=0.2)


def test_memory_is_learned_by_peaks_and_by_its_level() -> None:
    """A ramp has its end for a peak and half of it for a level."""
    learner = Learner()
    ramp = [replace(seen, pss=n * 10 * MIB) for n, seen in enumerate(life(10, 0.5)[:-1], 1)]
    watch(learner, [*ramp, worker("a", jobs=1, pss=5 * MIB)])

    lesson = learner.lessons["f"]
    assert lesson.peak == lesson.most == 100 * MIB
    assert lesson.level == pytest.approx(50 * MIB, rel=0.1)
    assert lesson.sway == pytest.approx(29 * MIB, rel=0.15)


def test_peaks_have_a_mean_a_deviation_and_a_largest() -> None:
    """Forty jobs of ten and ten of sixty: the mean between, the largest remembered."""
    lesson = Lesson()
    for n in range(50):
        lesson = with_peak(replace(lesson, jobs=n + 1), 60 if n % 5 == 0 else 10)

    assert lesson.peak == pytest.approx(20, rel=0.15)
    assert lesson.spread == pytest.approx(20, rel=0.15)
    assert 50 < lesson.most <= 60


def test_a_job_killed_for_its_memory_raises_the_estimate() -> None:
    """It would have grown on: its function is expected to need a fifth more than it had."""
    learner = Learner()
    at_work = busy("a", function="f", pss=100 * MIB)
    killed = replace(at_work, stop_at=NOW, stop_reason=Reason.MEMORY, kill_at=NOW + 1)
    watch(learner, [at_work, killed])
    learner.observe(NOW + 2, [], 50.0)

    assert learner.lessons["f"].most == 120 * MIB


def test_a_worker_that_left_teaches_nothing() -> None:
    """A job whose worker was gone before its end is no example."""
    learner = Learner()
    watch(learner, [busy("a", function="f", pss=100 * MIB)])
    learner.observe(NOW + 1, [], 50.0)

    assert learner.lessons == {}


def test_functions_are_forgotten_beyond_a_bound() -> None:
    """The one not seen for longest goes, what all have taught stays."""
    learner = Learner()
    for n in range(MOST_FUNCTIONS + 50):
        learner.observe(NOW + 2 * n, [busy("a", function=f"f{n}", jobs=n)], 50.0)
        learner.observe(NOW + 2 * n + 1, [worker("a", jobs=n + 1)], 50.0)

    assert len(learner.lessons) <= MOST_FUNCTIONS
    assert ANY in learner.lessons
    assert "f0" not in learner.lessons


def test_what_was_learned_stays_as_it_was_seen() -> None:
    """A view keeps the lessons of its tick, whatever is learned later."""
    learner = Learner()
    watch(learner, life(5, 1.0))
    before = learner.lessons
    jobs = before[ANY].jobs
    watch(learner, life(5, 0.0))

    assert before[ANY].jobs == jobs


def test_a_lesson_can_be_kept_and_read_again() -> None:
    """Plain numbers in JSON, nothing lost that matters."""
    lesson = Lesson(9, 0.4, 60.0, 25.0, 1e8, 2e7, 3e8, 5e7, 1e7)

    assert from_record(json.loads(json.dumps(to_record(lesson)))) == lesson


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        "lesson",
        {**to_record(Lesson()), "cores": "1"},
        {**to_record(Lesson()), "cores": -1},
        {**to_record(Lesson()), "peak": float("nan")},
        {**to_record(Lesson()), "peak": float("inf")},
        {**to_record(Lesson()), "jobs": True},
        {**to_record(Lesson()), "jobs": 10**30},
    ],
)
def test_what_is_no_lesson_is_not_taken_for_one(record: object) -> None:
    """Whoever writes to Redis can make a pool neither crash nor believe nonsense."""
    assert from_record(record) is None


def test_lessons_of_others_are_believed_and_soon_outweighed() -> None:
    """They count as few jobs; names without end and without number are left out."""
    mine = carried([("f", Lesson(jobs=10**6, weight=10**6)), ("x" * (MOST_NAME + 1), Lesson())])
    many = carried((f"f{n}", Lesson()) for n in range(10**4))

    assert mine == {"f": Lesson(jobs=PROVEN, weight=PROVEN)}
    assert len(many) == MOST_FUNCTIONS
