"""Queues that run their jobs at once (is_async=False), and connections of kindred libraries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from pysplash import AsyncClient, Client, JobFailed, Stage, map_jobs, wait_jobs
from tests.integration.door_pools import HandPool
from tests.integration.rq_life import boom, workers

BOUND = 20.0


def connect_redis(url: str) -> Any:
    """Return a connection of redis-py."""
    return Redis.from_url(url)


def connect_valkey(url: str) -> Any:
    """Return a connection of valkey-py."""
    return pytest.importorskip("valkey").Valkey.from_url(url)


def connect_fake(url: str) -> Any:
    """Return a connection of fakeredis, which has no server and runs no scripts."""
    return pytest.importorskip("fakeredis").FakeStrictRedis()


@pytest.fixture(params=[connect_redis, connect_valkey, connect_fake])
def connection(request: pytest.FixtureRequest, url: str) -> Any:
    """A connection of each kind."""
    connect: Callable[[str], Any] = request.param
    return connect(url)


@pytest.fixture
def at_once(connection: Any) -> Queue:
    """A queue that runs its jobs at once."""
    return Queue(connection=connection, is_async=False)


def pair(number: int) -> list[Any]:
    """Be a job with jobs of its own."""
    return map_jobs(abs, [-number, -number - 1], max_wait=BOUND)


def test_map_jobs(at_once: Queue) -> None:
    """The jobs are run here, and their results come back; so are the jobs of jobs."""
    assert map_jobs(abs, [-1, -2, -3], queue=at_once, max_wait=BOUND) == [1, 2, 3]
    assert map_jobs(pair, [1, 2], queue=at_once, max_wait=2 * BOUND) == [[1, 2], [2, 3]]
    assert at_once.count == 0


def test_a_failure(at_once: Queue) -> None:
    """A job that fails is one that failed, not one that is waited for."""
    with pytest.raises(JobFailed, match="TypeError"):
        map_jobs(abs, ["a text"], queue=at_once, max_wait=BOUND)
    found = map_jobs(abs, ["a text", -1], queue=at_once, max_wait=BOUND, on_failure="none")
    assert found == [None, 1]


def test_jobs_of_enqueue_many(at_once: Queue) -> None:
    """RQ says of these that they are queued, when it has run them: their results count."""
    jobs = at_once.enqueue_many([Queue.prepare_data(abs, (-3,)), Queue.prepare_data(boom)])
    found = wait_jobs(jobs, BOUND, True, on_failure="return")
    assert isinstance(found, list)
    assert found[0] == 3
    assert isinstance(found[1], JobFailed)
    assert found[1].status == "failed"


def test_one_that_was_enqueued_again(redis: Redis) -> None:
    """The result of a run before does not count for a job that is queued again."""
    job = Queue(connection=redis, is_async=False).enqueue(abs, -3)
    Queue(connection=redis).enqueue_job(job)
    assert wait_jobs([job], 0.1) is False


def test_jobs_of_a_worker(connection: Any) -> None:
    """A wait for a worker's jobs is woken, whichever library connects."""
    queue = Queue(connection=connection)
    job = queue.enqueue(abs, -3)
    assert wait_jobs([job], 0.05) is False
    with workers(queue, 1):
        assert wait_jobs([job], BOUND, True) == [3]


def test_clients_over_valkey_py(url: str, redis: Redis, queue: Queue) -> None:
    """Clients and stages take a connection of valkey-py."""
    valkey = connect_valkey(url)
    HandPool(redis).stay()

    async def call() -> Any:
        async with AsyncClient(connection=valkey, timeout=BOUND) as client:
            return await client.it.square(8)

    with workers(queue, 1), Client(connection=valkey, timeout=BOUND) as client:
        assert client.it.square(7) == 49
        assert asyncio.run(call()) == 64
    redis.script_flush()
    assert len(Stage("first", connection=valkey).push(b"a", b"b")) == 2
