"""A flood at one door: those who call at the others are answered, and the gateway stays small."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from benchmarks.doors import by_frames, by_http
from benchmarks.flood import Watch, flooding, held
from tests.acceptance.command import QUICK, READY, Command, Start
from tests.waiting import wait_until

#: bytes of PSS by which a gateway may grow, whatever peers do: with and without libzmq's own
ROOM, MOST = 40 * 2**20, 64 * 2**20
#: calls at the other door while the flood lasts
CALLS = 20
SERVED = ("--preload", "benchmarks.doors_app", "--handler", "benchmarks.doors_app:echo_bytes")


def at(gateway: Command, kind: str) -> str:
    """Return where a door is."""
    found = wait_until(lambda: re.search(rf"{kind} door at (\S+)", gateway.out), READY, kind)
    assert found is not None
    return found[1]


@pytest.mark.skipif(not psutil.LINUX, reason="PSS is Linux's")
def test_a_flood_leaves_room_for_others(
    pool: Start, splash: Start, url: str, tmp_path: Path
) -> None:
    """Others' calls are all answered; memory stays bounded, with more room for libzmq's own."""
    pool("-n", "2", "-q", *QUICK, *SERVED)
    doors: tuple[str, ...] = ("--tcp", "127.0.0.1:0", *SERVED[2:], "--http", "127.0.0.1:0")
    doors += ("--zmq", f"ipc://{tmp_path}/door")
    gateway = splash("serve", "-u", url, *doors, "--patience", "60")
    frames, http, messages = (at(gateway, kind) for kind in ("framed", "HTTP", "ZeroMQ"))
    before = held(psutil.Process(gateway.process.pid))
    with Watch(psutil.Process(gateway.process.pid)) as memory:
        with flooding("framed", "large calls", frames):
            assert len(by_http(http, CALLS, 1)[1]) == CALLS
        with flooding("HTTP", "large and never whole", http):
            assert len(by_frames(frames, CALLS, 1)[1]) == CALLS
    assert 0 < memory.most < before + ROOM
    before = held(psutil.Process(gateway.process.pid))
    watch = Watch(psutil.Process(gateway.process.pid))
    with watch as memory, flooding("ZeroMQ", "large calls", messages):
        assert len(by_http(http, CALLS, 1)[1]) == CALLS
    assert 0 < memory.most < before + MOST
    assert gateway.process.poll() is None
