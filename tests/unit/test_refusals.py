"""What a server's refusal means, in words; no server."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    ResponseError,
)

from pysplash.connections.refusals import is_unfit, refusal, refused_command


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (ResponseError("unknown command 'EVAL', with args beginning with: 'x'"), "EVAL"),
        (ResponseError("ERR unknown command `HELLO`, with args beginning with: `3`, "), "HELLO"),
        (NoPermissionError("this user has no permissions to run the 'evalsha' command"), "EVALSHA"),
        (
            ResponseError("NOPERM User limited has no permissions to run the 'script|load'"),
            "SCRIPT",
        ),
        (ResponseError("WRONGTYPE Operation against a key"), ""),
    ],
)
def test_which_command_is_refused(error: Exception, command: str) -> None:
    """It is found in the words of servers old and new."""
    assert refused_command(error) == command


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MovedError("12182 127.0.0.1:7000"), "is a cluster"),
        (ClusterDownError("Hash slot not served"), "is a cluster"),
        (ResponseError("ERR Script attempted to access a non local key in a cluster node"), "is a"),
        (ResponseError("CROSSSLOT Keys in request don't hash to the same slot"), "is a cluster"),
        (ResponseError("unknown command 'EVALSHA'"), "it does not run EVAL and EVALSHA"),
        (NoPermissionError("no permissions to run the 'eval' command"), "this user may not run"),
        (ConnectionError("unknown command 'HELLO', with args"), "add ?protocol=2 to its URL"),
        (ResponseError("NOPROTO unsupported protocol version"), "add ?protocol=2 to its URL"),
    ],
)
def test_what_is_missing(error: Exception, words: str) -> None:
    """What PySplash cannot do without is named, with what to do."""
    assert is_unfit(error)
    said = refusal("here:6379/0", error)
    assert said.startswith("Redis at here:6379/0 ")
    assert words in said


def test_keys_that_are_refused_are_named() -> None:
    """An access list may know RQ's keys alone."""
    error = NoPermissionError("No permissions to access a key")
    assert "allow the user rq:* and pysplash:*" in refusal("here", error)


def test_other_refusals_are_as_the_server_says() -> None:
    """What is not known is passed on."""
    error = ResponseError("WRONGTYPE Operation against a key")
    assert not is_unfit(error)
    assert refusal("here", error) == f"Redis at here refuses: {error}"
