"""Clients on servers that lack something: they go on another way, or say in one line what it is."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.request import Request, urlopen

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from pysplash import AsyncClient, Client, Stage, wait_jobs
from pysplash.client import async_transport
from pysplash.errors import CallError, ConnectionFailed, StageError
from tests.integration.door_pools import HandPool
from tests.integration.gateways import announce, opened
from tests.integration.redis_servers import (
    CLUSTER,
    plain_client,
    redis_server,
    restricted_user,
    whole_client,
    without,
)
from tests.integration.rq_life import calls, finish, workers
from tests.waiting import wait_until

BOUND = 20.0
#: what a server may lack without which clients go on
LACKS = ("tracking", "script", "client", "hello")
#: what a user's rights do not have of these
FORBIDDEN = {"tracking": "-client|tracking", "script": "-script"}
#: what a server lacks that clients cannot do without, how it is started, and what they say
UNFIT = {
    "a cluster": (CLUSTER, "is a cluster"),
    "no scripts": (without("EVAL", "EVALSHA"), "has no scripts .it does not run EVAL and EVALSHA"),
}


@pytest.fixture(params=LACKS)
def lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server that lacks one thing; nothing is found by a look at all calls."""
    monkeypatch.setattr(async_transport, "SWEEP", 3600.0)
    monkeypatch.setattr(async_transport, "_UNTOLD", set())
    with ExitStack() as stack:
        if request.param in FORBIDDEN:
            url = stack.enter_context(redis_server())
            yield stack.enter_context(restricted_user(url, FORBIDDEN[request.param]))
        else:
            url = stack.enter_context(redis_server(*without(request.param.upper())))
            yield url + ("&protocol=2" if request.param == "hello" else "")


def test_answers_are_told_on_an_older_redis() -> None:
    """A server that remembers only the keys that a script is given tells of answers, too."""

    async def scene(url: str, redis: Redis) -> None:
        async with AsyncClient(url) as client:
            await client.submit_many("it.square", range(300))
            before = calls(redis, "xrevrange")
            for _ in range(20):
                call = await client.submit("it.square", 7)
                finish(Job.fetch(call.id, connection=redis), 49)
                assert await call.result(BOUND) == 49
            # were they found by looks at all, there would be one at each of 300 for each of 20
            assert calls(redis, "xrevrange") - before < 10 * 280

    with redis_server() as url, plain_client(url) as redis:
        HandPool(redis).stay()
        asyncio.run(scene(url, redis))


