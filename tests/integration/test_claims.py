"""A worker's desk at a real server: listening while others take what comes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis import Redis

from pysplash.claims import Claims
from pysplash.turn import Answer

QUEUES = ["high", "low"]


@pytest.fixture
def claims(redis: Redis) -> Iterator[Claims]:
    """The claims of a worker that has found its queues empty."""

    def away(error: Exception, pause: float) -> float:
        raise error

    claims = Claims(redis, "w", idle_ttl=480, leaving=lambda: False, away=away)
    assert claims.take(None, QUEUES).answer is Answer.EMPTY
    yield claims
    claims.close()


@pytest.fixture
def never() -> Iterator[int]:
    """A descriptor on which nothing ever comes."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_look_goes_on_listening(redis: Redis, claims: Claims, never: int, queue: str) -> None:
    """A worker that comes too late hears of the next job all the same, on any queue."""
    for _ in range(3):
        redis.rpush(f"rq:queue:{queue}", "job")
        claims.listen(10, never)
        assert claims.rung
        redis.lpop(f"rq:queue:{queue}")
        assert not claims.look(QUEUES)
        assert not claims.rung


def test_a_look_sees_what_is_left(redis: Redis, claims: Claims) -> None:
    """It says whether a turn is worth it, and takes nothing."""
    redis.rpush("rq:queue:low", "job")
    assert claims.look(QUEUES)
    assert redis.llen("rq:queue:low") == 1
