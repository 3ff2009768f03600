"""JSON-RPC over ZeroMQ on a real server, with peers that are nothing but pyzmq or a socket."""

from __future__ import annotations

import base64
import contextlib
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth
from redis import Redis
from rq import Queue

from pysplash import ConfigError, Gateway, UnsafeBind
from pysplash.gateway.admission import FEWEST
from pysplash.gateway.doors.zmq import REFUSED, TOLD
from tests.integration.gateways import BOUND, announce, opened, said
from tests.integration.rq_life import work, workers
from tests.waiting import wait_until

LIMIT = 2000


@contextlib.contextmanager
def door(url: str, redis: Redis, endpoint: str = "tcp://127.0.0.1:*", **more: Any) -> Iterator[str]:
    """Open a ZeroMQ door; yield where it is."""
    announce(redis)
    with opened(url, zmq=endpoint, limit=LIMIT, **more) as gateway:
        yield gateway.addresses["ZeroMQ"]


@contextlib.contextmanager
def peer(kind: int, address: str, **options: Any) -> Iterator[zmq.Socket[bytes]]:
    """Yield a socket of *kind* at *address*."""
    with zmq.Context() as context, context.socket(kind) as connection:
        for name, value in {"linger": 0, "rcvtimeo": int(BOUND * 1000), **options}.items():
            setattr(connection, name, value)
        connection.connect(address)
        yield connection


def request(number: int, **more: Any) -> bytes:
    """Return a call of a square."""
    call = {"jsonrpc": "2.0", "method": "it.square", "params": [number], "id": number}
    return json.dumps({**call, **more}).encode()


def test_req_and_dealer_peers(url: str, redis: Redis, queue: Queue) -> None:
    """A REQ peer, a DEALER one with the empty part and one without have the answers they asked."""
    with door(url, redis) as address, workers(queue, 1):
        with peer(zmq.REQ, address) as req:
            for number in range(3):
                req.send(request(number))
                assert json.loads(req.recv())["result"] == number**2
            req.send(b"\x80\x04K\x01.")
            assert json.loads(req.recv())["error"]["code"] == -32700
        with peer(zmq.DEALER, address) as dealer:
            for number in range(20):
                dealer.send_multipart([b"", request(number)] if number % 2 else [request(number)])
            answers = [dealer.recv_multipart() for _ in range(20)]
            assert sorted(json.loads(parts[-1])["result"] for parts in answers) == [
                number**2 for number in range(20)
            ]
            assert sum(len(parts) == 2 and parts[0] == b"" for parts in answers) == 10
            dealer.send(json.dumps([json.loads(request(2)), json.loads(request(3))]).encode())
            assert [one["result"] for one in json.loads(dealer.recv())] == [4, 9]


def test_odd_messages(url: str, redis: Redis, queue: Queue) -> None:
    """Messages in a form nobody meant are dropped or end their connection; the door goes on."""
    with door(url, redis) as address, workers(queue, 1):
        with peer(zmq.DEALER, address) as dealer:
            dealer.send_multipart([b"x", request(1)])
            dealer.send_multipart([b"", b"", request(1)])
            dealer.send_multipart([b"part"] * 1000)
            dealer.send_multipart([b"", b""])
            assert json.loads(dealer.recv_multipart()[-1])["error"]["code"] == -32700
            dealer.send(request(2))
            assert json.loads(dealer.recv())["result"] == 4
        with peer(zmq.DEALER, address, rcvtimeo=300) as big:
            big.send(b"x" * (LIMIT + 1))
            with pytest.raises(zmq.Again):
                big.recv()
        plain = address.removeprefix("tcp://")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x00\x00\x00\x03abc"):
            said(plain, garbage, end=True)
        with peer(zmq.REQ, address) as req:
            req.send(request(3))
            assert json.loads(req.recv())["result"] == 9


def test_a_peer_that_goes_and_one_too_many(url: str, redis: Redis, queue: Queue) -> None:
    """A peer gone before its answer costs the answer only; beyond its calls the door is busy."""
    with door(url, redis, inflight=1) as address:
        with peer(zmq.DEALER, address) as dealer:
            dealer.send(request(5))
            wait_until(lambda: queue.count == 1, BOUND)
            with peer(zmq.REQ, address) as req:
                req.send(request(6))
                answer = json.loads(req.recv())
                assert (answer["error"]["code"], answer["id"]) == (-32000, 6)
        work(queue)
        with workers(queue, 1), peer(zmq.REQ, address) as req:
            req.send(request(7))
            assert json.loads(req.recv())["result"] == 49


