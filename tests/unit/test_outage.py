"""Outages: which errors count as one, and how a call is tried again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from pysplash.connections.outage import FIRST_PAUSE, LONGEST_PAUSE, failure, patiently
from pysplash.log import Seldom


def failing(errors: list[Exception]) -> Callable[[], str]:
    """Return a call that raises *errors*, one a time, and then returns."""

    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    return call


def test_a_call_is_tried_until_redis_is_back() -> None:
    """Pauses double up to the longest; every error is handed to who pauses."""
    errors: list[Exception] = [RedisConnectionError(), ReadOnlyError(), *[OutOfMemoryError()] * 5]
    pauses: list[tuple[type[Exception], float]] = []

    result = patiently(failing(errors), lambda error, s: pauses.append((type(error), s)))

    assert result == "done"
    assert [kind for kind, _ in pauses[:3]] == [
        RedisConnectionError,
        ReadOnlyError,
        OutOfMemoryError,
    ]
    seconds = [pause for _, pause in pauses]
    assert seconds == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert (seconds[0], seconds[-1]) == (FIRST_PAUSE, LONGEST_PAUSE)


def test_what_is_no_outage_is_raised() -> None:
    """An error that would come again is not tried again."""
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        patiently(failing([failure("WRONGTYPE Operation against a key")]))


def test_who_pauses_may_give_up() -> None:
    """What is raised between two tries ends them."""

    def give_up(error: Exception, seconds: float) -> None:
        raise KeyError(seconds)

    with pytest.raises(KeyError):
        patiently(failing([RedisConnectionError()]), give_up)


def test_what_goes_on_is_logged_seldom() -> None:
    """At once, and then once in so many seconds."""
    seldom = Seldom(10.0)

    assert [now for now in range(0, 31, 5) if seldom.due(float(now))] == [0, 10, 20, 30]
