"""A server that forgets its scripts: they are sent anew at once, and nothing is done twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from redis import Redis
from rq import Queue

from pysplash import AsyncClient, Client, Stage
from tests.integration.door_pools import HandPool
from tests.integration.rq_life import aside

BOUND = 20.0
MANY = 3000


@pytest.fixture
def forgetful(redis: Redis) -> Redis:
    """A client of a server with a pool, which has just forgotten its scripts."""
    HandPool(redis).stay()
    redis.script_flush()
    return redis


def test_a_call_is_made_once(forgetful: Redis, url: str, queue: Queue) -> None:
    """Each way to call, and to cancel, sends its script anew where it is forgotten."""
    with Client(url) as client:
        steps: list[Callable[[], object]] = [
            lambda: client.submit("it.square", 1),
            lambda: client.submit_many("it.square", range(5)),
            lambda: client.submit("it.square", 1).cancel(),
        ]
        for step, left in zip(steps, (1, 6, 6), strict=True):
            forgetful.script_flush()
            step()
            assert queue.count == left
        call = client.submit("it.square", 1)
        forgetful.script_flush()
        assert call.cancel()
        assert queue.count == 6


def test_a_call_of_an_async_client_is_made_once(forgetful: Redis, url: str, queue: Queue) -> None:
    """The same over the one connection of an AsyncClient."""

    async def scene() -> None:
        async with AsyncClient(url) as client:
            await client.submit("it.square", 1)
            forgetful.script_flush()
            calls = await client.submit_many("it.square", range(50))
            assert queue.count == 51
            forgetful.script_flush()
            assert await calls[0].cancel()
            assert queue.count == 50

    asyncio.run(scene())


def test_scripts_forgotten_again_and_again(forgetful: Redis, url: str, queue: Queue) -> None:
    """However often and whenever scripts are forgotten, each call is enqueued once."""
    stop = threading.Event()

    def forget() -> None:
        with Redis.from_url(url) as other:
            while not stop.is_set():
                other.script_flush()

    async def scene() -> int:
        async with AsyncClient(url) as client:
            return len(await client.submit_many("it.square", range(MANY)))

    forgetting = aside(forget)
    try:
        with Client(url) as client:
            assert len(client.submit_many("it.square", range(MANY))) == MANY
        assert asyncio.run(scene()) == MANY
        stage = Stage("first", url=url)
        for number in range(200):
            stage.push(b"%d" % number)
    finally:
        stop.set()
        forgetting.result(BOUND)
    assert queue.count == 2 * MANY
    assert len(set(queue.job_ids)) == 2 * MANY
    assert forgetful.llen("rq:queue:first") == 200
