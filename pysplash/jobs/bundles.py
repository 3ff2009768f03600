"""Bundles: the progress of a job that carries several calls, read if it fails or is slow.

Such a job answers its calls in order. What it has answered it notes where its pool finds it should
it die; what is known at an end that comes early, or late, stands in a list in Redis: the answers,
and then what became of the call in hand. Those after that one have not begun and never will here.

A job has one of two forms. With :data:`BYTES` among its named arguments it takes bytes, and its
result is a list: the seconds it took, then for each answer the bytes of a handler, or JSON text.
Without, it takes base64 texts and its result is such a list as one JSON text. Callers use the first
only where every pool of the queue says that it knows it; one that does not fails on the argument.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

#: where a worker finds such jobs
PLACE = "pysplash.bundled_tasks."
#: the list of a job, and seconds it is kept
KEY, TTL = "pysplash:parts:{}", 300
#: the named argument of a job that takes bytes
BYTES: dict[str, Any] = {"as_bytes": True}
#: what an entry begins with that is an answer, in JSON or as bytes
ANSWER, RAW = "=", b":"
#: the entries for a call in hand that goes on or came to nothing, and for one that is to be made
#: again
HELD, AGAIN = "-", "+"
_NOTE = "part"
Words = tuple[str | bytes, ...]
#: keeps a note, or says that there is no room
Keep = Callable[[Words], bool]


class BundleProgress(NamedTuple):
    """The progress of a job, as its list in Redis has it."""

    #: in the order of the calls
    answers: list[Any]
    #: whether the call after them is to be made again
    again: bool


def opened(result: Any) -> Any:
    """Return the result of a job that takes bytes, with what is no bytes read from its JSON."""
    if not isinstance(result, list):
        return result
    return [json.loads(each) if isinstance(each, str) else each for each in result]


def note(job_id: str, count: int, answer: str | bytes = "") -> Words:
    """Return the note that a job begins (*count* 0), or what its *count*th call answered.

    That is JSON text, or bytes, which are told from it by what they begin with in a note.
    """
    return (_NOTE, job_id, str(count), answer if isinstance(answer, str) else RAW + answer)


class Noted(NamedTuple):
    """The progress of a job, as it noted it in its worker's memory."""

    #: whether any of its calls was made, or was about to be
    begun: bool
    #: as JSON or bytes, in the order of the calls
    answers: list[str | bytes]


def noted(notes: Iterable[Sequence[str]], job_id: str) -> Noted | None:
    """Return the progress a job has noted; None if notes are missing."""
    mine = {words[2]: words[3] for words in notes if len(words) == 4 and words[1] == job_id}
    numbers = [str(number) for number in range(len(mine))]
    if any(number not in mine for number in numbers):
        return None
    return Noted(bool(mine), [_answer(mine[number]) for number in numbers[1:]])


def _answer(word: str) -> str | bytes:
    """Return the answer in a note as it was read; no JSON begins as bytes do there."""
    raw = word.encode(errors="surrogateescape")
    return raw[1:] if raw.startswith(RAW) else word


def commands(
    job_id: str, answers: Iterable[str | bytes], end: str
) -> tuple[Words, tuple[str | int, ...]]:
    """Return the commands that write a job's list; *answers* are JSON or bytes."""
    key = KEY.format(job_id)
    entries = (ANSWER + each if isinstance(each, str) else RAW + each for each in answers)
    return ("RPUSH", key, *entries, end), ("EXPIRE", key, TTL)


def read(entries: Sequence[bytes]) -> BundleProgress | None:
    """Return the progress in a job's list; None if there is no list."""
    if not entries:
        return None
    answer = (RAW, ANSWER.encode())
    answers = [
        each[1:] if each.startswith(RAW) else json.loads(each[1:])
        for each in entries
        if each.startswith(answer)
    ]
    return BundleProgress(answers, entries[-1] == AGAIN.encode())
