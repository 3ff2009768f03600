"""A process for each door: what they share, what becomes of one that dies, how all of them end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import zmq
from redis import Redis
from rq import Queue

from pysplash import DoorClosed, framed
from pysplash.errors import EXIT_CRASH_LOOP, EXIT_OK, EXIT_USAGE
from pysplash.gateway.processes import MOST
from tests.acceptance.command import READY, ROOT, Command, Start
from tests.integration.gateways import announce, dial, hear
from tests.integration.rq_life import work, workers
from tests.waiting import wait_until

#: seconds for one thing that has to happen, on a busy machine
BOUND = 30.0
FRAMED = ("--tcp", "127.0.0.1:0", "--handler", "it.double")
DOORS = (*FRAMED, "--http", "127.0.0.1:0", "--zmq", "tcp://127.0.0.1:0")
CALL = b'{"jsonrpc": "2.0", "method": "it.square", "params": [3], "id": 1}'


def announced(gateway: Command) -> dict[str, str]:
    """Return where all doors are, as the command says once they are open."""
    pattern = r"(\w+) door at (\S+)"
    count = sum(gateway.arguments.count(flag) for flag in ("--tcp", "--http", "--zmq"))
    wait_until(lambda: len(re.findall(pattern, gateway.out)) == count, READY, "the doors")
    return dict(re.findall(pattern, gateway.out))


def post(body: bytes, token: bytes = b"sesame") -> bytes:
    """Return a call over HTTP."""
    head = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return (
        head + b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (token, len(body)) + body
    )


def door_processes(gateway: Command) -> dict[str, int]:
    """Return the id of the process of each door, by where it is; of one that follows, its own."""
    found = {}
    for child in psutil.Process(gateway.process.pid).children():
        for one in child.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                found[f"{one.laddr.ip}:{one.laddr.port}"] = child.pid
    return found


def is_refused(address: str, most: bytes) -> bool:
    """Return whether a request that lacks its end is refused before its end is due."""
    with dial(address) as peer:
        peer.settimeout(5)
        try:
            peer.sendall(most)
            hear(peer)
        except TimeoutError:
            return False
        except OSError:
            return True
    raise AssertionError("half a request was answered")


def test_a_door_outlives_its_process(splash: Start, redis: Redis, queue: Queue, url: str) -> None:
    """One that is killed is followed by another at the same address; the others go on."""
    gateway = splash("serve", *DOORS, "-u", url)
    at = announced(gateway)
    places = {kind: place.removeprefix("tcp://") for kind, place in at.items()}
    assert len(set(places.values())) == 3
    assert all(not place.endswith(":0") for place in places.values())
    before = door_processes(gateway)
    assert before.keys() == set(places.values())  # each process has its own and nothing else
    for kind in ("framed", "ZeroMQ"):
        os.kill(before[places[kind]], signal.SIGKILL)
        gateway.says(rf"the process of the {kind} door has ended \(killed by SIGKILL\)")
    announce(redis)
    with workers(queue, 1):
        assert framed.request(at["framed"], b"after", BOUND) == b"afterafter"
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger, req.rcvtimeo = 0, int(BOUND * 1000)
        req.connect(at["ZeroMQ"])
        req.send(b'{"jsonrpc": "2.0", "method": "not a name", "id": 1}')
        assert b"-32601" in req.recv()
    after = door_processes(gateway)
    assert after.keys() == before.keys()
    kept = [kind for kind in places if before[places[kind]] == after[places[kind]]]
    assert kept == ["HTTP"]
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(BOUND) == EXIT_OK
    gateway.await_gone(BOUND)


def test_a_door_whose_processes_die_again_and_again(splash: Start, url: str) -> None:
    """That ends the gateway, with a status and a line that say so, and leaves nothing."""
    gateway = splash("serve", *FRAMED, "--http", "127.0.0.1:0", "-u", url)
    at = announced(gateway)["HTTP"]
    for count in range(1, MOST + 1):
        pid = wait_until(lambda: door_processes(gateway).get(at), BOUND)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        if count < MOST:
            said = "the process of the HTTP door has ended"
            wait_until(lambda: gateway.err.count(said) >= count, BOUND)  # noqa: B023
    assert gateway.wait(BOUND) == EXIT_CRASH_LOOP
    assert f"HTTP door has ended {MOST} times" in gateway.err.splitlines()[-1]
    gateway.await_gone(BOUND)


def test_doors_end_with_the_gateway(splash: Start, url: str) -> None:
    """Nothing is left of a gateway that is killed, not even its doors."""
    gateway = splash("serve", *DOORS, "-u", url)
    at = announced(gateway)
    assert len(door_processes(gateway)) == 3
    assert len(gateway.processes()) == 4
    gateway.process.kill()
    gateway.process.wait(BOUND)
    gateway.await_gone(BOUND)
    with pytest.raises(OSError, match="refused"):
        dial(at["framed"])


@pytest.mark.parametrize("whom", ["the gateway", "all"])
def test_the_second_signal_ends_at_once(
    splash: Start, redis: Redis, queue: Queue, url: str, whom: str
) -> None:
    """After one TERM, to whomever, running calls may finish; after two nobody waits for them."""
    gateway = splash("serve", *DOORS, "--patience", "20", "-u", url)
    address = announced(gateway)["framed"]
    announce(redis)
    with dial(address) as peer:
        peer.sendall(framed.pack(b"call"))
        wait_until(lambda: queue.count == 1, BOUND)
        if whom == "all":  # as terminals do, and service managers
            os.killpg(gateway.process.pid, signal.SIGTERM)
        else:
            gateway.signal(signal.SIGTERM)
        gateway.says("closing framed")
        if whom == "all":
            work(queue)
            assert hear(peer) == b"callcall"
        else:
            gateway.signal(signal.SIGTERM)
            with pytest.raises(ConnectionResetError):
                hear(peer)
    assert gateway.wait(BOUND) == EXIT_OK
    gateway.await_gone(BOUND)


@pytest.mark.parametrize("kind", ["--http", "--zmq"])
def test_one_door_that_cannot_be_opened(splash: Start, url: str, kind: str) -> None:
    """A port that is taken keeps all doors shut, with one line that says which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        endpoint = f"tcp://{place}" if kind == "--zmq" else place
        gateway = splash("serve", *FRAMED, kind, endpoint, "-u", url)
        assert gateway.wait(BOUND) == EXIT_USAGE
    assert f"cannot listen at {endpoint} (Address already in use" in gateway.err.splitlines()[-1]
    assert gateway.out == ""
    gateway.await_gone(BOUND)


