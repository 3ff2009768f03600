"""Connections that end, and requests that are large: who waits for whom, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from pysplash.gateway.doors import lingering as module
from pysplash.gateway.doors.lingering import LingeringCloses
from pysplash.gateway.doors.pacing import SOME, ReadPacing
from tests.waiting import wait_until

BOUND = 20.0


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Run *scene* within reasonable time."""

    async def run() -> None:
        async with asyncio.timeout(BOUND):
            await scene()

    asyncio.run(run())


async def until(predicate: Callable[[], object]) -> None:
    """Wait for *predicate* without keeping the loop from turning."""
    await asyncio.to_thread(wait_until, predicate, BOUND)


def test_an_answer_outlives_what_nobody_reads() -> None:
    """A peer that goes on sending still reads its answer to the end; then it is over."""

    async def scene() -> None:
        leaving = LingeringCloses()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ours.send(b"answer")
        leaving.see_off(ours)
        theirs.sendall(b"x" * 50_000)
        await until(lambda: len(leaving) == 1)
        assert (theirs.recv(100), theirs.recv(100)) == (b"answer", b"")
        theirs.close()
        await until(lambda: len(leaving) == 0)
        assert ours.fileno() == -1

    play(scene)


def test_who_does_not_go_is_let_go() -> None:
    """A peer that stays, and one that sends without an end, keep a connection for a while only."""

    async def scene() -> None:
        leaving = LingeringCloses()
        silent, loud = socket.socketpair(), socket.socketpair()
        for ours, _ in (silent, loud):
            ours.setblocking(False)
            leaving.see_off(ours)
        gone: list[bool] = []

        def shout() -> bool:
            try:
                loud[1].send(b"x" * 65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                gone.append(True)
            return bool(gone)

        await until(shout)
        await until(lambda: len(leaving) == 0)
        assert silent[0].fileno() == -1
        for _, theirs in (silent, loud):
            theirs.close()

    play(scene)


def test_closing_ends_all() -> None:
    """A door that closes at once leaves no connection behind, looked at or not."""

    async def scene() -> None:
        leaving = LingeringCloses()
        pairs = [socket.socketpair() for _ in range(2 * module.SOME)]
        for ours, _ in pairs:
            ours.setblocking(False)
            leaving.see_off(ours)
        await leaving.close(0)
        assert [ours.fileno() for ours, _ in pairs] == [-1] * len(pairs)
        for _, theirs in pairs:
            theirs.close()

    play(scene)


def test_those_who_send_much_take_turns() -> None:
    """Of many who read without a pause each gets on, and others have their turn between."""

    async def scene() -> None:
        pace = ReadPacing()
        read = [0] * (3 * SOME)
        turns = 0

        async def reader(number: int) -> None:
            for _ in range(4):
                await pace.turn()
                read[number] += 1

        readers = [asyncio.create_task(reader(number)) for number in range(len(read))]
        readers[1].cancel()
        while not all(each.done() for each in readers):
            before = sum(read)
            await asyncio.sleep(0)
            turns += 1
            assert sum(read) - before <= 2 * SOME
        assert [count for number, count in enumerate(read) if number != 1] == [4] * (len(read) - 1)
        assert turns > 4

    play(scene)
