"""A bundle of calls: one after the other in one job, and what is noted meanwhile."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from typing import Any

import pytest
from rq.job import Job

from pysplash.application.bundle import Bundle
from pysplash.application.handlers import Handler, decode
from pysplash.client.requests import NOWHERE
from pysplash.client.safe_pickle import PrimitiveSerializer
from pysplash.errors import NotBytes
from pysplash.jobs import bundles as parts
from pysplash.jobs.bundles import AGAIN, HELD, BundleProgress, Noted
from pysplash.worker.journal import SIZE, Journal

#: bytes that are text in no encoding that is used
RAW = bytes(range(256))


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
        answered = json.loads(str(Bundle(function, list(texts), job, self.keep, enough).run()))
        assert isinstance(answered, list)
        return answered

    def run_bytes(self, function: Any, payloads: Sequence[bytes]) -> list[Any]:
        """Run a bundle of bytes that notes here; return what a gateway reads of its result."""
        job = Job("j", connection=NOWHERE)
        result = Bundle(function, payloads, job, self.keep, 1000, as_bytes=True).run()
        return list(parts.opened(PrimitiveSerializer.loads(PrimitiveSerializer.dumps(result))))

    def noted(self) -> Noted | None:
        """Return what a pool finds noted."""
        memory = mmap.mmap(-1, SIZE)
        journal = Journal(memory, 0)
        assert all(journal.note(words) for words in self.kept)
        found = parts.noted(journal.read(), "j")
        memory.close()
        return found


def test_answers_come_in_order() -> None:
    """Each call's answer is noted before the next begins."""
    notes = Notes(10)
    seconds, *answers = notes.run(lambda text: text * 2, "ab")
    assert 0 <= seconds < 60
    assert answers == ["aa", "bb"]
    assert notes.noted() == Noted(True, ['"aa"', '"bb"'])


def test_bytes_stay_bytes() -> None:
    """Of a handler, in its result, in what its pool finds and in the list that is made of it."""
    notes = Notes(10)
    seconds, *answers = notes.run_bytes(Handler(lambda data: data * 2), [RAW, b"", b"="])
    assert 0 <= seconds < 60
    assert answers == [RAW * 2, b"", b"=="]
    noted = notes.noted()
    assert noted == Noted(True, [RAW * 2, b"", b"=="])
    (_, _, *entries), _ = parts.commands("j", noted.answers, HELD)
    told = [each if isinstance(each, bytes) else str(each).encode() for each in entries]
    assert parts.read(told) == BundleProgress(answers, False)


def test_a_task_that_is_no_handler_has_text() -> None:
    """Base64, as in the other form; what it answers is kept as JSON, whatever it is."""
    notes = Notes(10)
    _, *answers = notes.run_bytes(lambda text: decode(text).decode() or None, [b"abc", b""])
    assert answers == ["abc", None]
    assert notes.noted() == Noted(True, ['"abc"', "null"])
    with pytest.raises(TypeError, match="JSON"):
        Bundle(lambda _: b"bytes", [b"a"], as_bytes=True).run()


class Odd(bytes):
    """Bytes of a class that no gateway reads."""

    def __bytes__(self) -> bytes:
        """Return it as it is."""
        return self


@pytest.mark.parametrize("answer", [bytearray(RAW), Odd(RAW)])
def test_answers_are_of_no_class_of_their_own(answer: Any) -> None:
    """The gateway's reader would refuse it, and all that came with it."""
    assert Notes(10).run_bytes(Handler(lambda _: answer), [b"a"])[1:] == [RAW]


@pytest.mark.parametrize("answer", ["text", None, 5, memoryview(b"view")])
def test_what_is_no_bytes_is_refused(answer: Any) -> None:
    """As in the other form."""
    with pytest.raises(NotBytes, match="returns bytes"):
        Bundle(Handler(lambda _: answer), [b"a", b"b"], as_bytes=True).run()


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
