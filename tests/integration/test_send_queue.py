"""Calls on their way to a real server: together, each with what became of it, none too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis import Redis

from pysplash.client.async_transport import AnswerStream
from pysplash.client.requests import build
from pysplash.client.routing import Route
from pysplash.client.send_queue import SendQueue
from pysplash.client.terms import Terms
from pysplash.connections.clients import portable
from pysplash.connections.scripts import ScriptCall
from pysplash.errors import CallError

BOUND = 20.0
POOL = "pysplash:pool:by-hand"


def words(queue: str = "q", pool: str = POOL) -> ScriptCall:
    """Return what a call to *queue* sends."""
    return build(Route("t", queue, None, None, (pool,)), Terms(), (), {}).call


def play(redis: Redis, scene: Callable[[SendQueue], Awaitable[None]]) -> None:
    """Run *scene* with a send queue, while there is a pool."""
    redis.hset(POOL, "open", "1")

    async def run() -> None:
        answers = AnswerStream(portable(redis), "here")
        sending = SendQueue(answers)
        try:
            async with asyncio.timeout(BOUND):
                await scene(sending)
        finally:
            await sending.close()
            await answers.close()

    asyncio.run(run())


def test_each_is_told_what_became_of_its_own(redis: Redis) -> None:
    """Of calls that go together one is refused, one finds no pool, the others are enqueued."""
    redis.set("rq:queue:odd", "no list")

    async def scene(sending: SendQueue) -> None:
        some = [words(), words("odd"), words(pool="gone"), words()]
        told = await asyncio.gather(*map(sending.enqueue, some), return_exceptions=True)
        assert [told[0], told[2], told[3]] == [True, False, True]
        assert isinstance(told[1], CallError)
        assert "refuses" in str(told[1])
        assert redis.lrange("rq:queue:q", 0, -1) == [str(some[i][1][0]).encode() for i in (0, 3)]

    play(redis, scene)


def test_many_go_in_few_packets(redis: Redis) -> None:
    """A hundred calls made at once wait for the server twice, not a hundred times."""
    told: list[int] = []

    class Counting(SendQueue):
        async def _ask(self, batch: object, connection: object) -> None:
            told.append(len(batch))  # type: ignore[arg-type]
            await super()._ask(batch, connection)  # type: ignore[arg-type]

    async def scene(sending: SendQueue) -> None:
        counting = Counting(sending._answers)
        assert all(await asyncio.gather(*(counting.enqueue(words()) for _ in range(100))))
        await counting.close()

    play(redis, scene)
    assert sum(told) == 100
    assert len(told) <= 2
    assert redis.llen("rq:queue:q") == 100


def test_a_server_that_has_lost_the_script(redis: Redis) -> None:
    """Each call is enqueued once all the same, in its order."""

    async def scene(sending: SendQueue) -> None:
        for _ in range(3):
            redis.script_flush()
            assert all(await asyncio.gather(*(sending.enqueue(words()) for _ in range(5))))

    play(redis, scene)
    assert redis.llen("rq:queue:q") == 15


def test_what_is_given_up_before_it_is_sent_never_is(redis: Redis) -> None:
    """A caller that goes away while others are taken leaves nothing in the queue."""

    async def scene(sending: SendQueue) -> None:
        first = asyncio.create_task(sending.enqueue(words()))
        await asyncio.sleep(0)
        late = [asyncio.create_task(sending.enqueue(words())) for _ in range(5)]
        await asyncio.sleep(0)
        for each in late[1:]:
            each.cancel()
        assert await first
        assert await late[0]
        assert not sending._waiting

    play(redis, scene)
    assert redis.llen("rq:queue:q") == 2


def test_who_has_just_gone_away_is_passed_over(redis: Redis) -> None:
    """A caller that is gone and was not struck off yet keeps nobody from being served."""

    async def scene(sending: SendQueue) -> None:
        for _ in range(3):
            gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            gone.cancel()
            sending._waiting[gone] = words()
            assert await sending.enqueue(words())
            assert not sending._waiting

    play(redis, scene)
    assert redis.llen("rq:queue:q") == 3


def test_the_end_tells_those_who_wait(redis: Redis) -> None:
    """Whoever waits while the send queue is closed gets an error."""

    async def scene(sending: SendQueue) -> None:
        waiting = [asyncio.create_task(sending.enqueue(words())) for _ in range(3)]
        await asyncio.sleep(0)
        await sending.close()
        for each in waiting:
            with pytest.raises(CallError, match="the client was closed"):
                await each

    play(redis, scene)
