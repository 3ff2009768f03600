"""Bundles: the progress of a job that carries several calls, read if it fails or is slow.

Such a job answers its calls in order. What it has answered it notes where its pool finds it should
it die; what is known at an end that comes early, or late, stands in a list in Redis: the answers,
and then what became of the call in hand. Those after that one have not begun and never will here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

#: where a worker finds such jobs
PLACE = "pysplash.bundled_tasks."
#: the list of a job, and seconds it is kept
KEY, TTL = "pysplash:parts:{}", 300
#: what an entry begins with that is an answer; the entries for a call in hand that goes on or came
#: to nothing, and for one that is to be made again
ANSWER, HELD, AGAIN = "=", "-", "+"
_NOTE = "part"
Words = tuple[str, ...]
#: keeps a note, or says that there is no room
Keep = Callable[[Words], bool]


class BundleProgress(NamedTuple):
    """The progress of a job, as its list in Redis has it."""

    #: in the order of the calls
    answers: list[Any]
    #: whether the call after them is to be made again
    again: bool


def note(job_id: str, count: int, answer: str = "") -> Words:
    """Return the note that a job begins (*count* 0), or what its *count*th call answered."""
    return (_NOTE, job_id, str(count), answer)


class Noted(NamedTuple):
    """The progress of a job, as it noted it in its worker's memory."""

    #: whether any of its calls was made, or was about to be
    begun: bool
    #: as JSON, in the order of the calls
    answers: list[str]


def noted(notes: Iterable[Sequence[str]], job_id: str) -> Noted | None:
    """Return the progress a job has noted; None if notes are missing."""
    mine = {words[2]: words[3] for words in notes if len(words) == 4 and words[1] == job_id}
    numbers = [str(number) for number in range(len(mine))]
    if any(number not in mine for number in numbers):
        return None
    return Noted(bool(mine), [mine[number] for number in numbers[1:]])


def commands(job_id: str, answers: Iterable[str], end: str) -> tuple[Words, tuple[str | int, ...]]:
    """Return the commands that write a job's list; *answers* are JSON."""
    key = KEY.format(job_id)
    return ("RPUSH", key, *(ANSWER + answer for answer in answers), end), ("EXPIRE", key, TTL)


def read(entries: Sequence[bytes]) -> BundleProgress | None:
    """Return the progress in a job's list; None if there is no list."""
    if not entries:
        return None
    texts = [entry.decode() for entry in entries]
    answers = [json.loads(text[1:]) for text in texts if text.startswith(ANSWER)]
    return BundleProgress(answers, texts[-1] == AGAIN)
