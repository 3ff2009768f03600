"""Doors, daemons and pipelines through the real command line, with foreign programs as callers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import zmq
from redis import Redis

from pysplash import DoorClosed, Stage, framed
from pysplash.cli.commands import main
from pysplash.errors import EXIT_IMPORT, EXIT_OK, EXIT_UNSAFE_BIND, EXIT_USAGE
from tests.acceptance.command import QUICK, READY, ROOT, Command, Start, kill
from tests.waiting import wait_until

#: seconds for one thing that has to happen, on a busy machine
BOUND = 30.0
CALLERS = ROOT / "examples" / "callers"
HANDLER = "tests.acceptance.handlers:echo"
ANSWERS = """\
11
{"be":2,"not":1,"or":1,"to":2}
-32001 Task failed
-32601 Method not found
"""


def announced(command: Command, kind: str) -> str:
    """Return where a door is, as the command says."""
    pattern = rf"{kind} door at (\S+)"
    match = wait_until(lambda: re.search(pattern, command.out), READY, f"a {kind} door")
    assert match is not None
    return match[1]


def raw(address: str, data: bytes) -> bytes:
    """Send one frame with a bare socket, and return all that comes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), BOUND) as connection:
        connection.sendall(struct.pack("!I", len(data)) + data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def run(*words: str) -> str:
    """Return what a program says; fail if it fails."""
    ran = subprocess.run(words, capture_output=True, text=True, timeout=2 * BOUND, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_foreign_programs_call_tasks(splash: Start, pool: Start, url: str, tmp_path: Path) -> None:
    """Python, ZeroMQ and bare sockets: all get right answers from one gateway."""
    pool("-P", str(ROOT / "examples"), "--preload", "rpc", "--handler", HANDLER, "-q", *QUICK)
    ipc = f"ipc://{tmp_path / 'z'}"
    doors = ["--tcp", "127.0.0.1:0", "--handler", HANDLER, "--http", "127.0.0.1:0", "--zmq", ipc]
    gateway = splash("serve", *doors, "--patience", "20", RQ_REDIS_URL=url)
    rpc = f"http://{announced(gateway, 'HTTP')}/rpc"

    assert run(sys.executable, str(CALLERS / "call.py"), rpc) == ANSWERS
    assert raw(announced(gateway, "framed"), b"\x00raw\xff") == b"\x00raw\xff"
    assert framed.request(announced(gateway, "framed"), b"ours", BOUND) == b"ours"
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger, req.rcvtimeo = 0, int(BOUND * 1000)
        req.connect(announced(gateway, "ZeroMQ"))
        req.send(b'{"jsonrpc": "2.0", "method": "add", "params": {"a": 5, "b": 6}, "id": 1}')
        assert json.loads(req.recv())["result"] == 11

    gateway.signal(signal.SIGTERM)
    assert gateway.wait(BOUND) == EXIT_OK


@pytest.mark.parametrize(("program", "caller"), [("sh", "call.sh"), ("node", "call.mjs")])
def test_programs_that_not_every_machine_has(
    splash: Start, pool: Start, url: str, program: str, caller: str
) -> None:
    """Curl, and Node: skipped by name where one is not installed."""
    needed = "curl" if program == "sh" else program
    if shutil.which(needed) is None:
        pytest.skip(f"not installed: {needed}")
    pool("-P", str(ROOT / "examples"), "--preload", "rpc", "-q", *QUICK)
    gateway = splash("serve", "--http", "127.0.0.1:0", "--patience", "20", RQ_REDIS_URL=url)

    assert (
        run(program, str(CALLERS / caller), f"http://{announced(gateway, 'HTTP')}/rpc") == ANSWERS
    )


def test_a_gateway_ends_gracefully(splash: Start, pool: Start, url: str) -> None:
    """After TERM nobody new is let in, and a call that runs has its answer."""
    pool("--handler", HANDLER, "-n", "1", "-q", *QUICK)
    gateway = splash(
        "serve", "--tcp", "127.0.0.1:0", "--handler", HANDLER, "--patience", "20", "-u", url
    )
    address = announced(gateway, "framed")
    assert raw(address, b"ready") == b"ready"
    said: list[bytes] = []
    caller = threading.Thread(target=lambda: said.append(raw(address, b"nap1.0")))
    caller.start()
    redis = Redis.from_url(url)
    wait_until(lambda: redis.zcard("rq:wip:default"), BOUND)
    redis.close()
    gateway.signal(signal.SIGTERM)
    gateway.says("closing")
    with pytest.raises(OSError, match=r"refused|reset"):  # reset: it was closing just then
        wait_until(lambda: raw(address, b"new") is None, BOUND)
    caller.join(BOUND)
    assert said == [b"nap1.0"]
    assert gateway.wait(BOUND) == EXIT_OK


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["serve"], EXIT_USAGE, "no door is named"),
        (["serve", "--http", "0.0.0.0:0"], EXIT_UNSAFE_BIND, "open to all who reach 0.0.0.0"),
        (["serve", "--tcp", ":0", "--handler", "a:b"], EXIT_USAGE, "no HOST:PORT"),
        (["serve", "--tcp", "[::]:0", "--handler", "a:b"], EXIT_UNSAFE_BIND, "--token-file"),
        (["serve", "--zmq", "tcp://0.0.0.0:0"], EXIT_UNSAFE_BIND, "--curve-secret"),
        (["serve", "--tcp", "127.0.0.1:0"], EXIT_USAGE, "--handler"),
        (["serve", "--http", "127.0.0.1:0", "--token-file", "/none"], EXIT_USAGE, "cannot be read"),
        (["serve", "--http", "127.0.0.1:0", "--max-frame", "x"], EXIT_USAGE, "--max-frame"),
        (["daemon", "a:b", "--port", "0", "--host", "0.0.0.0"], EXIT_UNSAFE_BIND, "0.0.0.0"),
        (["daemon", "a", "--port", "0"], EXIT_USAGE, "module:function"),
        (["daemon", "a:b", "--port", "70000"], EXIT_USAGE, "port"),
        (["daemon", "a:b", "--port", "0", "--processes", "0"], EXIT_USAGE, "processes"),
    ],
)
def test_what_is_refused(
    words: list[str], status: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake is one line with its own exit status, and nothing is left open."""
    assert main(words) == status
    err = capsys.readouterr().err
    assert complaint in err.splitlines()[-1]
    assert "Traceback" not in err


def test_daemons_that_cannot_be(splash: Start) -> None:
    """A port that is taken, and a function that is nowhere, end a daemon with one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        shut, lost = splash("daemon", "a:b", "--port", port), splash("daemon", "a:b", "--port", "0")
        assert shut.wait(BOUND) == EXIT_USAGE
    assert "already in use" in shut.err.splitlines()[-1]
    assert lost.wait(BOUND) == EXIT_IMPORT
    assert "pysplash: module 'a:b' cannot be preloaded" in lost.err.splitlines()[-1]


def test_a_daemon_of_three_lines(splash: Start, tmp_path: Path) -> None:
    """From an empty folder with one file: it answers, outlives a crash and leaves nothing."""
    (tmp_path / "app.py").write_text(
        "import os\ndef echo(data):\n    return data if data != b'crash' else os._exit(9)\n"
    )
    daemon = splash("daemon", "app:echo", "--port", "0", "--processes", "2")
    address = wait_until(lambda: re.search(r"serving at (\S+)", daemon.out), READY)
    assert address is not None
    assert raw(address[1], b"hello") == b"hello"
    with pytest.raises(DoorClosed):
        framed.request(address[1], b"crash", BOUND)
    assert framed.request(address[1], b"x" * 2**20, BOUND) == b"x" * 2**20
    with pytest.raises(DoorClosed):
        framed.request(address[1], b"x" * (2**20 + 1), BOUND)
    assert raw(address[1], b"") == b""
    assert {place for one in daemon.processes() for place in _listening(one)} == {"127.0.0.1"}
    os.killpg(daemon.process.pid, signal.SIGINT)  # as Ctrl-C does
    assert daemon.wait(BOUND) == EXIT_OK
    daemon.await_gone(BOUND)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".py") == ["app.py"]


