"""What is said of a server that cannot be used."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from pysplash.connections.refusals import refusal

UNKNOWN = "unknown command 'EVAL', with args beginning with: 'return 1' '0' "


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClusterDownError("Hash slot not served"), "is a cluster"),
        (ClusterCrossSlotError("Keys in request don't hash to the same slot"), "is a cluster"),
        (MovedError("3999 127.0.0.1:6381"), "is a cluster"),
        (ResponseError(UNKNOWN), "does not run scripts (unknown command 'EVAL')"),
        (
            NoPermissionError("this user has no permissions to run the 'eval' command"),
            "does not run scripts",
        ),
        (
            NoPermissionError("No permissions to access a key"),
            "refuses keys that PySplash uses",
        ),
        (ResponseError("unknown command 'HELLO', with args beginning with: '3'"), "is too old"),
        (ResponseError("wrong number of arguments for 'lpop' command"), "is too old"),
        (ResponseError("syntax error"), "is too old"),
        (ResponseError("something new"), "lacks what PySplash needs (something new)"),
    ],
)
def test_a_refusal_is_put_into_words(error: RedisError, said: str) -> None:
    """What is missing, the server's own words, and what to do."""
    words = refusal(error)
    assert words.startswith(said)
    assert ", with args" not in words
    assert words.count(":") >= 1
