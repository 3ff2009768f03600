"""A worker's claims at a real server: listening while others take what comes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from rq import Queue
from rq.job import Job

from benchmarks.network import Relay
from pysplash.connections.direct import DirectConnection
from pysplash.embedded import EmbeddedServer
from pysplash.jobs.store_and_claim import Answer, Finish, Turn
from pysplash.jobs.store_and_claim_batch import BatchRequest
from pysplash.worker.batch_claims import BatchingClaims
from pysplash.worker.claims import Claims
from pysplash.worker.idling import Idling
from pysplash.worker.signals import WakeUp
from tests.integration.rq_life import calls
from tests.waiting import wait_until

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
        assert claims.notified
        redis.lpop(f"rq:queue:{queue}")
        assert not claims.look(QUEUES)
        assert not claims.notified


def test_a_look_sees_what_is_left(redis: Redis, claims: Claims) -> None:
    """It says whether a turn is worth it, and takes nothing."""
    redis.rpush("rq:queue:low", "job")
    assert claims.look(QUEUES)
    assert redis.llen("rq:queue:low") == 1


def assert_listening(redis: Redis, claims: Claims, never: int, queue: str) -> None:
    """Fail unless *claims* have heard of nothing yet, and hear of the next job on *queue*."""
    assert claims.watching
    assert not claims.notified
    redis.rpush(f"rq:queue:{queue}", "sign")
    claims.listen(10, never)
    assert claims.notified
    redis.lpop(f"rq:queue:{queue}")


@pytest.mark.parametrize("queue", QUEUES)
def test_a_lone_job_takes_two_turns(redis: Redis, claims: Claims, never: int, queue: str) -> None:
    """The one that stores its outcome listens on, and hears of the next job, on any queue."""
    redis.config_resetstat()
    for _ in range(3):
        done = claimed(redis, claims, queue)
        assert claims.take(done, QUEUES).answer is Answer.EMPTY
        assert_listening(redis, claims, never, queue)
    assert calls(redis, "evalsha") == 6


@pytest.mark.parametrize("queue", QUEUES)
def test_a_batch_that_is_empty_listens(redis: Redis, never: int, queue: str) -> None:
    """A worker that asked for a batch and runs nothing hears of the next job, on any queue."""
    claims = BatchingClaims(redis, "w", idle_ttl=480, leaving=lambda: False, away=_fail)
    claims.take(None, QUEUES)
    for _ in range(3):
        claims.send(BatchRequest(wanted=4, share=1, queues=QUEUES))
        reply = claims.gather()
        assert reply is not None
        assert not reply.jobs
        assert_listening(redis, claims, never, queue)
    claims.close()


def _fail(error: Exception, pause: float) -> float:
    raise error


def test_a_job_that_follows_a_lone_one_is_claimed(redis: Redis, claims: Claims) -> None:
    """With the turn that stores; after it, the worker has to look before it may rest."""
    done = claimed(redis, claims, "high")
    job = Queue("low", connection=redis).enqueue("it.square", 1)
    turn = claims.take(done, QUEUES)
    assert (turn.answer, turn.job_id.decode()) == (Answer.JOB, job.id)
    assert not claims.watching
    assert claims.take(finish(job, claims), QUEUES).answer is Answer.EMPTY
    assert not claims.watching


def claimed(redis: Redis, claims: Claims, queue: str) -> Finish:
    """Have a new job of *queue* claimed; return its outcome."""
    job = Queue(queue, connection=redis).enqueue("it.square", 1)
    assert claims.take(None, QUEUES).job_id.decode() == job.id
    return finish(job, claims)


def finish(job: Job, claims: Claims) -> Finish:
    """Return an outcome of *job*."""
    moments = ("2026-01-01T00:00:00.000000Z",) * 2
    return Finish(
        job.id, claims.execution, job.origin, 500, *moments, b"gAVLAS4=", "1.0", "2.0", ""
    )


def test_a_silent_server_is_not_waited_for(redis: Redis) -> None:
    """A server that does not answer in time counts as away, and the connection opens anew."""
    connection = DirectConnection(redis, answer=0.3)
    connection.connect()
    with pytest.raises(RedisTimeoutError):
        connection.call("BLPOP", "nothing", 30)
    assert not connection.open
    connection.connect()
    assert connection.call("PING") == b"PONG"
    connection.close()


class Cut(Claims):
    """Claims whose connection is cut as the first reply is on its way."""

    cut = False

    def _end_turn(self, *arguments: Any) -> Turn:
        turn = super()._end_turn(*arguments)
        if not self.cut:
            self.cut = True
            self._connection.close()
            raise RedisConnectionError("the reply was lost")
        return turn


def test_a_claim_whose_reply_was_lost_is_found_again(redis: Redis) -> None:
    """It is neither made twice nor forgotten."""
    jobs = [Queue("high", connection=redis).enqueue("it.square", number) for number in range(2)]
    claims = Cut(redis, "w", idle_ttl=480, leaving=lambda: False, away=lambda _, pause: pause)
    turn = claims.take(None, QUEUES)
    claims.close()

    assert (turn.answer, turn.job_id.decode()) == (Answer.JOB, jobs[0].id)
    assert redis.lrange("rq:queue:high", 0, -1) == [jobs[1].id.encode()]
    assert redis.exists(f"rq:execution:{jobs[0].id}:{claims.execution}")


@pytest.mark.parametrize("sent", [True, False])
def test_a_claim_begun_ahead_is_made_once(redis: Redis, claims: Claims, sent: bool) -> None:
    """Also if the connection is lost before the server has it, or before its answer is read."""
    jobs = [Queue("high", connection=redis).enqueue("it.square", number) for number in range(2)]
    if not sent:
        claims._connection.close()
    claims.ask(None, QUEUES)
    if sent:
        wait_until(lambda: redis.llen("rq:queue:high") == 1, 30)
        claims._connection.close()
    turn = claims.take(None, QUEUES)

    assert (turn.answer, turn.job_id.decode()) == (Answer.JOB, jobs[0].id)
    assert redis.lrange("rq:queue:high", 0, -1) == [jobs[1].id.encode()]
    assert redis.exists(f"rq:execution:{jobs[0].id}:{claims.execution}")
    assert not claims.asked


@pytest.mark.parametrize("lost", [True, False])
def test_an_outcome_sent_ahead_is_stored_once(redis: Redis, claims: Claims, lost: bool) -> None:
    """And what was claimed with it is not forgotten, though the answer was lost."""
    done = claimed(redis, claims, "high")
    job = Queue("low", connection=redis).enqueue("it.square", 1)
    claims.prepare()
    claims.ask(done, QUEUES, 0.5)
    wait_until(lambda: redis.llen("rq:queue:low") == 0, 30)
    if lost:
        claims._connection.close()
    turn = claims.take(done, QUEUES, 0.5)

    assert (turn.answer, turn.job_id.decode()) == (Answer.JOB, job.id)
    assert claims.execution != done.execution_id
    assert redis.xlen(f"rq:results:{done.job_id}") == 1
    counters = redis.hmget("rq:worker:w", "successful_job_count", "total_working_time")
    assert counters == [b"1", b"0.5"]


def test_who_leaves_knows_what_it_has_claimed(server: EmbeddedServer, redis: Redis) -> None:
    """What was claimed by a turn whose reply was lost is run; or it says that there may be such.

    Then the worker is not struck by itself, and its pool settles what it held.
    """
    with Relay(server.url.removeprefix("unix://")) as relay:
        client = Redis.from_url(relay.url, retry=Retry(NoBackoff(), 0))
        claims = Claims(client, "w", idle_ttl=480, leaving=lambda: True, away=_fail)
        claims.take(None, QUEUES)
        job = Queue("high", connection=redis).enqueue("it.square", 1)
        relay.await_words((b"EVALSHA",), "reply lost")
        turn = claims.take(None, QUEUES)
        assert (turn.answer, turn.job_id.decode()) == (Answer.JOB, job.id)
        assert redis.exists(f"rq:execution:{job.id}:{claims.execution}")
    assert claims.take(None, QUEUES).answer is Answer.EMPTY
    with pytest.raises(RedisConnectionError, match="a job may have been claimed"):
        claims.close()


class Counted(Claims):
    """Claims that count how often they were listened to."""

    listened = 0

    def listen(self, seconds: float, *others: int) -> list[int]:
        """Count, then listen."""
        self.listened += 1
        return super().listen(seconds, *others)


def test_a_signal_is_heard_once(redis: Redis) -> None:
    """A worker that has nothing to leave for listens on, instead of asking ever again."""
    claims = Counted(redis, "w", idle_ttl=480, leaving=lambda: False, away=lambda _, pause: pause)
    claims.take(None, QUEUES)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    wake_up = WakeUp()
    idling = Idling(claims, lambda: False, wake_up)
    wake_up.open()
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        idling.wait(time.monotonic() + 0.3, QUEUES, None, time.monotonic())
    finally:
        wake_up.close()
        signal.signal(signal.SIGUSR1, before)
        claims.close()
    assert claims.listened <= 3
