"""The framed door on a real server: foreign peers, polite ones, slow ones, hostile ones."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from rq import Queue

from pysplash import CallTimeout, DoorClosed, Gateway, framed
from pysplash.gateway.admission import CALM, FEWEST, Dispatcher
from pysplash.gateway.auth import TRIES
from pysplash.gateway.memory import REFUSING, DoorCounts, Memory
from pysplash.gateway.shutdown import Shutdown
from tests.integration.gateways import BOUND, announce, dial, hear, opened, reset, said
from tests.integration.rq_life import ThreadWorker, work, workers
from tests.servers import own_server
from tests.waiting import wait_until

LIMIT = 1000


def frame(data: bytes) -> bytes:
    """Return a frame as any language makes one."""
    return struct.pack("!I", len(data)) + data


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    """One server for all tests of this module, which leave nothing running."""
    with own_server() as server:
        yield server.url


@pytest.fixture
def url(shared: str) -> str:
    """The address of the shared server, emptied."""
    with Redis.from_url(shared) as redis:
        redis.flushall()
    return shared


@contextlib.contextmanager
def door(url: str, redis: Redis, **settings: object) -> Iterator[Gateway]:
    """Open a framed door to a handler that doubles what it is given."""
    announce(redis)
    told = {"limit": LIMIT, "tcp": "127.0.0.1:0", "handler": "it.double"} | settings
    with opened(url, **told) as gateway:
        yield gateway


def at_rest(gateway: Gateway) -> bool:
    """Return whether the gateway holds nothing for anybody."""
    assert gateway._dispatcher is not None
    return gateway._dispatcher.memory.held == 0


def test_foreign_peers_are_answered(url: str, redis: Redis, queue: Queue) -> None:
    """A peer with a socket gets the raw bytes and then the end, however its frame comes."""
    with door(url, redis) as gateway, workers(queue, 1):
        address = gateway.addresses["framed"]
        assert said(address, frame(b"abc")) == b"abcabc"
        assert said(address, frame(b"")) == b""
        assert said(address, frame(b"\x00\xff" * 500)) == b"\x00\xff" * 1000
        assert said(address, *(bytes([byte]) for byte in frame(b"slow"))) == b"slowslow"
        assert said(address, frame(b"abc"), end=True) == b"abcabc"
        assert said(address, frame(b"one") + frame(b"two")) == b"oneone"
        assert framed.request(address, b"ours", BOUND) == b"oursours"
        wait_until(lambda: at_rest(gateway), BOUND)


@pytest.mark.parametrize(
    ("serializer", "without", "sent"),
    [
        (None, "", b"\xffabc"),
        (None, "takes_bytes", "/2FiYw=="),
        ("json", "", "/2FiYw=="),
    ],
    ids=["bytes", "a pool of an earlier release", "JSON"],
)
def test_bytes_travel_as_the_pool_takes_them(
    url: str, redis: Redis, serializer: str | None, without: str, sent: bytes | str
) -> None:
    """As they are where the pool says that it knows that form, as base64 text where not."""
    pool = announce(redis, serializer=serializer)
    about = json.loads(str(redis.hget(pool.key, "about").decode()))  # type: ignore[union-attr]
    about.pop(without, None)
    redis.hset(pool.key, "about", json.dumps(about))
    queue = Queue("default", connection=redis, serializer=serializer)
    with opened(url, limit=LIMIT, tcp="127.0.0.1:0", handler="it.double") as gateway:
        with dial(gateway.addresses["framed"]) as peer:
            peer.sendall(frame(b"\xffabc"))
            wait_until(lambda: queue.count == 1, BOUND)
            assert [tuple(job.args) for job in queue.jobs] == [(sent,)]
            worker = ThreadWorker([queue], connection=redis, serializer=serializer)
            worker.work(burst=True, logging_level="ERROR")
            assert hear(peer) == b"\xffabc" * 2
        wait_until(lambda: at_rest(gateway), BOUND)


HELLO = bytes.fromhex("16030100f4010000f00303") + b"\x00" * 24


@pytest.mark.parametrize(
    ("sent", "end"),
    [
        (struct.pack("!I", LIMIT + 1), False),
        (struct.pack("!I", LIMIT + 1) + b"x" * (LIMIT + 1), False),
        (struct.pack("!I", 0x7FFFFFFF), False),
        (struct.pack("!I", 0xFFFFFFFF) + b"x" * 5000, False),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", False),
        (HELLO, False),
        (b"", True),
        (b"\x00", True),
        (frame(b"abc")[:-1], True),
        (frame(b"boom"), False),
        (frame(b"text"), False),
    ],
    ids=[
        "limit+1",
        "whole",
        "2G",
        "4G",
        "http",
        "tls",
        "nothing",
        "header",
        "body",
        "boom",
        "text",
    ],
)
def test_what_comes_to_nothing_ends_in_a_reset(
    url: str, redis: Redis, queue: Queue, sent: bytes, end: bool
) -> None:
    """A bad frame, a peer that leaves, a handler that fails: a reset, never an empty answer."""
    with door(url, redis) as gateway, workers(queue, 1):
        assert said(gateway.addresses["framed"], sent, end=end) is None
        assert said(gateway.addresses["framed"], frame(b"ok")) == b"okok"
        wait_until(lambda: at_rest(gateway), BOUND)


def test_a_request_has_an_end(url: str, redis: Redis, queue: Queue) -> None:
    """A byte now and then keeps nobody's door open: the whole request has one deadline."""
    with door(url, redis, deadline=0.5) as gateway, workers(queue, 1):
        address = gateway.addresses["framed"]
        with dial(address) as loris, dial(address) as silent:
            gone: list[bool] = []

            def trickle() -> bool:
                try:
                    loris.sendall(b"\x00")
                except OSError:
                    gone.append(True)
                return bool(gone)

            loris.sendall(struct.pack("!I", LIMIT))
            wait_until(trickle, BOUND)
            with pytest.raises(ConnectionResetError):
                hear(silent)
        assert said(address, frame(b"ok")) == b"okok"


