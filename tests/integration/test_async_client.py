"""The client for asyncio on a real server: many calls, one connection, every way to end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from pysplash import (
    AsyncClient,
    CallTimeout,
    ConfigError,
    ConnectionFailed,
    ExecutionError,
    NoWorkerError,
    UnknownTask,
)
from pysplash.embedded import EmbeddedServer
from pysplash.errors import CallError
from tests.integration.door_pools import HandPool
from tests.integration.rq_life import aside, calls, fail, finish, work, workers
from tests.waiting import wait_until

#: seconds for anything that has to happen, on a machine that does much else
BOUND = 20.0

Scene = Callable[[AsyncClient], Awaitable[None]]


@pytest.fixture
def pool(redis: Redis) -> HandPool:
    """A pool that has said that it is there, and has no worker."""
    pool = HandPool(redis)
    pool.stay()
    return pool


def play(url: str, scene: Scene, **terms: Any) -> None:
    """Run *scene* with a client of its own, within reasonable time."""

    async def run() -> None:
        async with asyncio.timeout(3 * BOUND):
            async with AsyncClient(url, **terms) as client:
                await scene(client)

    asyncio.run(run())


async def until(predicate: Callable[[], object]) -> None:
    """Wait for *predicate* without keeping the loop from turning."""
    await asyncio.to_thread(wait_until, predicate, BOUND)


def test_calls_are_answered(url: str, pool: HandPool, queue: Queue) -> None:
    """By attribute, by name, by handle: the task's value comes back, or its error."""

    async def scene(client: AsyncClient) -> None:
        assert await client.it.square(7) == 49
        assert await client.execute("it.square", 8, timeout=BOUND) == 64
        call = await client.submit("it.square", 9)
        assert (await call.result(), await call, await call.status()) == (81, 81, "finished")
        assert call.done()
        with pytest.raises(ExecutionError, match="LookupError: no such thing") as caught:
            await client.it.boom()
        assert "in boom" in caught.value.traceback
        assert await client.map("it.square", range(20), timeout=BOUND) == [n * n for n in range(20)]
        assert await client.map("it.square", []) == []

    with workers(queue, 1):
        play(url, scene)


def test_a_thousand_in_flight_on_one_connection(url: str, pool: HandPool, redis: Redis) -> None:
    """A thousand calls wait at once over one connection; each gets its own answer as it comes."""
    count = 1000

    async def scene(client: AsyncClient) -> None:
        before = len(redis.client_list())
        calls = await client.submit_many("it.square", range(count))
        assert len(redis.client_list()) == before + 1
        assert redis.llen("rq:queue:default") == count
        job = Job.fetch(calls[0].id, connection=redis)
        answering = aside(answer_all, redis, [call.id for call in calls], job)
        ended = [await call async for call in client.as_finished(calls)]
        answering.result(BOUND)
        assert sorted(ended) == list(range(count))
        assert await asyncio.gather(*calls) == list(range(count))
        assert len(redis.client_list()) <= before + 1

    play(url, scene)


def answer_all(redis: Redis, ids: list[str], job: Job) -> None:
    """Answer each call with its number, the last one first, as a worker would."""
    for number in reversed(range(len(ids))):
        job._id = ids[number]
        finish(job, number)


def test_the_server_tells_of_answers(url: str, pool: HandPool, redis: Redis) -> None:
    """An answer wakes its caller; nobody looks at the many others for it."""

    async def scene(client: AsyncClient) -> None:
        await client.submit_many("it.square", range(300))
        before = calls(redis, "xrevrange")
        for _ in range(20):
            call = await client.submit("it.square", 7)
            finish(Job.fetch(call.id, connection=redis), 49)
            assert await call.result(BOUND) == 49
        looks = calls(redis, "xrevrange") - before
        # now and then there is a look at all; if answers were found by it, one for each of them
        assert looks < 10 * 280, looks

    play(url, scene)


def test_answers_come_as_they_finish(url: str, pool: HandPool, redis: Redis) -> None:
    """The order is that of their ends, not that of the calls."""

    async def scene(client: AsyncClient) -> None:
        made = await client.submit_many("it.square", range(5))
        seen = []
        order = [3, 0, 4, 1, 2]
        finish(Job.fetch(made[order[0]].id, connection=redis), order[0])
        async for call in client.as_finished(made):
            seen.append(await call)
            if len(seen) < 5:
                following = order[len(seen)]
                finish(Job.fetch(made[following].id, connection=redis), following)
        assert seen == order

    play(url, scene)


@pytest.mark.parametrize(("choice", "left"), [("cancel", 0), ("leave", 1)])
def test_a_timeout_cancels_or_leaves(
    url: str, pool: HandPool, queue: Queue, choice: str, left: int
) -> None:
    """A call that nobody takes is off the queue after its timeout, or stays, as was chosen."""

    async def scene(client: AsyncClient) -> None:
        with pytest.raises(CallTimeout, match=r"it\.square did not answer within 0\.05 s"):
            await client.execute("it.square", 1, timeout=0.05, on_timeout=choice)
        assert queue.count == left

    play(url, scene)