def test_answers_that_nobody_reads_count(url: str, redis: Redis, queue: Queue) -> None:
    """Large answers that libzmq still has are held; then for no longer than one may take."""
    big = 2**20
    announce(redis)
    told: dict[str, Any] = {"limit": big, "memory": 8 * big, "deadline": 1.0}
    with opened(url, zmq="tcp://127.0.0.1:*", **told) as gateway, workers(queue, 1):
        assert gateway._dispatcher is not None
        memory = gateway._dispatcher.memory
        address = gateway.addresses["ZeroMQ"]
        text = base64.b64encode(b"x" * (big // 2)).decode()
        call = {"jsonrpc": "2.0", "method": "it.double", "params": [text], "id": 1}
        with peer(zmq.DEALER, address, rcvhwm=1, rcvbuf=4096) as dealer:
            for _ in range(6):
                dealer.send(json.dumps(call).encode())
            wait_until(lambda: memory.held > 6 * len(text), BOUND, "answers that wait")
            wait_until(lambda: memory.held == 0, BOUND, "the end of their time")
            assert len(json.loads(dealer.recv())["result"]) > 2 * len(text) - 8


def test_a_door_that_is_full_says_so(url: str, redis: Redis, queue: Queue) -> None:
    """Messages beyond the memory of their door are answered busy; then it goes on."""
    bounds: dict[str, Any] = {"memory": LIMIT, "inflight": 100}
    with door(url, redis, **bounds) as address, peer(zmq.DEALER, address) as dealer:
        for number in range(3):
            dealer.send(request(number) + b" " * (LIMIT // 2))
        for _ in range(2):
            assert json.loads(dealer.recv())["error"]["code"] == -32000
        work(queue)
        assert json.loads(dealer.recv())["result"] == 0
        with workers(queue, 1):
            dealer.send(request(4))
            assert json.loads(dealer.recv())["result"] == 16


def test_a_refused_message_costs_a_pause(url: str, redis: Redis, queue: Queue) -> None:
    """For so long, by its bytes, nothing is taken in: who is refused comes again at once."""
    big, count = 2**20, 4
    announce(redis)
    told: dict[str, Any] = {"limit": big, "memory": big}
    with (
        opened(url, zmq="tcp://127.0.0.1:*", **told) as gateway,
        peer(zmq.DEALER, gateway.addresses["ZeroMQ"]) as dealer,
    ):
        dealer.send(request(1))
        wait_until(lambda: queue.count == 1, BOUND)
        began = time.monotonic()
        for _ in range(count):
            dealer.send(b" " * big)
        for _ in range(count):
            assert json.loads(dealer.recv())["error"]["code"] == -32000
        passed = time.monotonic() - began
        tick = time.get_clock_info("monotonic").resolution
        assert passed >= (count - 1) * (big * REFUSED - tick)
        work(queue)
        assert json.loads(dealer.recv())["result"] == 1


def test_dropped_answers_are_told_of_rarely(
    url: str, redis: Redis, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that goes before its many answers costs a line a second, not a line for each."""
    count = 40
    caplog.set_level("INFO", "pysplash")
    with door(url, redis) as address:
        began = time.monotonic()
        with peer(zmq.DEALER, address) as dealer:
            for number in range(count):
                dealer.send(request(number))
            wait_until(lambda: queue.count == FEWEST, BOUND, "as many calls as go at once")
        with workers(queue, 1), peer(zmq.REQ, address) as req:
            req.send(request(7))
            assert json.loads(req.recv())["result"] == 49
        told = [line for line in caplog.messages if "answers were dropped" in line]
        assert told[0].startswith("1 answers were dropped, the last one: ")
        assert len(told) <= 1 + (time.monotonic() - began) / TOLD


def test_an_ipc_door_is_its_users_own(url: str, redis: Redis, queue: Queue, tmp_path: Path) -> None:
    """A door in the file system answers, and nobody else may even knock."""
    path = tmp_path / "door"
    with door(url, redis, f"ipc://{path}") as address, workers(queue, 1):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with peer(zmq.REQ, address) as req:
            req.send(request(4))
            assert json.loads(req.recv())["result"] == 16


def test_curve_lets_known_keys_in(url: str, redis: Redis, queue: Queue, tmp_path: Path) -> None:
    """With CURVE only peers whose keys are in the folder are heard."""
    known = tmp_path / "known"
    known.mkdir()
    _, secret = zmq.auth.create_certificates(tmp_path, "server")
    friend_file, friend_secret = zmq.auth.create_certificates(tmp_path, "friend")
    _, stranger_secret = zmq.auth.create_certificates(tmp_path, "stranger")
    Path(friend_file).rename(known / "friend.key")
    server_key, _ = zmq.auth.load_certificate(secret)

    def keys(file: str) -> dict[str, Any]:
        public, private = zmq.auth.load_certificate(file)
        return {
            "curve_publickey": public,
            "curve_secretkey": private,
            "curve_serverkey": server_key,
        }

    curve = {"curve_secret": str(secret), "curve_clients": str(known)}
    with door(url, redis, **curve) as address, workers(queue, 1):
        with peer(zmq.REQ, address, **keys(friend_secret)) as friend:
            friend.send(request(3))
            assert json.loads(friend.recv())["result"] == 9
        for options in ({}, keys(stranger_secret)):
            with peer(zmq.REQ, address, **options | {"rcvtimeo": 500}) as stranger:
                stranger.send(request(3))
                with pytest.raises(zmq.Again):
                    stranger.recv()
        with peer(zmq.REQ, address, **keys(friend_secret)) as friend:
            friend.send(request(4))
            assert json.loads(friend.recv())["result"] == 16


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"zmq": "tcp://0.0.0.0:0"}, UnsafeBind),
        ({"zmq": "tcp://*:0"}, UnsafeBind),
        ({"zmq": "tcp://*:0", "token": "x"}, UnsafeBind),
        ({"zmq": "inproc://door"}, ConfigError),
        ({"zmq": "ipc://"}, ConfigError),
        ({"zmq": "tcp://nowhere"}, ConfigError),
        ({"zmq": "ipc:///no/such/folder/door"}, ConfigError),
        ({"zmq": "tcp://127.0.0.1:0", "curve_clients": "/tmp"}, ConfigError),
        (
            {"zmq": "tcp://127.0.0.1:0", "curve_secret": "/none", "curve_clients": "/tmp"},
            ConfigError,
        ),
    ],
)
def test_doors_that_stay_shut(settings: dict[str, Any], error: type[Exception], url: str) -> None:
    """What must not be open, or cannot be, is refused before anything is served."""
    with pytest.raises(error):
        Gateway(url, **settings).run()
