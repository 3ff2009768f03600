"""The ledger of a storm: every fault is told by its name, and nothing else is a fault."""

from __future__ import annotations

import pytest

from benchmarks.ledger import ALWAYS, FAULTS, Found, Kind, Run, Task, judge, plan, read_runs

PLAIN = Task("plain-1", Kind("plain", 1), "default")
RETRY = Task("retry-2", Kind("retry", 1, retries=2), "default")
HOPELESS = Task("hopeless-3", Kind("hopeless", 1, failures=ALWAYS, retries=2), "default")
CHILD = Task("dependent-4", Kind("dependent", 1, dependent=True), "default", parent="plain-1")
FINISHED = Found(("finished",), "finished", 1)
FAILED = Found(("failed",), "failed")
DEFERRED = Found(("deferred",), "deferred")
CUT, RAISED = Run(end=""), Run(end="raised")


def faults(task: Task, found: Found, *runs: Run, kills: int = 0) -> set[str]:
    """Return what is wrong with one job, whose parent, if any, has finished."""
    known = {"plain-1": FINISHED} | {task.job_id: found}
    return set(judge([task], known, {task.job_id: runs}, kills).faults)


@pytest.mark.parametrize(
    ("task", "found", "runs", "kills"),
    [
        (PLAIN, FINISHED, [Run()], 0),
        (PLAIN, FAILED, [CUT], 1),
        (PLAIN, FAILED, [Run()], 1),
        (PLAIN, FAILED, [], 1),
        (RETRY, FINISHED, [CUT, Run(), Run()], 2),
        (RETRY, FAILED, [CUT, CUT], 3),
        (HOPELESS, FAILED, [RAISED, RAISED, RAISED], 0),
        (HOPELESS, FAILED, [RAISED, RAISED], 1),
        (CHILD, FINISHED, [Run()], 0),
    ],
)
def test_what_kills_explain_is_no_fault(
    task: Task, found: Found, runs: list[Run], kills: int
) -> None:
    """A kill may cut a run short, take its outcome, or end an attempt before its run."""
    assert faults(task, found, *runs, kills=kills) == set()
    if kills:
        assert faults(task, found, *runs, kills=kills - 1) == {"unexplained"}


@pytest.mark.parametrize(
    ("fault", "task", "found", "runs"),
    [
        ("lost", PLAIN, Found(), [Run()]),
        ("stranded", PLAIN, Found(("started",), "started"), []),
        ("stranded", PLAIN, Found(("intermediate",), "queued"), []),
        ("stranded", PLAIN, Found(("quarantine",), "queued"), []),
        ("stranded", CHILD, DEFERRED, []),
        ("left waiting", PLAIN, Found(("queued",), "queued"), []),
        ("left waiting", PLAIN, Found(("scheduled",), "scheduled"), []),
        ("in two places", PLAIN, Found(("queued", "queued"), "queued"), []),
        ("in two places", PLAIN, Found(("finished", "failed"), "failed", 1), [Run()]),
        ("at odds", PLAIN, Found(("finished",), "failed", 1), [Run()]),
        ("at odds", PLAIN, Found(("finished",), "", 1), [Run()]),
        ("at odds", PLAIN, Found(("finished",), "finished", 0), [Run()]),
        ("at odds", PLAIN, Found(("finished",), "finished", 2), [Run()]),
        ("at odds", HOPELESS, Found(("failed",), "failed", 1), [RAISED] * 3),
        ("run too often", PLAIN, FINISHED, [RAISED, Run()]),
        ("run too often", RETRY, FINISHED, [RAISED, RAISED, RAISED, Run()]),
        ("overlapping", RETRY, FINISHED, [RAISED, Run(alone=False)]),
        ("finished unrun", PLAIN, FINISHED, []),
        ("finished unrun", HOPELESS, FINISHED, [RAISED] * 3),
    ],
)
def test_each_fault_is_told(fault: str, task: Task, found: Found, runs: list[Run]) -> None:
    """Each fault has a name, and is told even if kills could explain something."""
    assert fault in faults(task, found, *runs, kills=9)


def test_every_fault_has_a_case_above() -> None:
    """No rule is without a test."""
    marks = test_each_fault_is_told.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(FAULTS)


def test_a_child_of_a_failed_job_rightly_stays_deferred() -> None:
    """It waits for what will not come; that is RQ's way, and no loss."""
    found = {PLAIN.job_id: FAILED, CHILD.job_id: DEFERRED}
    assert judge([PLAIN, CHILD], found, {PLAIN.job_id: [CUT]}, 1).faults == {}


def test_runs_are_read_from_the_log() -> None:
    """Ends find their beginnings; a run without an end was cut short."""
    log = [
        "begin a j-1 alone",
        "begin b j-2 alone",
        "end b returned",
        "begin c j-2 beside",
        "end c raised",
    ]
    assert read_runs(log) == {"j-1": [CUT], "j-2": [Run(), Run(alone=False, end="raised")]}


def test_runs_that_overlap_in_the_log_are_not_alone() -> None:
    """Two runs of a job in one process share its lock; the order of the lines tells them."""
    log = ["begin a j-1 alone", "begin b j-1 alone", "end b returned", "end a returned"]
    assert read_runs(log) == {"j-1": [Run(), Run(alone=False)]}


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    """A storm can be had again: same jobs, same parents, and every kind is among them."""
    tasks = plan(1_000, 7, "abc")
    assert tasks == plan(1_000, 7, "abc") != plan(1_000, 8, "abc")
    assert {task.kind.name for task in tasks} >= {"plain", "retry", "failing", "dependent"}
    ids = [task.job_id for task in tasks]
    assert len(set(ids)) == 1_000
    assert all(ids.index(task.parent) < at for at, task in enumerate(tasks) if task.parent)