def test_a_peer_that_never_reads(url: str, redis: Redis, queue: Queue) -> None:
    """An answer nobody takes is given up, and what it held with it."""
    big = 8 * 2**20
    settings = {"deadline": 0.5, "limit": big, "memory": 4 * big}
    with door(url, redis, **settings) as gateway, workers(queue, 1), socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(framed.split_address(gateway.addresses["framed"]))
        peer.settimeout(BOUND)
        peer.sendall(frame(b"x" * (big // 2)))
        assert peer.recv(1) == b"x", "the answer has begun"
        assert not at_rest(gateway)
        wait_until(lambda: at_rest(gateway), BOUND)


def test_a_door_takes_on_so_much(url: str, redis: Redis, queue: Queue) -> None:
    """Beyond its calls in flight a door says so at once; who is in is answered all the same."""
    with door(url, redis, inflight=1) as gateway:
        address = gateway.addresses["framed"]
        with dial(address) as first:
            first.sendall(frame(b"in"))
            wait_until(lambda: queue.count == 1, BOUND)
            assert said(address, frame(b"out")) is None
            work(queue)
            assert hear(first) == b"inin"
        with workers(queue, 1):
            assert said(address, frame(b"again")) == b"againagain"


def test_a_door_has_so_many_connections(
    url: str, redis: Redis, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond its connections a door resets new ones and says so rarely; who ends makes room."""
    with door(url, redis, connections=2) as gateway, workers(queue, 1):
        address = gateway.addresses["framed"]
        began = time.monotonic()
        with dial(address) as first, dial(address):
            for number in range(50):
                wait_until(lambda: said(address) is None, BOUND, f"refusal {number}")
            told = [line for line in caplog.messages if "connections refused" in line]
            reset(first)
            wait_until(lambda: said(address, frame(b"in")) == b"inin", BOUND)
        assert told[0] == "1 connections refused: 2 are open, which is the limit"
        assert len(told) <= 2 + time.monotonic() - began


def test_large_calls_count_as_several(url: str, redis: Redis, queue: Queue) -> None:
    """Of eight calls on their way two with half a megabyte are all; the third waits its turn."""
    size = 2**19 - 2**12
    with door(url, redis, limit=2**20) as gateway, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(dial(gateway.addresses["framed"])) for _ in range(3)]
        for peer in peers:
            peer.sendall(frame(b"x" * size))
        assert gateway._dispatcher is not None
        memory = gateway._dispatcher.memory
        wait_until(lambda: memory.held == 3 * (size + 4) and queue.count == 2, BOUND)
        small = stack.enter_context(dial(gateway.addresses["framed"]))
        small.sendall(frame(b"small"))
        wait_until(lambda: memory.held == 3 * (size + 4) + 9, BOUND)
        assert queue.count == 2
        with workers(queue, 1):
            assert [len(hear(peer)) for peer in peers] == [2 * size] * 3
            assert hear(small) == b"smallsmall"
        wait_until(lambda: at_rest(gateway), BOUND)


def test_a_flood_leaves_memory_to_other_doors(url: str, redis: Redis, queue: Queue) -> None:
    """Peers that hold all that one door may hold leave room at the other."""
    settings = {"http": "127.0.0.1:0", "limit": LIMIT, "memory": 4 * LIMIT, "deadline": 3 * BOUND}
    with door(url, redis, **settings) as gateway, contextlib.ExitStack() as stack:
        address = gateway.addresses["framed"]
        assert gateway._dispatcher is not None
        memory = gateway._dispatcher.memory
        for number in range(1, 4):
            holder = stack.enter_context(dial(address))
            holder.sendall(frame(b"x" * LIMIT)[:-10])
            wait_until(lambda held=number * (LIMIT - 6): memory.held == held, BOUND)  # type: ignore[misc]
        assert said(address, frame(b"y" * 100)) is None
        body = b'{"jsonrpc": "2.0", "method": "it.square", "params": [3], "id": 1}' + b" " * 500
        with workers(queue, 1):
            answered = said(
                gateway.addresses["HTTP"],
                b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
            )
        assert answered is not None
        assert b'"result":9' in answered


def test_bytes_that_wait_are_bounded(url: str, redis: Redis, queue: Queue) -> None:
    """Peers that send and stop hold so many bytes together; one more byte is refused."""
    with door(url, redis, memory=LIMIT) as gateway, workers(queue, 1):
        address = gateway.addresses["framed"]
        assert gateway._dispatcher is not None
        memory = gateway._dispatcher.memory
        with contextlib.ExitStack() as stack:
            holder = stack.enter_context(dial(address))
            holder.sendall(frame(b"x" * LIMIT)[:-10])
            wait_until(lambda: memory.held == LIMIT - 6, BOUND)
            assert said(address, frame(b"y" * 20)) is None
            assert memory.held <= LIMIT
            reset(holder)
        wait_until(lambda: memory.held == 0, BOUND)
        assert said(address, frame(b"y" * 20)) == b"y" * 40


def test_a_peer_that_goes_leaves_its_job(url: str, redis: Redis, queue: Queue) -> None:
    """A peer gone in the middle costs its answer, not the job, and the door goes on."""
    with door(url, redis) as gateway:
        peer = dial(gateway.addresses["framed"])
        peer.sendall(frame(b"gone"))
        wait_until(lambda: queue.count == 1, BOUND)
        reset(peer)
        (job,) = queue.jobs
        work(queue)
        assert job.get_status() == "finished"
        wait_until(lambda: at_rest(gateway), BOUND)


def test_a_token_comes_first(url: str, redis: Redis, queue: Queue) -> None:
    """A door with a token answers who says it in a frame before the request, and nobody else."""
    with door(url, redis, token="open sesame") as gateway, workers(queue, 1):
        address = gateway.addresses["framed"]
        assert said(address, frame(b"open sesame"), frame(b"x")) == b"xx"
        assert framed.request(address, b"y", BOUND, token="open sesame") == b"yy"
        for wrong in (b"open sesamE", b"", b"x" * 12, b"open"):
            assert said(address, frame(wrong), frame(b"x")) is None
        wait_until(lambda: at_rest(gateway), BOUND)
        assert queue.count == 0
        with pytest.raises(DoorClosed, match="busy, refused the request, or the handler failed"):
            framed.request(address, b"z", BOUND)


def test_wrong_tokens_shut_an_address_out(url: str, redis: Redis, queue: Queue) -> None:
    """Who guesses is refused at all doors of the gateway, with the right token too."""
    guessed = {"token": "open sesame", "http": "127.0.0.1:0"}
    with door(url, redis, **guessed) as gateway, workers(queue, 1):
        address = gateway.addresses["framed"]
        for number in range(TRIES - 1):
            assert said(address, frame(b"guess %05d" % number), frame(b"x")) is None
        assert said(address, frame(b"open sesame"), frame(b"x")) == b"xx"
        for number in range(TRIES):
            assert said(address, frame(b"guess %05d" % number), frame(b"x")) is None
        assert said(address, frame(b"open sesame"), frame(b"x")) is None
        asked = (
            b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer open sesame\r\n\r\n"
        )
        refused = said(gateway.addresses["HTTP"], asked) or b""
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: " in refused
        assert queue.count == 0
        wait_until(lambda: at_rest(gateway), BOUND)


def test_nobody_there(url: str, redis: Redis) -> None:
    """A call that is late, a caller that gives up, no pool, no door: each ends, and says so."""
    with door(url, redis, timeout=0.2) as gateway:
        address = gateway.addresses["framed"]
        assert said(address, frame(b"late")) is None
        assert redis.llen("rq:queue:default") == 0
    with door(url, redis, drain=0.2) as gateway:
        with pytest.raises(CallTimeout, match=r"within 0\.2 s"):
            framed.request(gateway.addresses["framed"], b"late", 0.2)
        redis.delete("pysplash:pool:hand")
        wait_until(lambda: said(gateway.addresses["framed"], frame(b"x")) is None, BOUND)
    with pytest.raises(DoorClosed, match="Connection refused"):
        framed.request(gateway.addresses["framed"], b"x", BOUND)


def test_closing_lets_running_calls_finish(url: str, redis: Redis, queue: Queue) -> None:
    """A gateway that ends takes no more connections and answers those it has taken on."""
    with contextlib.ExitStack() as stack:
        with door(url, redis) as gateway:
            peer = stack.enter_context(dial(gateway.addresses["framed"]))
            peer.sendall(frame(b"last"))
            wait_until(lambda: queue.count == 1, BOUND)
            stack.enter_context(_later(gateway, queue))
            idle = stack.enter_context(dial(gateway.addresses["framed"]))
        assert hear(peer) == b"lastlast"
        with pytest.raises(ConnectionResetError):
            hear(idle)


@contextlib.contextmanager
def _later(gateway: Gateway, queue: Queue) -> Iterator[None]:
    """Run what is queued once the gateway takes no more connections."""

    def run() -> None:
        wait_until(lambda: _closed(gateway.addresses["framed"]), BOUND)
        work(queue)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


def _closed(address: str) -> bool:
    try:
        dial(address).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it was closing just then
        return True
    return False


def test_a_flood_at_one_door_waits_at_that_door(url: str, redis: Redis, queue: Queue) -> None:
    """However many ask at one door, only so many of its calls stand in line before others'."""
    with door(url, redis, http="127.0.0.1:0") as gateway, contextlib.ExitStack() as stack:
        address = gateway.addresses["framed"]
        peers = [stack.enter_context(dial(address)) for _ in range(24)]
        for peer in peers:
            peer.sendall(frame(b"flood"))
        wait_until(lambda: queue.count == 8, BOUND)
        http = stack.enter_context(dial(gateway.addresses["HTTP"]))
        body = b'{"jsonrpc": "2.0", "method": "it.square", "params": [3], "id": 1}'
        http.sendall(
            b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        wait_until(lambda: queue.count == 9, BOUND)
        with workers(queue, 1):
            assert b'"result":9' in http.recv(65536)
            assert [hear(peer) for peer in peers] == [b"floodflood"] * len(peers)


def test_doors_in_use_divide_what_is_on_its_way(url: str, redis: Redis, queue: Queue) -> None:
    """A door alone has eight calls in line; one that comes to a second in use has four."""
    with door(url, redis, http="127.0.0.1:0") as gateway, contextlib.ExitStack() as stack:
        http = stack.enter_context(dial(gateway.addresses["HTTP"]))
        call = b'{"jsonrpc": "2.0", "method": "it.square", "params": [3], "id": 1}'
        http.sendall(
            b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(call) + call
        )
        wait_until(lambda: queue.count == 1, BOUND)
        peers = [stack.enter_context(dial(gateway.addresses["framed"])) for _ in range(12)]
        for peer in peers:
            peer.sendall(frame(b"flood"))
        assert gateway._dispatcher is not None
        memory = gateway._dispatcher.memory
        wait_until(lambda: memory.held >= 12 * 9 and queue.count == 5, BOUND)
        assert queue.count == 5
        with workers(queue, 1):
            assert [hear(peer) for peer in peers] == [b"floodflood"] * len(peers)


@pytest.mark.parametrize("crowd", [False, True])
def test_a_crowd_at_one_door_goes_by_ticks(url: str, crowd: bool) -> None:
    """While another door is in use, those of a crowd are let go together, a little later."""
    few = FEWEST + 3
    count = few + CALM * FEWEST if crowd else few

    async def come() -> None:
        counts = DoorCounts(2)
        memory = Memory(100, counts)
        dispatcher = Dispatcher(url, None, timeout=1, patience=0, counts=counts, memory=memory)
        door_limit = dispatcher.door_limit(0, count)
        turns = [asyncio.ensure_future(door_limit.enter(1)) for _ in range(count)]
        await asyncio.sleep(0)
        assert sum(turn.done() for turn in turns) == FEWEST
        door_limit.leave(1)
        await turns[FEWEST]  # nobody else is there: at once
        counts.taken[1] = 1
        for _ in range(FEWEST):
            door_limit.leave(1)
        await asyncio.sleep(0)
        assert sum(turn.done() for turn in turns) == (FEWEST + 1 if crowd else count)
        await asyncio.wait_for(asyncio.gather(*turns[:few]), BOUND)
        for turn in turns:
            turn.cancel()
        await dispatcher.close()

    asyncio.run(come())


def test_the_more_are_refused_the_later_they_are_told() -> None:
    """And once all have been told, the next is told nearly at once again."""

    async def refuse(count: int) -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*[share.pause() for _ in range(count)])
        return asyncio.get_running_loop().time() - began

    share = Memory(100, DoorCounts(1)).share(0)
    tick = time.get_clock_info("monotonic").resolution
    for _ in range(2):
        assert asyncio.run(refuse(20)) >= 20 * REFUSING - tick
    assert min(asyncio.run(refuse(1)) for _ in range(20)) < 20 * REFUSING


def test_a_loop_of_somebodys_own_stays_as_it_is(url: str, redis: Redis) -> None:
    """A gateway that serves in a program's loop sets nothing for all of that program."""
    gateway = Gateway(url, tcp="127.0.0.1:0", handler="it.double")

    async def serve(own: ThreadPoolExecutor) -> None:
        loop, shutdown = asyncio.get_running_loop(), Shutdown()
        loop.set_default_executor(own)
        await gateway.serve(shutdown, lambda _: shutdown.ask())
        assert vars(loop)["_default_executor"] is own

    gc.unfreeze()  # what other tests have frozen in this process may end meanwhile
    before = sys.getswitchinterval()
    with ThreadPoolExecutor(1) as own:
        asyncio.run(serve(own))
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (before, 0)


def test_the_caller_uses_whatever_sockets_there_are(
    url: str, redis: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets that were replaced before the call, as gevent and eventlet do, are the ones used."""
    heard: list[int] = []

    class Cooperative(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            heard.append(size)
            return super().recv(size, flags)

    with door(url, redis) as gateway, workers(queue, 1):
        monkeypatch.setattr(socket, "socket", Cooperative)
        assert framed.request(gateway.addresses["framed"], b"green", BOUND) == b"greengreen"
        monkeypatch.undo()
    assert heard
