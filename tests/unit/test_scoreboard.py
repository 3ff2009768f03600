"""The scoreboard: what a worker writes is what the pool reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pysplash.control.model import WorkerState
from pysplash.waiting.offer import attach, attached
from pysplash.worker.row import STATES
from pysplash.worker.scoreboard import ROW_SIZE, Scoreboard, Slot


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """Return a board of three rows."""
    board = Scoreboard(3)
    yield board
    board.close()


def test_an_empty_row_is_nothing(board: Scoreboard) -> None:
    """A worker that has written nothing yet is told from one that has."""
    assert board.read(0) is None


def test_a_life(board: Scoreboard) -> None:
    """Every step of a worker's life shows, with times from its clock and the job it holds."""
    now = 10.0
    slot = Slot(board, 1, "w", clock=lambda: now)
    seen = []
    for step in (
        slot.idle,
        lambda: slot.claimed("job", 30.0),
        lambda: slot.started("exec"),
        lambda: slot.finished(failed=True),
        slot.stopping,
    ):
        now += 1
        step()
        seen.append(board.read(1))

    assert [row and row.state for row in seen] == ["idle", "busy", "busy", "idle", "stopping"]
    assert [row and row.job_id for row in seen] == ["", "job", "job", "", ""]
    assert [row and row.execution_id for row in seen] == ["", "", "exec", "", ""]
    assert [row and row.beat for row in seen] == [11, 12, 13, 14, 15]
    assert [row and row.since for row in seen] == [11, 12, 12, 14, 15]
    last = seen[-1]
    assert last is not None
    assert (last.name, last.jobs, last.failed, last.job_timeout) == ("w", 1, 1, None)
    assert board.read(0) is None
    assert board.read(2) is None


def test_parking_is_undone_by_any_way_out(board: Scoreboard) -> None:
    """A worker waits for the length of the block and is busy again after it."""
    slot = Slot(board, 0, "w")
    slot.claimed("job", None)
    states = []

    def park() -> None:
        with slot.parked():
            states.append(board.read(0))
            raise KeyError

    with pytest.raises(KeyError):
        park()
    states.append(board.read(0))

    assert [row and row.state for row in states] == [WorkerState.WAITING, WorkerState.BUSY]


def test_a_job_inside_another_brings_its_deadline(board: Scoreboard) -> None:
    """The row stays the outermost job's; its deadline is the earliest of those inside."""
    now = 10.0
    slot = Slot(board, 0, "w", clock=lambda: now)
    deadlines = []

    def note() -> None:
        row = board.read(0)
        assert row is not None
        assert (row.job_id, row.execution_id, row.job_started) == ("outer", "exec", 10.0)
        deadlines.append((row.state, row.job_timeout))

    slot.claimed("outer", 100.0, "exec")
    note()
    with slot.parked():
        for timeout in (30.0, 500.0, None):
            now += 10
            slot.claimed("inner", timeout, "other")
            note()
            slot.finished(failed=timeout is None)
            note()
    slot.finished(failed=False)
    row = board.read(0)

    assert deadlines == [
        ("busy", 100.0),
        ("busy", 40.0),
        ("waiting", 100.0),
        ("busy", 100.0),
        ("waiting", 100.0),
        ("busy", 100.0),
        ("waiting", 100.0),
    ]
    assert row is not None
    assert (row.state, row.job_id, row.jobs, row.failed) == ("idle", "", 4, 1)


def test_a_limit_inside_a_job_without_one_counts(board: Scoreboard) -> None:
    """A nested job's timeout is a deadline even if the outermost job has none."""
    now = 10.0
    slot = Slot(board, 0, "w", clock=lambda: now)
    slot.claimed("outer", None)
    now = 15.0
    slot.claimed("inner", 30.0)
    row = board.read(0)

    assert row is not None
    assert row.job_timeout == 35.0


def test_a_long_job_id_is_left_out_rather_than_cut(board: Scoreboard) -> None:
    """Half an id would name another job."""
    slot = Slot(board, 0, "w")
    slot.claimed("j" * 256, None)
    row = board.read(0)

    assert row is not None
    assert row.job_id == ""


