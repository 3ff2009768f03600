"""A worker's desk at a real server: listening while others take what comes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from pysplash.claims import Claims
from pysplash.lane import Lane
from pysplash.turn import Answer
from pysplash.watch import Watch

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


def test_a_silent_server_is_not_waited_for(redis: Redis) -> None:
    """A server that does not answer in time counts as away, and the lane opens anew."""
    lane = Lane(redis, answer=0.3)
    lane.connect()
    with pytest.raises(RedisTimeoutError):
        lane.call("BLPOP", "nothing", 30)
    assert not lane.open
    lane.connect()
    assert lane.call("PING") == b"PONG"
    lane.close()


class Counted(Claims):
    """Claims that count how often they were listened to."""

    listened = 0

    def listen(self, seconds: float, also: int) -> bool:
        """Count, then listen."""
        self.listened += 1
        return super().listen(seconds, also)


def test_a_signal_is_heard_once(redis: Redis) -> None:
    """A worker that has nothing to leave for listens on, instead of asking ever again."""
    claims = Counted(redis, "w", idle_ttl=480, leaving=lambda: False, away=lambda _, pause: pause)
    claims.take(None, QUEUES)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    watch = Watch(claims, lambda: False)
    watch.open()
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        watch.wait(time.monotonic() + 0.3, QUEUES, None)
    finally:
        watch.close()
        signal.signal(signal.SIGUSR1, before)
        claims.close()
    assert claims.listened <= 3
