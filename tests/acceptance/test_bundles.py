"""Calls that go together, on a real pool: what goes wrong with one of them costs no other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from rq import Queue

from pysplash import AsyncClient, CallTimeout, DoorClosed, ExecutionError, framed
from pysplash.client.bundling import Bundles
from tests.acceptance.command import QUICK, READY, Command, Start
from tests.waiting import wait_until

#: seconds for anything that has to happen, on a machine that does much else
BOUND = 40.0
#: seconds after which a worker has surely started: one killed before says nothing
GROWN = 0.4
NOTE = "tests.acceptance.handlers:note"
Serve = Callable[..., Command]


def together(url: str, payloads: Sequence[bytes], timeout: float = BOUND) -> dict[bytes, Any]:
    """Make calls as one job; return what each came to, in the order in which they ended."""
    ended: dict[bytes, Any] = {}

    async def call_all() -> None:
        client = AsyncClient(url, plain=True, patience=BOUND)
        bundles = Bundles(client, NOTE.replace(":", "."), timeout)
        bundles._reach = len(payloads)
        over = asyncio.Event()

        def end(payload: bytes, answer: Any, error: Exception | None) -> None:
            assert payload not in ended, "told twice"
            ended[payload] = error or answer
            if len(ended) == len(payloads):
                over.set()

        for payload in payloads:
            bundles.add(payload, lambda *told, payload=payload: end(payload, *told))
        await asyncio.wait_for(over.wait(), 2 * BOUND)
        await bundles.close()
        await client.close()

    asyncio.run(call_all())
    return ended


@pytest.fixture
def serve(pool: Start, url: str, tmp_path: Path) -> Serve:
    """Starts a pool of so many workers, each of which has made a call."""

    def start(count: int, *more: str) -> Command:
        command = pool("--handler", NOTE, "-n", str(count), *more, "-q", *QUICK)
        for _ in range(10 * count):
            assert together(url, [b"ready"]) == {b"ready": b"ready"}
        (tmp_path / "called").unlink()
        return command

    return start


def called(folder: Path) -> Counter[bytes]:
    """Return how often the handler was called with what."""
    return Counter((folder / "called").read_bytes().splitlines())


def test_several_calls_are_one_job(serve: Serve, url: str, tmp_path: Path, queue: Queue) -> None:
    """All are answered, each is called once, and RQ sees one job."""
    serve(1)
    payloads = [b"%d" % number for number in range(8)]
    before = len(queue.finished_job_registry)
    assert together(url, payloads) == {payload: payload for payload in payloads}
    assert called(tmp_path) == Counter(payloads)
    jobs = len(queue.finished_job_registry) - before
    assert 1 <= jobs < len(payloads), "on a slow machine some are sent again"


@pytest.mark.parametrize("bad", [b"boom", b"crash"])
def test_one_that_fails_costs_no_other(
    serve: Serve, url: str, tmp_path: Path, queue: Queue, bad: bytes
) -> None:
    """Those before it have their answers, those after it are made elsewhere, and each once."""
    serve(2)
    payloads = [b"a", b"b", bad, b"c", b"d"]
    ended = together(url, payloads)
    assert isinstance(ended.pop(bad), ExecutionError)
    assert ended == {payload: payload for payload in (b"a", b"b", b"c", b"d")}
    assert called(tmp_path) == Counter(payloads)
    assert len(queue.failed_job_registry) == 1


def test_one_that_is_put_back_goes_again(serve: Serve, url: str, tmp_path: Path) -> None:
    """Where jobs of dead workers are requeued, the one call is made again and no other."""
    serve(2, "--on-crash", "requeue")
    payloads = [b"a", b"once", b"b", b"c"]
    assert together(url, payloads) == {payload: payload for payload in payloads}
    assert called(tmp_path) == Counter([*payloads, b"once"])


def test_one_that_takes_long_keeps_no_other(serve: Serve, url: str, tmp_path: Path) -> None:
    """The others have their answers while it runs; and each is called once."""
    serve(2)
    payloads = [b"a", b"nap3", b"b", b"c"]
    began = time.monotonic()
    ended = together(url, payloads)
    assert time.monotonic() - began > 3
    assert list(ended)[-1] == b"nap3"
    assert ended == {payload: payload for payload in payloads}
    assert called(tmp_path) == Counter(payloads)


def test_one_that_is_late_is_stopped(serve: Serve, url: str, tmp_path: Path, queue: Queue) -> None:
    """It alone times out, and its worker is free again."""
    serve(2)
    ended = together(url, [b"a", b"nap60", b"b"], timeout=5)
    assert isinstance(ended.pop(b"nap60"), CallTimeout)
    assert ended == {b"a": b"a", b"b": b"b"}
    payloads = [b"%d" % number for number in range(6)]
    assert together(url, payloads) == {payload: payload for payload in payloads}
    assert max(called(tmp_path).values()) == 1


def age(pid: int) -> float:
    """Return the seconds for which a process has lived, 0 if it does no longer."""
    try:
        return time.time() - psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def test_calls_under_fire(serve: Serve, splash: Start, url: str, tmp_path: Path) -> None:
    """Workers are killed at any instant: each costs one call at most, and none is made twice."""
    pool = serve(2)
    told = splash("serve", "-u", url, "--tcp", "127.0.0.1:0", "--handler", NOTE)
    match = wait_until(lambda: re.search(r"framed door at (\S+)", told.out), READY, "the door")
    assert match is not None
    address, chance = match[1], random.Random(7)
    payloads = [b"%d" % number for number in range(6000)]
    kills = 0

    def call(payload: bytes) -> bool:
        try:
            return framed.request(address, payload, BOUND) == payload
        except DoorClosed:
            return False

    with ThreadPoolExecutor(16) as callers:
        answered = [callers.submit(call, payload) for payload in payloads]
        while not all(each.done() for each in answered):
            wait([each for each in answered if not each.done()][-1:], chance.uniform(0.02, 0.2))
            if grown := [pid for pid in pool.workers() if age(pid) > GROWN]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(grown), signal.SIGKILL)
                    kills += 1

    lost = {payload for payload, each in zip(payloads, answered, strict=True) if not each.result()}
    made = called(tmp_path)
    assert max(made.values()) == 1
    assert made.keys() >= set(payloads) - lost
    assert len(lost) <= kills
    assert len(lost) < len(payloads) / 10
