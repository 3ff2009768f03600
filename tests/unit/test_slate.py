"""The slate: outcomes written down by one are read by another, whole or not at all."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from pysplash.worker.journal import SIDE, SIZE, Slate
from pysplash.worker.scoreboard import Scoreboard, Slot

FIRST, SECOND, THIRD = ("a", "1", b"x\r\n$3"), ("b", 2, b""), ("\u00e9 f", "3", b"y")
READ = [("a", "1", "x\r\n$3"), ("b", "2", ""), ("\u00e9 f", "3", "y")]


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """Return room for two slates."""
    memory = mmap.mmap(-1, 2 * SIZE)
    yield memory
    memory.close()


def test_what_is_noted_is_read_by_another(memory: mmap.mmap) -> None:
    """In its order, whatever it holds, and no neighbour's."""
    slate = Slate(memory, SIZE)
    assert [slate.note(words) for words in (FIRST, SECOND, THIRD)] == [True] * 3

    assert Slate(memory, SIZE).read() == READ
    assert Slate(memory, 0).read() == []


def test_a_turn_keeps_what_is_on_its_way(memory: mmap.mmap) -> None:
    """Until the next turn, by which it has come there."""
    slate = Slate(memory, 0)
    slate.note(FIRST)
    slate.turn()
    slate.note(SECOND)
    assert sorted(slate.read()) == READ[:2]
    slate.turn()
    slate.note(THIRD)
    assert sorted(slate.read()) == READ[1:]


def test_what_is_stored_is_wiped(memory: mmap.mmap) -> None:
    """The side that was turned away from is left alone."""
    slate = Slate(memory, 0)
    slate.note(FIRST)
    slate.turn()
    slate.note(SECOND)
    slate.wipe()
    assert slate.read() == READ[:1]
    slate.note(THIRD)
    assert sorted(slate.read()) == [READ[0], READ[2]]


def test_there_is_an_end_to_it(memory: mmap.mmap) -> None:
    """What has no room is refused and leaves the rest as it is; the neighbour is not touched."""
    slate, neighbour = Slate(memory, 0), Slate(memory, SIZE)
    neighbour.note(SECOND)
    slate.turn()
    slate.note(FIRST)
    assert not slate.note(("b", "x" * SIDE))
    noted = 1
    while slate.note(("c", "x" * 100)):
        noted += 1
    assert len(slate.read()) == noted
    assert neighbour.read() == READ[1:2]


def test_half_a_word_is_no_outcome(memory: mmap.mmap) -> None:
    """A worker killed while it wrote has not noted it; spoilt memory costs what is behind it."""
    slate = Slate(memory, 0)
    slate.note(FIRST)
    used = int.from_bytes(memory[:8], "little")
    slate.note(SECOND)
    memory[:8] = (used + 5).to_bytes(8, "little")
    assert slate.read() == READ[:1]
    memory[8 + used : 8 + used + 5] = b"%%%%%"
    assert slate.read() == READ[:1]
    memory[:8] = b"\xff" * 8
    assert slate.read() == READ[:1]


def test_a_row_has_its_slate() -> None:
    """The pool reads what a worker has noted, until the row is another's."""
    board = Scoreboard(3)
    slots = [Slot(board, index, f"w{index}") for index in range(3)]
    slots[1].slate.note(FIRST)
    slots[2].slate.note(SECOND)
    assert [board.outcomes(index) for index in range(3)] == [[], READ[:1], READ[1:2]]
    board.clear(1)
    assert [board.outcomes(index) for index in range(3)] == [[], [], READ[1:2]]
    assert [row and row.name for row in map(board.read, range(3))] == ["w0", None, "w2"]
    board.close()