def _listening(process: psutil.Process) -> list[str]:
    """Return the addresses at which a process listens."""
    try:
        found = process.net_connections("inet")
    except psutil.Error:
        return []
    return [one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("victim", ["daemon", "pool"])
def test_a_daemon_ends_as_one(splash: Start, victim: str) -> None:
    """Whichever of its processes is killed, none is left, and the caller is not left hanging."""
    daemon = splash("daemon", HANDLER, "--port", "0", "-P", str(ROOT))
    address = wait_until(lambda: re.search(r"serving at (\S+)", daemon.out), READY)
    assert address is not None
    assert framed.request(address[1], b"hello", BOUND) == b"hello"
    daemon.processes()
    if victim == "daemon":
        daemon.process.kill()
    else:
        pools = [p for p in daemon.processes() if "daemon_pool" in str(p.cmdline())]
        kill(pools)
        assert daemon.wait(BOUND) == 1
        assert "the daemon's pool ended by itself" in daemon.err
    daemon.await_gone(BOUND)
    with pytest.raises(DoorClosed):
        framed.request(address[1], b"hello", BOUND)


def test_a_daemon_ends_gracefully(splash: Start) -> None:
    """A request that runs when TERM comes has its answer; then all is gone."""
    daemon = splash("daemon", HANDLER, "--port", "0", "--processes", "1", "-P", str(ROOT))
    address = wait_until(lambda: re.search(r"serving at (\S+)", daemon.out), READY)
    assert address is not None
    worker = int(framed.request(address[1], b"pid", BOUND))
    said: list[bytes] = []
    caller = threading.Thread(target=lambda: said.append(raw(address[1], b"nap1.5")))
    before = sum(psutil.Process(worker).num_ctx_switches())
    caller.start()
    wait_until(lambda: sum(psutil.Process(worker).num_ctx_switches()) > before + 2, BOUND)
    daemon.signal(signal.SIGTERM)
    caller.join(BOUND)
    assert said == [b"nap1.5"]
    assert daemon.wait(BOUND) == EXIT_OK
    daemon.await_gone(BOUND)


def test_what_waits_at_stages(
    pool: Start, redis: Redis, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command shows what waits, what failed and who serves it, in a table and in JSON."""
    command = pool(
        "-n", "1", "-q", *QUICK, "--preload", "tests.acceptance.handlers", "flow.bad", name="POOL"
    )
    command.await_workers(1)
    Stage("flow.bad", url=url).push(b"x")
    Stage("flow.done", url=url).push(b"x", b"y")
    wait_until(lambda: redis.zcard("rq:failed:flow.bad") == 1, BOUND)
    wait_until(lambda: redis.keys("pysplash:pool:*"), BOUND)
    assert main(["stages", "-u", url, "--json"]) == EXIT_OK
    bad, done = json.loads(capsys.readouterr().out)
    assert (bad["name"], bad["waiting"], bad["failed"], len(bad["pools"])) == ("flow.bad", 0, 1, 1)
    assert (done["waiting"], done["pools"]) == (2, [])
    assert main(["stages", "-u", url]) == EXIT_OK
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][:4] == ["stage", "waiting", "running", "failed"]
    assert rows[2][:4] == ["flow.done", "2", "0", "0"]
    assert rows[2][-1] == "nobody"
