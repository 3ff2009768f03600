"""Outages: what Redis says, or does not say, while it cannot serve for now.

It may be away, or be there and refuse what writes: its memory is full, it cannot save, or it was
the primary a moment ago and is a replica now. All of that passes, and who waits loses nothing.
"""

from __future__ import annotations

import re

from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: seconds between two lines that tell of the same one
COMPLAIN = 10.0


class WritesRefused(ResponseError):
    """Redis takes nothing in for now: it cannot save, or has too few replicas."""


#: errors after which the same will do later
AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    MasterDownError,
    WritesRefused,
)
#: the words by which redis-py does not know them
REFUSALS: dict[str, type[RedisError]] = {"MISCONF": WritesRefused, "NOREPLICAS": WritesRefused}
_KINDS: dict[str, type[RedisError]] = REFUSALS | {
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
}
#: the first word; before version 7 the one after a dash, where a script was refused
_WORD = re.compile(rf"(?:^|[: ]-)({'|'.join(_KINDS)}) ")


def failure(text: str) -> RedisError:
    """Return what to raise where Redis answers with the error *text*."""
    found = _WORD.search(text)
    return _KINDS[found[1]](text) if found else ResponseError(text)


def said(error: Exception) -> str:
    """Return what redis-py's *error* says, without the objects that it shows there."""
    return str(error).partition(" : <")[0]
