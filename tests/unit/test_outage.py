"""What the words of a server that does not serve for now are taken for."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from pysplash.connections.outage import AWAY, WritesRefused, failure, said

SCRIPT = "ERR Error running script (call to f_0a1b): @user_script:3: @user_script: 3: "


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("READONLY You can't write against a read only replica.", ReadOnlyError),
        ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError),
        ("MISCONF Redis is configured to save RDB snapshots, but cannot.", WritesRefused),
        ("NOREPLICAS Not enough good replicas to write.", WritesRefused),
        ("LOADING Redis is loading the dataset in memory", BusyLoadingError),
        ("MASTERDOWN Link with MASTER is down.", MasterDownError),
        (f"{SCRIPT}-READONLY You can't write against a read only replica.", ReadOnlyError),
        (f"{SCRIPT}-OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError),
    ],
)
def test_a_refusal_that_passes_is_an_outage(text: str, kind: type[Exception]) -> None:
    """From a command, and from a script on servers before version 7."""
    error = failure(text)
    assert type(error) is kind
    assert isinstance(error, AWAY)
    assert str(error) == text


@pytest.mark.parametrize(
    "text",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR unknown command 'OOM'",
        "NOSCRIPT No matching script.",
    ],
)
def test_any_other_error_is_an_error(text: str) -> None:
    """It would not pass."""
    error = failure(text)
    assert type(error) is ResponseError
    assert not isinstance(error, AWAY)


def test_what_is_said_holds_no_object() -> None:
    """Redis-py shows every sentinel it asked with all its options, which nobody can read."""
    asked = "No master found for 'main' : <redis.client.Redis(<ConnectionPool(port=1)>)> - refused"
    assert said(ConnectionError(asked)) == "No master found for 'main'"
    assert said(ConnectionError("Connection refused")) == "Connection refused"
