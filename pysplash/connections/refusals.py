"""What a server lacks that refuses: said in one line, with what to do."""

from __future__ import annotations

import re

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterError,
    NoPermissionError,
    ResponseError,
    TryAgainError,
)

_CLUSTER = (AskError, ClusterCrossSlotError, ClusterError, TryAgainError)
_CLUSTER_WORDS = re.compile(r"\b(?:MOVED|ASK|CROSSSLOT|CLUSTERDOWN|TRYAGAIN) |in a cluster node")
_UNKNOWN = re.compile(r"unknown command ['`]?(\w+)", re.IGNORECASE)
_FORBIDDEN = re.compile(r"permissions to run the '(\w+)")
_SCRIPTS = ("EVAL", "EVALSHA")


def refused_command(error: Exception) -> str:
    """Return the command, in capitals, that a server does not know or allow; "" if it is another.

    A subcommand is named by its command.
    """
    found = _UNKNOWN.search(str(error)) or _FORBIDDEN.search(str(error))
    return found[1].upper() if found else ""


def lacks_scripts(error: Exception) -> bool:
    """Return whether a server refused a script because it runs none."""
    return isinstance(error, ResponseError) and refused_command(error) in _SCRIPTS


def lacks_hello(error: Exception) -> bool:
    """Return whether a server refused RESP3, the newer form of Redis's protocol.

    On a Unix socket redis-py says so by an error of another class.
    """
    return refused_command(error) == "HELLO" or "NOPROTO" in str(error)


def is_cluster(error: Exception) -> bool:
    """Return whether a server refused as one of a cluster does."""
    return isinstance(error, _CLUSTER) or bool(_CLUSTER_WORDS.search(str(error)))


def is_unfit(error: Exception | None) -> bool:
    """Return whether a server refused what PySplash cannot do without."""
    return error is not None and (is_cluster(error) or lacks_scripts(error) or lacks_hello(error))


def refusal(place: str, error: Exception) -> str:
    """Say that the server at *place* refuses by *error*, and what to do where that is known."""
    if is_cluster(error):
        return (
            f"Redis at {place} is a cluster, and RQ's keys must be on one server: "
            "use a server that is not in cluster mode"
        )
    if lacks_scripts(error):
        why = "this user may not run" if isinstance(error, NoPermissionError) else "it does not run"
        return (
            f"Redis at {place} has no scripts ({why} EVAL and EVALSHA), which PySplash needs: "
            "use a server, or a user, that has them"
        )
    if lacks_hello(error):
        return (
            f"Redis at {place} does not know HELLO: it is older than version 6, or a proxy; "
            "add ?protocol=2 to its URL"
        )
    if isinstance(error, NoPermissionError) and "key" in str(error).lower():
        return (
            f"Redis at {place} refuses keys that PySplash uses ({error}): "
            "allow the user rq:* and pysplash:*"
        )
    return f"Redis at {place} refuses: {error}"
