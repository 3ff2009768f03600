"""A bundle of calls: one after the other in one job, and what is noted meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rq.job import Job

from pysplash.application.bundle import Bundle
from pysplash.client.requests import NOWHERE
from pysplash.jobs import bundles as parts
from pysplash.jobs.bundles import AGAIN, HELD, BundleProgress, Noted


class Notes:
    """Keeps notes of job j while there is room for so many."""

    def __init__(self, room: int) -> None:
        self.kept: list[parts.Words] = []
        self.room = room

    def keep(self, words: parts.Words) -> bool:
        """Keep a note."""
        self.kept.append(words)
        return len(self.kept) <= self.room

    def run(self, function: Any, texts: str, enough: float = 1000) -> list[Any]:
        """Run a bundle that notes here."""
        job = Job("j", connection=NOWHERE)
        answered = json.loads(Bundle(function, list(texts), job, self.keep, enough).run())
        assert isinstance(answered, list)
        return answered


def test_answers_come_in_order() -> None:
    """Each call's answer is noted before the next begins."""
    notes = Notes(10)
    seconds, *answers = notes.run(lambda text: text * 2, "ab")
    assert 0 <= seconds < 60
    assert answers == ["aa", "bb"]
    assert parts.noted(notes.kept, "j") == Noted(True, ['"aa"', '"bb"'])


@pytest.mark.parametrize(("room", "made"), [(0, ""), (1, "A"), (3, "ABC")])
def test_it_begins_no_more_than_can_be_noted(room: int, made: str) -> None:
    """A call of which no note is kept is the last."""
    assert Notes(room).run(str.upper, "abcdef")[1:] == list(made)


def test_it_begins_no_more_once_it_has_taken_long() -> None:
    """One that was expected to be brief and is not is the last of its job."""
    assert Notes(10).run(str.upper, "abc", enough=-1)[1:] == ["A"]


def test_a_call_alone_is_not_noted() -> None:
    """There is nothing that others could want of it."""
    notes = Notes(0)
    assert notes.run(str.upper, "a")[1:] == ["A"]
    assert notes.kept == []


def test_one_that_has_no_form_in_json_is_refused() -> None:
    """As with the tasks of other doors."""
    with pytest.raises(ValueError, match="JSON"):
        Bundle(lambda _: float("nan"), ["a"]).run()


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ([("part", "j", "0", "")], Noted(True, [])),
        ([("part", "j", "1", "x"), ("part", "j", "0", "")], Noted(True, ["x"])),
        ([("part", "j", "0", ""), ("part", "i", "1", "x"), ("a",) * 10], Noted(True, [])),
        ([("part", "i", "0", "")], Noted(False, [])),
        ([("part", "j", "1", "x")], None),
        ([("part", "j", "0", ""), ("part", "j", "2", "y")], None),
        ([], Noted(False, [])),
    ],
)
def test_what_is_noted_in_part_is_nothing_to_go_by(told: Any, known: Noted | None) -> None:
    """A note that is missing leaves open which calls were made."""
    assert parts.noted(told, "j") == known


@pytest.mark.parametrize(("end", "again"), [(HELD, False), (AGAIN, True)])
def test_a_list_is_read_as_it_was_written(end: str, again: bool) -> None:
    """Answers in order, and what became of the call after them."""
    (_, _, *entries), _ = parts.commands("j", ['"a"', "null"], end)
    assert parts.read([str(entry).encode() for entry in entries]) == BundleProgress(
        ["a", None], again
    )
    assert parts.read([]) is None
