"""Results that the server refuses for their size, which no patience helps against.

A server that gets a longer value than it takes closes the connection, or says nothing but that its
memory is full. So what it refuses again and again, while it takes small writes, is given up.
"""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from pysplash.connections.outage import said

#: bytes from which a value may be refused: the least to which either limit can be set
LARGE = 2**20
#: settings that limit one value
LIMITS = ("proto-max-bulk-len", "client-query-buffer-limit")
#: tries after which a large result is given up where the server does not tell its limits
TRIES = 5


class ResultRefused(Exception):
    """A job returned more than this server stores."""


def check_size(client: Redis, size: int, tries: int, why: Exception) -> None:
    """Raise :class:`ResultRefused` if a result of *size* bytes is what the server refuses.

    It was tried so many times, and *why* it was not stored the last time; small writes are taken.
    """
    if size < LARGE:
        return
    names = (*LIMITS, "maxmemory") if isinstance(why, OutOfMemoryError) else LIMITS
    for name in names:
        limit = _setting(client, name)
        if limit is not None and 0 < limit <= size:
            raise ResultRefused(
                f"the result has {size} bytes as it is stored, and Redis takes {limit} ({name}): "
                "store it elsewhere and return where"
            )
    if tries >= TRIES:
        raise ResultRefused(
            f"the result has {size} bytes as it is stored, and Redis, which takes small ones, did "
            f"not take it in {tries} tries ({said(why)}): store it elsewhere and return where"
        )


def _setting(client: Redis, name: str) -> int | None:
    """Return a setting of the server; None where it is not told."""
    try:
        found: Any = client.config_get(name)
        return int(found[name])
    except (RedisError, KeyError, TypeError, ValueError):
        return None
