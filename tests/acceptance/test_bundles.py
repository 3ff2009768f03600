"""Calls that go together, on a real pool: what goes wrong with one of them costs no other."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from pysplash import AsyncClient, CallTimeout, ExecutionError
from pysplash.bundles import Bundles
from pysplash.handlers import decode, encode
from tests.acceptance.command import QUICK, Start

#: seconds for anything that has to happen, on a machine that does much else
BOUND = 40.0
NOTE = "tests.acceptance.handlers:note"


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
            ended[payload] = error or decode(answer)
            if len(ended) == len(payloads):
                over.set()

        for payload in payloads:
            bundles.add(encode(payload), lambda *told, payload=payload: end(payload, *told))  # type: ignore[misc]
        await asyncio.wait_for(over.wait(), 2 * BOUND)
        await bundles.close()
        await client.close()

    asyncio.run(call_all())
    return ended


def called(redis: Redis) -> Counter[bytes]:
    """Return how often the handler was called with what."""
    listed: Any = redis.lrange("called", 0, -1)
    return Counter(listed)


def test_several_calls_are_one_job(pool: Start, url: str, redis: Redis, queue: Queue) -> None:
    """All are answered, each is called once, and RQ sees one job."""
    pool("--handler", NOTE, "-n", "1", "-q", *QUICK)
    payloads = [b"%d" % number for number in range(8)]
    first = together(url, payloads[:1])
    assert first == {b"0": b"0"}
    assert together(url, payloads[1:]) == {payload: payload for payload in payloads[1:]}
    assert called(redis) == Counter(payloads)
    jobs = len(queue.finished_job_registry)
    assert 2 <= jobs < len(payloads), "on a slow machine some are sent again"


@pytest.mark.parametrize("bad", [b"boom", b"crash"])
def test_one_that_fails_costs_no_other(
    pool: Start, url: str, redis: Redis, queue: Queue, bad: bytes
) -> None:
    """Those before it have their answers, those after it are made elsewhere, and each once."""
    pool("--handler", NOTE, "-n", "2", "-q", *QUICK)
    payloads = [b"a", b"b", bad, b"c", b"d"]
    ended = together(url, payloads)
    assert isinstance(ended.pop(bad), ExecutionError)
    assert ended == {payload: payload for payload in (b"a", b"b", b"c", b"d")}
    assert called(redis) == Counter(payloads)
    assert len(queue.failed_job_registry) == 1


def test_one_that_is_put_back_goes_again(pool: Start, url: str, redis: Redis) -> None:
    """Where jobs of dead workers are requeued, the one call is made again and no other."""
    pool("--handler", NOTE, "-n", "2", "--on-crash", "requeue", "-q", *QUICK)
    payloads = [b"a", b"once", b"b", b"c"]
    assert together(url, payloads) == {payload: payload for payload in payloads}
    assert called(redis) == Counter([*payloads, b"once"])


def test_one_that_takes_long_keeps_no_other(pool: Start, url: str, redis: Redis) -> None:
    """The others have their answers while it runs; and each is called once."""
    pool("--handler", NOTE, "-n", "2", "-q", *QUICK)
    payloads = [b"a", b"nap3", b"b", b"c"]
    began = time.monotonic()
    ended = together(url, payloads)
    assert time.monotonic() - began > 3
    assert list(ended)[-1] == b"nap3"
    assert ended == {payload: payload for payload in payloads}
    assert called(redis) == Counter(payloads)


def test_one_that_is_late_is_stopped(pool: Start, url: str, redis: Redis, queue: Queue) -> None:
    """It alone times out, and its worker is free again."""
    pool("--handler", NOTE, "-n", "2", "-q", *QUICK)
    assert together(url, [b"ready"]) == {b"ready": b"ready"}
    ended = together(url, [b"a", b"nap60", b"b"], timeout=5)
    assert isinstance(ended.pop(b"nap60"), CallTimeout)
    assert ended == {b"a": b"a", b"b": b"b"}
    payloads = [b"%d" % number for number in range(6)]
    assert together(url, payloads) == {payload: payload for payload in payloads}
    assert max(called(redis).values()) == 1
