"""Outages: errors that mean Redis cannot serve for now, and retrying until it can.

It may be away, or be there and refuse what writes: its memory is full, it cannot save, or it was
the primary a moment ago and is a replica now. All of that passes, and who waits loses nothing.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: seconds between two lines in the log about the same outage
COMPLAIN = 10.0
#: seconds between two tries: at first, and at most; each pause is twice the one before
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

T = TypeVar("T")


class WritesRefused(ResponseError):
    """Redis refuses writes for now: it cannot save, or has too few replicas."""


#: errors after which the same will do later
AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    MasterDownError,
    WritesRefused,
)
#: errors by which a server cannot be reached; one that answers with an error is not among them
UNREACHABLE = (RedisConnectionError, RedisTimeoutError, OSError)
#: the words by which redis-py does not know them
REFUSALS: dict[str, type[RedisError]] = {"MISCONF": WritesRefused, "NOREPLICAS": WritesRefused}
_KINDS: dict[str, type[RedisError]] = REFUSALS | {
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
}
#: the first word; before version 7 the one after a dash, where a script was refused
_WORD = re.compile(rf"(?:^|[: ]-)({'|'.join(_KINDS)}) ")


def failure(text: str) -> RedisError:
    """Return the exception for an error reply with this *text*."""
    found = _WORD.search(text)
    return _KINDS[found[1]](text) if found else ResponseError(text)


def said(error: Exception) -> str:
    """Return the text of redis-py's *error* without the object representations in it."""
    return str(error).partition(" : <")[0]


def pause(error: Exception, seconds: float) -> None:
    """Sleep about *seconds*, varied so that many clients do not all retry at once."""
    time.sleep(seconds * random.uniform(0.75, 1.25))


def patiently(call: Callable[[], T], between: Callable[[Exception, float], object] = pause) -> T:
    """Return what *call* returns, calling it again and again while Redis is away.

    *between* is called with the error and the seconds to pause before each further try. It sleeps,
    and may log, or raise to give up. Errors that are no outage (not :data:`AWAY`) are raised.
    """
    seconds = FIRST_PAUSE
    while True:
        try:
            return call()
        except AWAY as error:
            between(error, seconds)
        seconds = min(LONGEST_PAUSE, 2 * seconds)
