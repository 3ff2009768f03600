"""One connection shared by many on a real server: whose reply is whose, what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pysplash.client.async_transport import AnswerStream, Awaited
from pysplash.client.requests import build
from pysplash.client.routing import Route
from pysplash.client.terms import Terms
from pysplash.connections.clients import portable
from pysplash.connections.multiplexed import MultiplexedConnection

BOUND = 20.0


def play(
    redis: Redis,
    scene: Callable[[MultiplexedConnection, list[bytes | None]], Awaitable[None]],
    answer: float = BOUND,
) -> None:
    """Run *scene* with a connection of its own, which waits so long, and what it is told."""

    async def run() -> None:
        heard: list[bytes | None] = []
        connection = MultiplexedConnection(portable(redis), heard.append, answer)
        await connection.open()
        try:
            async with asyncio.timeout(BOUND):
                await scene(connection, heard)
        finally:
            await connection.close()

    asyncio.run(run())


def test_callers_that_go_away_leave_the_others_their_replies(redis: Redis) -> None:
    """Replies are handed out in order, whoever has stopped waiting for his."""

    async def scene(connection: MultiplexedConnection, heard: list[bytes | None]) -> None:
        for wave in range(20):
            asking = [
                asyncio.create_task(connection.call("ECHO", f"{wave}-{number}"))
                for number in range(30)
            ]
            for _ in range(wave % 4):
                await asyncio.sleep(0)
            for task in asking[wave % 3 :: 3]:
                task.cancel()
            replies = await asyncio.gather(*asking, return_exceptions=True)
            for number, reply in enumerate(replies):
                if not isinstance(reply, asyncio.CancelledError):
                    assert reply == f"{wave}-{number}".encode()

    play(redis, scene)


def test_changes_of_others_are_told(redis: Redis) -> None:
    """What was read is told of when another changes it: once, and not if it is one's own doing."""

    async def scene(connection: MultiplexedConnection, heard: list[bytes | None]) -> None:
        await connection.call("XLEN", "answer")
        await connection.call("SET", "other", "1")
        redis.set("unread", "1")
        redis.xadd("answer", {"a": 1})
        redis.xadd("answer", {"a": 2})
        assert await connection.call("PING") == b"PONG"
        assert heard == [b"answer"]
        assert await connection.call("XLEN", "answer") == 2
        redis.flushall()
        await connection.call("PING")
        assert heard[1:] in ([None], [b"answer"])

    play(redis, scene)


def test_errors_are_the_callers_own(redis: Redis) -> None:
    """A command that Redis refuses raises where it was sent, and nowhere else."""

    async def scene(connection: MultiplexedConnection, heard: list[bytes | None]) -> None:
        async def refused() -> None:
            with pytest.raises(ResponseError, match="unknown command"):
                await connection.call("NONSENSE")

        replies = await asyncio.gather(
            connection.call("PING"), refused(), connection.call("ECHO", "x")
        )
        assert list(replies) == [b"PONG", None, b"x"]
        assert await connection.script("return ARGV[1]", "y") == b"y"

    play(redis, scene)


def test_a_broken_connection_fails_all_and_stays_so(redis: Redis) -> None:
    """Whoever waits, and whoever comes later, hears that the connection is gone."""

    async def scene(connection: MultiplexedConnection, heard: list[bytes | None]) -> None:
        number = await connection.call("CLIENT", "ID")
        asking = [asyncio.create_task(connection.call("BLPOP", "nothing", 0)) for _ in range(5)]
        await asyncio.sleep(0)
        redis.client_kill_filter(_id=number)
        for task in asking:
            with pytest.raises(RedisConnectionError):
                await task
        assert connection.broken
        assert heard == [None]
        with pytest.raises(RedisConnectionError):
            await connection.call("PING")

    play(redis, scene)


def test_a_server_that_hangs_is_left(redis: Redis) -> None:
    """Whoever waits for a reply hears that none came, in time; the next finds another server."""

    async def scene(connection: MultiplexedConnection, heard: list[bytes | None]) -> None:
        assert await connection.call("PING") == b"PONG"
        redis.client_pause(round(1000 * BOUND))
        asking = [asyncio.create_task(connection.call("SET", "key", "value")) for _ in range(3)]
        for task in asking:
            with pytest.raises(RedisTimeoutError, match=r"nothing came for 0\.3 s"):
                await task
        assert connection.broken
        assert heard == [None]

    play(redis, scene, 0.3)


def test_a_slow_server_is_waited_for(redis: Redis) -> None:
    """Nobody is left for having nothing to say, nor as long as bytes come, however slowly."""

    async def scene(connection: MultiplexedConnection, heard: list[bytes | None]) -> None:
        slow = [connection.call("BLPOP", "nothing", 0.4) for _ in range(4)]
        assert await asyncio.gather(*slow) == [None] * 4
        await asyncio.to_thread(redis.blpop, "nothing", 1)  # a time in which nobody asks
        assert not connection.broken

    play(redis, scene, 0.7)


def test_a_replica_is_left(redis: Redis) -> None:
    """A server that is no primary any more has a connection broken: the next may find the one."""

    async def scene(connection: MultiplexedConnection, heard: list[bytes | None]) -> None:
        redis.replicaof("127.0.0.1", 1)
        asking = [
            connection.call("PING"),
            connection.call("SET", "key", "value"),
            connection.call("PING"),
        ]
        replies = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(reply) for reply in replies] == [bytes, *[RedisConnectionError] * 2]
        assert connection.broken
        assert heard == [None]

    play(redis, scene)


def test_a_server_that_cannot_say_has_not_answered(redis: Redis) -> None:
    """A call goes on while a server says that it serves nobody for now."""

    async def scene() -> None:
        answers = AnswerStream(portable(redis), "here")
        awaited = Awaited(build(Route("t", "q", None, None, ("k",)), Terms(), (), {}))
        awaited.enqueued = True
        answers.add(awaited)
        redis.config_set("replica-serve-stale-data", "no")
        redis.replicaof("127.0.0.1", 1)
        assert await answers.look(awaited) is False
        redis.replicaof("NO", "ONE")
        assert await answers.look(awaited) is True
        assert awaited.future.result().status == "vanished"
        await answers.close()

    asyncio.run(scene())


def test_a_call_that_is_not_there_yet_has_not_vanished(redis: Redis) -> None:
    """A look at all calls that falls between two packets says nothing of one that is on its way."""

    async def scene() -> None:
        answers = AnswerStream(portable(redis), "here")
        route = Route("t", "q", None, None, ("k",))
        awaited = Awaited(build(route, Terms(), (), {}))
        answers.add(awaited)
        assert await answers.look(awaited) is False
        awaited.enqueued = True
        assert await answers.look(awaited) is True
        assert awaited.future.result().status == "vanished"
        await answers.close()

    asyncio.run(scene())