@pytest.mark.parametrize(("choice", "left"), [("cancel", 0), ("leave", 1)])
def test_a_cancelled_caller_takes_its_job_along(
    url: str, pool: HandPool, queue: Queue, choice: str, left: int
) -> None:
    """Cancelling what awaits a call cancels the job; leaving leaves it."""

    async def scene(client: AsyncClient) -> None:
        asking = asyncio.create_task(client.execute("it.square", 1))
        await until(lambda: queue.count == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    play(url, scene, on_timeout=choice)
    assert queue.count == left


def test_callers_that_go_away_mix_nothing_up(url: str, pool: HandPool, queue: Queue) -> None:
    """Callers cancelled at any moment, replies to whom still come, leave others' answers right."""

    async def scene(client: AsyncClient) -> None:
        for wave in range(3):
            asking = [
                asyncio.create_task(client.execute("it.square", 100 * wave + number))
                for number in range(6)
            ]
            for _ in range(wave % 7):
                await asyncio.sleep(0)
            for task in asking[::2]:
                task.cancel()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(answer, asyncio.CancelledError | int) for answer in answers)
            assert answers[1::2] == [(100 * wave + number) ** 2 for number in (1, 3, 5)]

    with workers(queue, 2):
        play(url, scene)


def test_handles_are_cancelled(url: str, pool: HandPool, queue: Queue) -> None:
    """A call that waits is taken off its queue, and its result says so; once."""

    async def scene(client: AsyncClient) -> None:
        call = await client.submit("it.square", 1)
        assert (await call.status(), await call.wait(0)) == ("queued", False)
        assert await call.cancel() is True
        assert await call.cancel() is False
        assert queue.count == 0
        with pytest.raises(ExecutionError, match="canceled"):
            await call.result(BOUND)

    play(url, scene)


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_ends_that_nobody_tells_of(url: str, pool: HandPool, redis: Redis, end: str) -> None:
    """A job that others cancel or delete is noticed while it is awaited."""

    async def scene(client: AsyncClient) -> None:
        call = await client.submit("it.square", 1)
        getattr(Job.fetch(call.id, connection=redis), end)()
        with pytest.raises(ExecutionError, match=r"canceled|vanished"):
            await call.result(BOUND)

    play(url, scene)


def test_silent_ends_are_found_among_many_that_are_told(
    url: str, pool: HandPool, redis: Redis
) -> None:
    """While answers come without a pause, one that nobody tells of is found as well."""

    async def scene(client: AsyncClient) -> None:
        silent = await client.submit("it.square", 1)
        Job.fetch(silent.id, connection=redis).delete()
        end = time.monotonic() + BOUND
        while not silent.done() and time.monotonic() < end:
            call = await client.submit("it.square", 7)
            finish(Job.fetch(call.id, connection=redis), 49)
            assert await call.result(BOUND) == 49
        with pytest.raises(ExecutionError, match="vanished"):
            await silent.result(0)

    play(url, scene)


def test_a_large_answer(url: str, pool: HandPool, redis: Redis) -> None:
    """It comes whole, and so do those beside it, success or failure."""

    async def scene(client: AsyncClient) -> None:
        large, small, bad = await client.submit_many("it.square", range(3))
        finish(Job.fetch(large.id, connection=redis), "x" * 300_000)
        finish(Job.fetch(small.id, connection=redis), 4)
        fail(Job.fetch(bad.id, connection=redis), "y" * 10 + "Error: " + os.urandom(200_000).hex())
        assert await small.result(BOUND) == 4
        assert await large.result(BOUND) == "x" * 300_000
        with pytest.raises(ExecutionError):
            await bad.result(BOUND)

    play(url, scene)


def test_a_lost_connection_is_replaced(url: str, pool: HandPool, redis: Redis) -> None:
    """Calls whose connection was cut have their answers, those given meanwhile too."""

    async def scene(client: AsyncClient) -> None:
        made = await client.submit_many("it.square", range(10))
        for call in made:
            redis.client_kill_filter(_type="normal", skipme=True)
            finish(Job.fetch(call.id, connection=redis), 5)
        assert await asyncio.gather(*(call.result(BOUND) for call in made)) == [5] * 10
        redis.client_kill_filter(_type="normal", skipme=True)
        assert await client.ping() is True

    play(url, scene)


def test_without_a_pool_nothing_is_enqueued(url: str, redis: Redis) -> None:
    """No pool, no call; a name that nobody knows, no call either."""

    async def scene(client: AsyncClient) -> None:
        with pytest.raises(NoWorkerError, match="no pool is alive"):
            await client.it.square(1)
        assert await client.ping() is False
        pool = HandPool(redis)
        pool.stay()
        with pytest.raises(UnknownTask):
            await client.execute("os.system", "true")
        call = await client.submit("it.square", 1)
        pool.presence.close()
        with pytest.raises(NoWorkerError):
            await client.submit("it.square", 2)
        assert redis.lrange("rq:queue:default", 0, -1) == [call.id.encode()]

    play(url, scene)