def test_calls_are_answered_where_nothing_is_told(
    lacking: str, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """Answers are looked for, also after the connection was lost; one line in the log says so."""
    caplog.set_level(logging.INFO, "pysplash.client")
    lacks = request.node.callspec.params["lacking"]

    async def scene(queue: Queue) -> None:
        async with asyncio.timeout(3 * BOUND), AsyncClient(lacking) as client:
            assert await client.map("it.square", range(30)) == [n * n for n in range(30)]
            connection = await client._sessions.here().answers._open()
            connection._transport.abort()
            assert await client.it.square(7) == 49
            with pytest.raises(CallError, match="LookupError"):
                await client.it.boom()
        async with AsyncClient(lacking) as another:
            assert await another.it.square(8) == 64

    with whole_client(lacking) as redis:
        HandPool(redis).stay()
        queue = Queue(connection=redis)
        with workers(queue, 1):
            asyncio.run(scene(queue))
    lines = [line for line in caplog.messages if "does not tell of answers" in line]
    assert len(lines) == (lacks != "script")


def test_a_long_call_is_looked_at_seldom() -> None:
    """Where nothing is told, the looks at a call come ever less often."""

    async def scene(url: str, redis: Redis) -> None:
        async with AsyncClient(url) as client:
            call = await client.submit("it.square", 7)
            before = calls(redis, "xrevrange")
            assert not await call.wait(1.0)
            # every 4 ms for a second would be 250 of them
            assert 3 <= calls(redis, "xrevrange") - before <= 60

    with (
        redis_server() as url,
        restricted_user(url, "-client|tracking") as limited,
        plain_client(url) as redis,
    ):
        HandPool(redis).stay()
        asyncio.run(scene(limited, redis))


def ask_door(address: str) -> object:
    """Call a task at an HTTP door; return the answer."""
    body = json.dumps({"jsonrpc": "2.0", "method": "it.square", "params": [9], "id": 1}).encode()
    asked = Request(f"http://{address}/rpc", body, {"Content-Type": "application/json"})
    with urlopen(asked, timeout=BOUND) as answer:
        return json.load(answer)


def test_all_others_go_on(lacking: str) -> None:
    """Client, wait_jobs, stages and doors need none of it."""
    with whole_client(lacking) as redis:
        announce(redis)
        queue = Queue(connection=redis)
        with workers(queue, 1), Client(lacking, timeout=BOUND) as client:
            assert client.it.square(7) == 49
            assert client.map("it.square", range(20)) == [n * n for n in range(20)]
            assert wait_jobs([queue.enqueue(abs, -3)], BOUND, True) == [3]
            with opened(lacking, http="127.0.0.1:0") as gateway:
                assert ask_door(gateway.addresses["HTTP"]) == {
                    "jsonrpc": "2.0",
                    "result": 81,
                    "id": 1,
                }
        stage = Stage("first", connection=Redis.from_url(lacking))
        assert len(stage.push(b"a", b"b")) == 2
        assert redis.llen("rq:queue:first") == 2


@pytest.mark.parametrize("lack", UNFIT)
def test_what_is_missing_is_said(lack: str) -> None:
    """A server that cannot serve is an error at once that says so, of whatever is used."""
    options, words = UNFIT[lack]
    with redis_server(*options) as url:

        async def ask() -> None:
            async with AsyncClient(url, timeout=BOUND) as client:
                await client.it.square(1)

        async def open_door() -> None:
            with opened(url, http="127.0.0.1:0"):
                pass

        with pytest.raises(CallError, match=words):
            Client(url, timeout=BOUND).it.square(1)
        with pytest.raises(CallError, match=words):
            asyncio.run(ask())
        with pytest.raises(StageError, match=words):
            Stage("first", url=url).push(b"a")
        for command in (["call", "it.square", "1"], ["tasks"], ["serve", "--http", "127.0.0.1:0"]):
            done = subprocess.run(
                [sys.executable, "-m", "pysplash", *command, "-u", url],
                capture_output=True,
                text=True,
                timeout=3 * BOUND,
                check=False,
            )
            lines = done.stderr.strip().splitlines()
            assert done.returncode == 1, command
            assert len(lines) == 1, lines
            assert words.partition(" .")[0] in lines[0]


def test_a_cluster_is_named_by_a_wait() -> None:
    """A wait for a job on a cluster ends with an error at once."""
    with (
        redis_server(*CLUSTER) as url,
        plain_client(url) as redis,
        pytest.raises(ConnectionFailed, match="is a cluster"),
    ):
        wait_jobs([Job("some", connection=redis)], BOUND)


def test_a_wait_needs_no_scripts() -> None:
    """Where scripts are not to be had, wait_jobs reads jobs in transactions."""
    with redis_server(*without("EVAL", "EVALSHA")) as url, plain_client(url) as redis:
        queue = Queue(connection=redis)
        jobs = [queue.enqueue(abs, -number) for number in range(5)]
        with workers(queue, 1):
            assert wait_jobs(jobs, BOUND, True) == [0, 1, 2, 3, 4]


def test_what_to_do_without_hello_is_said() -> None:
    """A server that knows only the older protocol is named, with the remedy."""
    with redis_server(*without("HELLO")) as url:
        with pytest.raises(CallError, match=r"older than version 6.*protocol=2"):
            Client(url).pools()
        wait_until(lambda: Client(url + "&protocol=2").pools() == [], BOUND)