def test_what_doors_share(splash: Start, redis: Redis, queue: Queue, url: str) -> None:
    """Calls on their way, memory, and wrong tokens: one measure for all processes."""
    bounds = ("--max-memory", "1500KB", "--handler", "it.double", "--http", "127.0.0.1:0")
    gateway = splash("serve", "--tcp", "127.0.0.1:0", *bounds, "-u", url, PYSPLASH_TOKEN="sesame")
    at = announced(gateway)
    login = framed.pack(b"sesame")
    announce(redis)
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(dial(at["HTTP"]))
        http.sendall(post(CALL + b" " * 900_000))
        wait_until(lambda: queue.count == 1, BOUND)
        assert is_refused(at["framed"], login + framed.pack(b"x" * 700_000)[:-1])
        for _ in range(12):
            peer = stack.enter_context(dial(at["framed"]))
            peer.sendall(login + framed.pack(b"flood"))
        wait_until(lambda: queue.count == 5, BOUND)
        last = stack.enter_context(dial(at["framed"]))
        last.sendall(login + b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionResetError):  # all before it have been seen to
            hear(last)
        assert queue.count == 5  # four of the framed door, beside one of the other

        for _ in range(9):
            with dial(at["HTTP"]) as guesser:
                guesser.sendall(post(CALL, b"wrong"))
                assert guesser.recv(65536).startswith(b"HTTP/1.1 401")
        with pytest.raises(DoorClosed):
            framed.request(at["framed"], b"", BOUND, token="friend")
        gateway.says("10 wrong tokens in a row from 127.0.0.1")
        with dial(at["HTTP"]) as guesser:
            guesser.sendall(post(CALL))
            assert guesser.recv(65536).startswith(b"HTTP/1.1 429")


ALONE = """\
import os, psutil, signal, sys, threading
import pysplash
stop = threading.Event()
if sys.argv[2] == "threads":
    threading.Thread(target=stop.wait).start()

def opened(gateway):
    print(len(gateway.addresses), len(psutil.Process().children()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

doors = {"tcp": "127.0.0.1:0", "handler": "a:b", "http": "127.0.0.1:0"}
print(pysplash.Gateway(sys.argv[1], **doors).run(opened))
stop.set()
"""


@pytest.mark.parametrize(("threads", "children"), [("threads", 0), ("none", 2)])
def test_a_program_with_threads_is_not_forked(url: str, threads: str, children: int) -> None:
    """All doors are then in the one process; without threads each has its own."""
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, url, threads],
        capture_output=True,
        text=True,
        timeout=2 * BOUND,
        cwd=ROOT,
        check=False,
    )
    assert (ran.stdout.split(), ran.stderr) == (["2", str(children), "0"], "")


HASTY = """\
import sys
from pysplash import Gateway
from pysplash.gateway import processes, watchdog
watchdog.HUNG = processes.HUNG = 2.0
print(Gateway(sys.argv[1], http="127.0.0.1:0", zmq="tcp://127.0.0.1:0").run(
    lambda gateway: print(gateway.addresses["HTTP"], flush=True)))
"""


def test_a_door_that_hangs(url: str) -> None:
    """A process that is there and does not turn is killed and followed, as a dead one is."""
    with subprocess.Popen(
        [sys.executable, "-c", HASTY, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as gateway:
        assert gateway.stdout is not None
        try:
            place = gateway.stdout.readline().strip()
            parent = psutil.Process(gateway.pid)
            held = [
                child
                for child in parent.children()
                if any(
                    one.laddr.port == int(place.rpartition(":")[2])
                    for one in child.net_connections("inet")
                    if one.laddr
                )
            ]
            assert len(held) == 1
            held[0].suspend()
            wait_until(lambda: not held[0].is_running(), BOUND, "the end of what hangs")
            with dial(place) as peer:
                peer.settimeout(BOUND)
                peer.sendall(post(b"[]"))
                assert peer.recv(65536).startswith(b"HTTP/1.1 200")
        finally:
            gateway.terminate()
        assert gateway.stdout.read().split() == [str(EXIT_OK)]


def test_endpoints_in_the_file_system_are_taken_over(
    splash: Start, url: str, tmp_path: Path
) -> None:
    """Whoever follows the killed process of such a door answers there."""
    path = tmp_path / "door"
    gateway = splash("serve", "--zmq", f"ipc://{path}", "--http", "127.0.0.1:0", "-u", url)
    http = announced(gateway)["HTTP"]
    children = {child.pid for child in psutil.Process(gateway.process.pid).children()}
    (victim,) = children - {door_processes(gateway)[http]}
    os.kill(victim, signal.SIGKILL)
    gateway.says("the process of the ZeroMQ door has ended")
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger, req.rcvtimeo = 0, int(BOUND * 1000)
        req.connect(f"ipc://{path}")
        req.send(b'{"jsonrpc": "2.0", "method": "not a name", "id": 1}')
        assert b"-32601" in req.recv()
