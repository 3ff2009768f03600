"""What is bound to an event loop, a thread or a process, used in another: it works, or says so."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from pysplash import AsyncClient, CallTimeout, Client, ConfigError, Coprocess, Gateway
from pysplash.errors import CallError
from pysplash.waiting.offer import at_hand, attach, attached, offer
from tests.integration.door_pools import HandPool
from tests.integration.rq_life import aside, workers
from tests.waiting import wait_until

BOUND = 20.0


@pytest.fixture
def pool(redis: Redis) -> HandPool:
    """A pool that has said that it is there, and has no worker."""
    pool = HandPool(redis)
    pool.stay()
    return pool


def in_a_fork(scene: Callable[[], object]) -> None:
    """Run *scene* in a forked process; it must end well, within reasonable time."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            scene()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    statuses: list[int] = []

    def has_ended() -> bool:
        found, status = os.waitpid(process, os.WNOHANG)
        statuses.append(status)
        return found != 0

    wait_until(has_ended, 2 * BOUND, "the fork's end")
    assert os.waitstatus_to_exitcode(statuses[-1]) == 0


# --- AsyncClient ---


def test_one_loop_after_the_other(url: str, pool: HandPool, queue: Queue, redis: Redis) -> None:
    """A client works in each asyncio.run, over a connection of its own, which does not pile up."""
    client = AsyncClient(url, timeout=BOUND)

    async def call() -> Any:
        return await client.it.square(7)

    with workers(queue, 1):
        assert [asyncio.run(call()) for _ in range(5)] == [49] * 5
    gc.collect()
    assert len(client._sessions._sessions) == 1
    names = [each["cmd"] for each in redis.client_list()]
    assert len([name for name in names if "evalsha" in name or "xrevrange" in name]) <= 2
    asyncio.run(client.close())
    assert not client._sessions._sessions


def test_a_handle_made_in_another_loop(url: str, pool: HandPool, queue: Queue) -> None:
    """What was submitted in one loop can be awaited in the next, with a timeout that holds."""
    client = AsyncClient(url)
    submitted = asyncio.run(client.submit("it.square", 7))
    with pytest.raises(CallTimeout):
        asyncio.run(submitted.result(0.05))
    others = asyncio.run(client.submit_many("it.square", range(5)))

    async def collect() -> list[Any]:
        return sorted([await call async for call in client.as_finished(others)])

    with workers(queue, 1):
        assert asyncio.run(submitted.result(BOUND)) == 49
        assert asyncio.run(collect()) == [0, 1, 4, 9, 16]
    assert asyncio.run(submitted.status()) == "finished"


def test_loops_of_several_threads(url: str, pool: HandPool, queue: Queue) -> None:
    """Threads, each with a loop of its own, may share a client."""
    client = AsyncClient(url, timeout=BOUND)

    async def call(number: int) -> list[Any]:
        return await client.map("it.square", range(number))

    with workers(queue, 2):
        running = [aside(asyncio.run, call(number)) for number in range(2, 8)]
        answers = [each.result(2 * BOUND) for each in running]
    assert answers == [[n * n for n in range(number)] for number in range(2, 8)]


def test_a_client_that_is_closed_from_another_loop(url: str, pool: HandPool) -> None:
    """Who waits in another thread's loop hears at once that the client was closed."""
    client = AsyncClient(url)
    ready = threading.Event()

    async def wait() -> Any:
        call = await client.submit("it.square", 7)
        ready.set()
        return await call

    waiting = aside(asyncio.run, wait())
    assert ready.wait(BOUND)
    asyncio.run(client.close())
    with pytest.raises(CallError, match="the client was closed"):
        waiting.result(BOUND)


def test_an_async_client_after_a_fork(url: str, pool: HandPool, queue: Queue) -> None:
    """The fork has a connection of its own, and leaves that of its parent as it was."""
    client = AsyncClient(url, timeout=BOUND)

    async def call() -> Any:
        return await client.it.square(7)

    async def scene() -> None:
        assert await call() == 49
        later = await client.submit("it.square", 3)

        def child() -> None:
            assert asyncio.run(call()) == 49
            gc.collect()

        await asyncio.to_thread(in_a_fork, child)
        assert await later.result(BOUND) == 9
        assert await call() == 49

    with workers(queue, 1):
        asyncio.run(scene())


# --- Client, wait_jobs, and what a worker offers ---


def test_a_client_after_a_fork(url: str, pool: HandPool, queue: Queue) -> None:
    """Whatever its threads were in the middle of, a client works in a forked process."""
    client = Client(url, timeout=BOUND, max_connections=1)
    call = client.submit("it.square", 1)
    waiting = aside(call.result)
    wait_until(lambda: client._transport._connections._value == 0, BOUND, "a thread in a read")
    with workers(queue, 0):

        def child() -> None:
            assert client.submit("it.square", 7).wait(0.01) is False

        in_a_fork(child)
    with workers(queue, 1):
        assert waiting.result(BOUND) == 1


def test_what_a_worker_offers_is_its_own() -> None:
    """A process that a job has forked neither helps by its worker's connection nor has its slot."""
    helper: Any = object()
    offer(helper)
    attach(helper)
    try:

        def child() -> None:
            assert at_hand() is None
            assert attached() is None

        in_a_fork(child)
        assert at_hand() is helper
        assert attached() is helper
    finally:
        offer(None)
        attach(None)


# --- doors and coprocesses ---


def test_a_gateway_belongs_to_its_loop(url: str) -> None:
    """Opened twice, closed elsewhere or run in a thread, it says what is wrong, and works on."""
    gateway = Gateway(url, http="127.0.0.1:0")

    async def scene() -> None:
        await gateway.open()
        with pytest.raises(ConfigError, match="open already"):
            await gateway.open()
        with pytest.raises(ConfigError, match="in another event loop"):
            await asyncio.to_thread(asyncio.run, gateway.close(0))
        await gateway.close(0)
        await gateway.open()

    asyncio.run(scene())
    asyncio.run(gateway.close(0))
    with pytest.raises(ConfigError, match="main thread"):
        aside(gateway.run).result(BOUND)


def test_threads_take_turns_at_a_coprocess(tmp_path: Path) -> None:
    """Each thread has the answer to its own request."""
    with_echo = Coprocess([sys.executable, "-c", ECHO])

    def ask(number: int) -> None:
        for turn in range(30):
            word = b"%d %d" % (number, turn)
            assert with_echo(word) == word

    try:
        for each in [aside(ask, number) for number in range(4)]:
            each.result(2 * BOUND)
    finally:
        with_echo.close()


def test_a_coprocess_after_a_fork_in_the_middle_of_a_request() -> None:
    """A forked process has a child of its own, whatever a thread of its parent was waiting for."""
    slow = Coprocess([sys.executable, "-c", ECHO])
    hanging = aside(slow, b"hang")
    wait_until(lambda: slow.pid, BOUND)
    wait_until(slow._turn.locked, BOUND)

    def child() -> None:
        assert slow(b"a") == b"a"
        slow.close()

    try:
        in_a_fork(child)
    finally:
        assert slow._child is not None
        slow._child.kill()
    assert hanging.exception(BOUND) is not None


ECHO = """
import struct, sys, time
while len(head := sys.stdin.buffer.read(4)) == 4:
    data = sys.stdin.buffer.read(struct.unpack("!I", head)[0])
    if data == b"hang": time.sleep(3600)
    sys.stdout.buffer.write(head + data)
    sys.stdout.buffer.flush()
"""