def test_a_torn_row_is_still_read(board: Scoreboard) -> None:
    """A worker killed while writing leaves a row that is read as it stands, not for ever."""
    slot = Slot(board, 0, "w")
    slot.claimed("job", None)
    board._map[0:8] = (3).to_bytes(8, "little")
    row = board.read(0)

    assert row is not None
    assert row.job_id == "job"


def test_a_cleared_row_is_empty(board: Scoreboard) -> None:
    """The next worker in a row does not inherit the last one's."""
    Slot(board, 0, "w").idle()
    board.clear(0)

    assert board.read(0) is None


def test_rows_do_not_overlap() -> None:
    """Every state has a number, and a row its own space."""
    assert len(set(STATES)) == len(WorkerState)
    assert ROW_SIZE >= 448


def test_attachment(board: Scoreboard) -> None:
    """A process is a worker only while its row is attached."""
    assert attached() is None
    slot = Slot(board, 0, "w")
    attach(slot)
    try:
        assert attached() is slot
    finally:
        attach(None)


def test_a_worker_knows_how_many_idle_ones_stand_before_it() -> None:
    """Only those that are idle count, and only in the rows before its own."""
    board = Scoreboard(4)
    slots = [Slot(board, index, f"w{index}") for index in range(4)]
    assert slots[3].idle_before() == 0
    for slot in slots:
        slot.idle()
    slots[1].claimed("job", None)
    assert [slot.idle_before() for slot in slots] == [0, 1, 1, 2]


def test_a_request_names_its_job() -> None:
    """A worker stops the job it was asked to stop and no other; no name means any."""
    board = Scoreboard(2)
    slot = Slot(board, 1, "w")
    board.ask(1, "job")
    assert slot.to_stop("job")
    assert not slot.to_stop("another")
    assert not slot.to_stop_any()
    slot.idle()
    assert slot.to_stop("job")
    board.ask(1, "")
    assert slot.to_stop("another")
    assert slot.to_stop_any()


@pytest.mark.parametrize(
    "name", ["", "app.jobs.resize", "a" * 44, "a" * 45, "b" * 10_000, "\u00e9" * 40, "\udcff"]
)
def test_a_function_is_named_whatever_its_length(board: Scoreboard, name: str) -> None:
    """A short name is itself; a long one is told apart from others that begin alike."""
    slot = Slot(board, 1, "w")
    slot.claimed("job", None)
    slot.runs(name)
    row = board.read(1)
    slot.runs(name + "x" * 50)
    other = board.read(1)

    assert row is not None
    assert other is not None
    assert row.function == name or len(name) > 20 or not name.isprintable()
    assert row.function != other.function
    assert (row.job_id, row.name) == ("job", "w")
    assert board.asked(1) == bytes(16)


def test_being_held_is_counted_for_ever_and_for_the_job(board: Scoreboard) -> None:
    """Each job begins at nothing; what its parent adds touches no other field."""
    slot = Slot(board, 1, "w")
    slot.claimed("one", 9.0)
    board.hold(1, 1.5)
    first = board.read(1)
    slot.finished(failed=False)
    slot.claimed("two", 9.0)
    board.hold(1, 0.25)
    second = board.read(1)

    assert first is not None
    assert second is not None
    assert (first.held, first.held_in_job) == (1.5, 1.5)
    assert (second.held, second.held_in_job, second.job_id) == (1.75, 0.25, "two")
    assert slot.held() == 1.75
    assert [board.busy(index) for index in range(3)] == [False, True, False]


def test_between_two_jobs_of_a_batch_nothing_is_written(board: Scoreboard) -> None:
    """The next one's beginning says that the last has ended; whatever is written first says so."""
    slot = Slot(board, 0, "w")
    slot.claimed("one", 9.0, "e1")
    slot.finished(failed=False, more=True)
    between = board.read(0)
    slot.claimed("two", 9.0, "e2")
    then = board.read(0)
    slot.finished(failed=True, more=True)
    slot.stopping()
    last = board.read(0)

    assert between is not None
    assert then is not None
    assert last is not None
    assert (between.job_id, between.jobs) == ("one", 0)
    assert (then.job_id, then.execution_id, then.jobs) == ("two", "e2", 1)
    assert (last.job_id, last.jobs, last.failed) == ("", 2, 1)
