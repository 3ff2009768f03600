"""A pool and its callers behind Sentinel: another server becomes the primary, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from redis.sentinel import Sentinel

from pysplash import AsyncClient, Client, Gateway
from pysplash.connections.clients import own, portable, reach
from pysplash.waiting.clients import waiting_client
from tests.acceptance.command import QUICK, READY, Start
from tests.acceptance.failover import BOUND, MAIN, Group, deaf_places, group
from tests.waiting import wait_until

HOLD = "door.hold"


@pytest.mark.parametrize("how", ["killed", "hung", "demoted"])
def test_a_fail_over_costs_nothing(splash: Start, tmp_path: Path, marks: Path, how: str) -> None:
    """Calls on their way are answered, later ones too, by the same worker: it missed nothing."""
    gate = tmp_path / "gate"
    with group(tmp_path) as servers, deaf_places(2) as away:
        (tmp_path / "place.py").write_text(
            f"SENTINEL = {{'INSTANCES': {[*away, servers.place]!r}, 'MASTER_NAME': {MAIN!r}}}\n"
        )
        tasks = ("--preload", "tests.acceptance.door_tasks")
        pool = splash("-c", "place", *QUICK, "-n", "1", *tasks, "--record", "record.jsonl")
        workers = pool.await_idle(1)

        def move() -> None:
            """Fail over while one call is at work and two wait, and let them go on."""
            wait_until(marks.read_text, READY, "a job at work")
            wait_until(lambda: servers.primary.llen("rq:queue:default") == 2, READY, "the others")
            servers.fail_over(how)
            gate.touch()

        held = asyncio.run(call_around(move, servers, away, str(marks), str(gate)))
        assert held == 3 * workers == 3 * pool.workers()
        assert len(marks.read_text().splitlines()) == 3
        pool.signal(signal.SIGTERM)
        assert pool.wait(BOUND) == 0


class Interrupted(Exception):
    """What a job's timeout may be, in the middle of a read."""


@pytest.mark.parametrize("kind", [own, lambda client: reach(portable(client)), waiting_client])
def test_a_late_reply_is_nobodys(tmp_path: Path, kind: Callable[[Redis], Redis]) -> None:
    """Who was interrupted as it waited for a reply is not given it for what it asks next."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    with group(tmp_path) as servers:
        client = kind(Sentinel([servers.place]).master_for(MAIN))
        client.set("key", "late")
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            servers.primary.client_pause(1000)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupted):
                client.get("key")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        wait_until(servers.primary.ping, BOUND, "the end of the pause")
        assert client.get("another") is None
        client.close()


async def call_around(
    move: Callable[[], None], servers: Group, away: list[tuple[str, int]], *arguments: str
) -> list[int]:
    """Call in every way before and after *move*; return what the calls on their way return."""

    def redis() -> Redis:
        """Return a client as a user makes one; of three sentinels two are away."""
        patient = {"socket_timeout": BOUND}
        sentinel = Sentinel([*away, servers.place], sentinel_kwargs=patient)
        client: Redis = sentinel.master_for(MAIN)
        return client

    gateway = Gateway(connection=redis(), http="127.0.0.1:0")
    await gateway.open()
    try:
        async with AsyncClient(connection=redis()) as later:
            with Client(connection=redis()) as now:
                await add_by_all(gateway, later, now)
                one = await later.submit(HOLD, *arguments)
                two = now.submit(HOLD, *arguments)
                three = asyncio.to_thread(call_over_http, gateway, HOLD, *arguments)
                *held, _ = await asyncio.gather(three, asyncio.to_thread(move))
                held += [await one.result(BOUND), await asyncio.to_thread(two.result, BOUND)]
                await add_by_all(gateway, later, now)
    finally:
        await gateway.close(0)
    return held


async def add_by_all(gateway: Gateway, later: AsyncClient, now: Client) -> None:
    """Fail unless each has an answer."""
    assert await later.add(5, 6) == 11
    assert await asyncio.to_thread(now.add, 5, 6) == 11
    assert await asyncio.to_thread(call_over_http, gateway, "add", 5, 6) == 11


def call_over_http(gateway: Gateway, method: str, *arguments: object) -> int:
    """Return what a call through the gateway returns."""
    said = {"jsonrpc": "2.0", "method": method, "params": arguments, "id": 1}
    request = urllib.request.Request(
        f"http://{gateway.addresses['HTTP']}/rpc",
        json.dumps(said).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return int(json.load(response)["result"])