def test_patience_waits_for_a_pool(url: str, redis: Redis, queue: Queue) -> None:
    """With patience, client and pool may be started in any order."""

    async def scene(client: AsyncClient) -> None:
        asking = asyncio.create_task(client.execute("it.square", 5))
        await until(lambda: calls(redis, "zrange") > 2)
        HandPool(redis).stay()
        assert await asking == 25

    with workers(queue, 1):
        play(url, scene, patience=BOUND)


def test_many_callers_look_at_the_pools_once(url: str, pool: HandPool, redis: Redis) -> None:
    """A thousand calls made at once ask once who is there."""

    async def scene(client: AsyncClient) -> None:
        before = calls(redis, "zrange")
        await asyncio.gather(*(client.submit("it.square", n) for n in range(1000)))
        assert calls(redis, "zrange") == before + 1

    play(url, scene)


def test_without_redis(url: str, server: EmbeddedServer, pool: HandPool) -> None:
    """A server that went away is one error for each call; a call that waits goes on waiting."""

    async def scene(client: AsyncClient) -> None:
        waiting = asyncio.ensure_future(client.execute("it.square", 1))
        answers = client._sessions.here().answers
        await until(lambda: answers._awaited)
        server.stop()
        with pytest.raises(ConnectionFailed, match="does not answer"):
            await client.submit("it.square", 2)
        assert await client.ping() is False
        waiting.cancel()

    play(url, scene)


def test_the_end_of_a_client(url: str, pool: HandPool, redis: Redis) -> None:
    """Closing it tells those who wait, leaves the jobs, and leaves no connection."""
    before = len(redis.client_list())

    async def run() -> None:
        client = AsyncClient(url)
        call = await client.submit("it.square", 1)
        waiting = asyncio.create_task(call.result())
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(CallError, match="the client was closed"):
            await waiting
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    wait_until(lambda: len(redis.client_list()) == before, BOUND, "the end of the connection")
    assert redis.llen("rq:queue:default") == 1


def test_calls_overflow_a_few_times(url: str, pool: HandPool, queue: Queue) -> None:
    """Late calls pass as long as the allowance lasts; then the soft limit holds."""

    async def scene(client: AsyncClient) -> None:
        assert await client.it.nap(0.3) == 0.3
        with pytest.raises(CallTimeout, match=r"within 0\.1 s"):
            await client.it.nap(0.3)

    with workers(queue, 1):
        play(url, scene, timeout=0.1, overflow=BOUND, overflows=1)


def test_map_cancels_what_is_late(url: str, pool: HandPool, queue: Queue) -> None:
    """After the timeout of all together nothing of it waits any more."""

    async def scene(client: AsyncClient) -> None:
        with pytest.raises(CallTimeout, match="calls of task"):
            await client.map("it.square", range(5), timeout=0.05)
        assert queue.count == 0

    play(url, scene)


def test_a_plain_client_unpickles_nothing(url: str, pool: HandPool, queue: Queue) -> None:
    """It gets JSON values; what has no such form is the task's failure."""

    async def scene(client: AsyncClient) -> None:
        assert await client.it.square(7) == 49
        with pytest.raises(ExecutionError, match="Thing is not JSON serializable"):
            await client.it.thing()

    with workers(queue, 1):
        play(url, scene, plain=True)


def test_an_odd_entry_is_an_answer(url: str, pool: HandPool, redis: Redis) -> None:
    """A result that makes no sense ends its call with an error, and no other call."""

    async def scene(client: AsyncClient) -> None:
        odd, good = await client.submit_many("it.square", range(2))
        redis.xadd(f"rq:results:{odd.id}", {"type": "nonsense"})
        with pytest.raises(CallError, match="cannot be read"):
            await odd.result(BOUND)
        finish(Job.fetch(good.id, connection=redis), 1)
        assert await good.result(BOUND) == 1

    play(url, scene)


def test_a_connection_that_has_no_twin() -> None:
    """What asyncio cannot do is refused with what to give instead."""

    class Odd(Redis):
        """A client of the user's own."""

    class OddConnection:
        """A connection of the user's own."""

    client = Odd()
    client.connection_pool.connection_class = OddConnection
    with pytest.raises(ConfigError):
        AsyncClient(connection=client)


def test_over_tcp(url: str, pool: HandPool, queue: Queue) -> None:
    """A server is reached by host and port just as well."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(urlsplit(url).path)
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))
        crossed.set()

    crossed = asyncio.Event()

    async def scene() -> None:
        async with await asyncio.start_server(bridge, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with AsyncClient(f"redis://127.0.0.1:{port}/0", timeout=BOUND) as client:
                assert await client.map("it.square", range(20)) == [n * n for n in range(20)]
            await crossed.wait()

    with workers(queue, 1):
        asyncio.run(scene())


def test_work_done_before_the_look(url: str, pool: HandPool, queue: Queue) -> None:
    """An answer that was there before anybody waited is had at once."""

    async def scene(client: AsyncClient) -> None:
        call = await client.submit("it.square", 4)
        await asyncio.to_thread(work, queue)
        assert await call.result(BOUND) == 16

    play(url, scene)
