"""The journal: outcomes written down by one are read by another, whole or not at all."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from pysplash.worker.journal import SIDE, SIZE, Journal
from pysplash.worker.scoreboard import Scoreboard, Slot

FIRST, SECOND, THIRD = ("a", "1", b"x\r\n$3"), ("b", 2, b""), ("\u00e9 f", "3", b"y")
READ = [("a", "1", "x\r\n$3"), ("b", "2", ""), ("\u00e9 f", "3", "y")]


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """Return room for two journals."""
    memory = mmap.mmap(-1, 2 * SIZE)
    yield memory
    memory.close()


def test_what_is_noted_is_read_by_another(memory: mmap.mmap) -> None:
    """In its order, whatever it holds, and no neighbour's."""
    journal = Journal(memory, SIZE)
    assert [journal.note(words) for words in (FIRST, SECOND, THIRD)] == [True] * 3

    assert Journal(memory, SIZE).read() == READ
    assert Journal(memory, 0).read() == []


def test_a_turn_keeps_what_is_on_its_way(memory: mmap.mmap) -> None:
    """Until the next turn, by which it has come there."""
    journal = Journal(memory, 0)
    journal.note(FIRST)
    journal.switch()
    journal.note(SECOND)
    assert sorted(journal.read()) == READ[:2]
    journal.switch()
    journal.note(THIRD)
    assert sorted(journal.read()) == READ[1:]


def test_what_is_stored_is_wiped(memory: mmap.mmap) -> None:
    """The side that was turned away from is left alone."""
    journal = Journal(memory, 0)
    journal.note(FIRST)
    journal.switch()
    journal.note(SECOND)
    journal.wipe()
    assert journal.read() == READ[:1]
    journal.note(THIRD)
    assert sorted(journal.read()) == [READ[0], READ[2]]


def test_there_is_an_end_to_it(memory: mmap.mmap) -> None:
    """What has no room is refused and leaves the rest as it is; the neighbour is not touched."""
    journal, neighbour = Journal(memory, 0), Journal(memory, SIZE)
    neighbour.note(SECOND)
    journal.switch()
    journal.note(FIRST)
    assert not journal.note(("b", "x" * SIDE))
    noted = 1
    while journal.note(("c", "x" * 100)):
        noted += 1
    assert len(journal.read()) == noted
    assert neighbour.read() == READ[1:2]


def test_half_a_word_is_no_outcome(memory: mmap.mmap) -> None:
    """A worker killed while it wrote has not noted it; spoilt memory costs what is behind it."""
    journal = Journal(memory, 0)
    journal.note(FIRST)
    used = int.from_bytes(memory[:8], "little")
    journal.note(SECOND)
    memory[:8] = (used + 5).to_bytes(8, "little")
    assert journal.read() == READ[:1]
    memory[8 + used : 8 + used + 5] = b"%%%%%"
    assert journal.read() == READ[:1]
    memory[:8] = b"\xff" * 8
    assert journal.read() == READ[:1]


def test_a_row_has_its_slate() -> None:
    """The pool reads what a worker has noted, until the row is another's."""
    board = Scoreboard(3)
    slots = [Slot(board, index, f"w{index}") for index in range(3)]
    slots[1].journal.note(FIRST)
    slots[2].journal.note(SECOND)
    assert [board.outcomes(index) for index in range(3)] == [[], READ[:1], READ[1:2]]
    board.clear(1)
    assert [board.outcomes(index) for index in range(3)] == [[], [], READ[1:2]]
    assert [row and row.name for row in map(board.read, range(3))] == ["w0", None, "w2"]
    board.close()
