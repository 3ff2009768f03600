"""The ZeroMQ door: JSON-RPC 2.0 over a ROUTER, for REQ and DEALER peers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
import zmq.auth
from zmq.auth.asyncio import AsyncioAuthenticator

from pysplash.errors import Busy, ConfigError
from pysplash.framed import split_address
from pysplash.gateway.binding import check_bind
from pysplash.gateway.memory import Share
from pysplash.log import Seldom, logger

from .rpc import Rpc

#: the oldest libzmq whose handshake has no known hole
OLDEST = (4, 3, 5)
#: messages that wait for one peer, and from one (with fewer a CURVE handshake never ends): libzmq
#: holds the latter beyond what is counted
WAITING, AHEAD = 16, 2
#: messages, and bytes, that are read before other tasks get their turn
TURN, BULK = 16, 2**16
#: bytes from which on an answer is counted until libzmq has sent it, and seconds between two looks
LARGE, LOOK = 2**16, 0.02
#: seconds for which nothing is read, for each byte of a refused message: refused clients retry at
#: once
REFUSED = 0.1 / 2**20
#: seconds for which a full door reads nothing
FULL = 0.005
#: seconds between two log lines about dropped answers
TOLD = 1.0
#: milliseconds a handshake may take
HANDSHAKE = 5000

log = logger("gateway")


class ZmqDoor:
    """JSON-RPC over ZeroMQ at *endpoint*, with CURVE if *secret* and *clients* are given.

    *secret* is the file of the server's secret key, *clients* the folder of the public keys that
    may come in, both as ``zmq.auth`` writes them.
    """

    kind = "ZeroMQ"

    def __init__(
        self,
        endpoint: str,
        rpc: Rpc,
        memory: Share,
        *,
        secret: str | None,
        clients: str | None,
        limit: int,
        deadline: float,
    ) -> None:
        check_endpoint(endpoint, secret, clients)
        self._endpoint = endpoint
        self._rpc = rpc
        self._memory = memory
        self._keys = None if secret is None else _keys(secret)
        self._clients = clients
        self._limit = limit
        self._deadline = deadline
        self._context: zmq.asyncio.Context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket = self._context.socket(zmq.ROUTER)
        self._guard: AsyncioAuthenticator | None = None
        self._listening: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        #: answers dropped since that was logged last
        self._dropped, self._complaint = 0, Seldom(TOLD)
        #: large answers that libzmq still has: how it tells, bytes, and until when they count
        self._leaving: list[tuple[Any, int, float]] = []
        self._watching: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The endpoint, with the port that was chosen."""
        return str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))

    async def open(self) -> None:
        """Open the door; raise :class:`ConfigError` where the endpoint cannot be bound."""
        options = {
            zmq.MAXMSGSIZE: self._limit,
            zmq.HANDSHAKE_IVL: HANDSHAKE,
            zmq.RCVHWM: AHEAD,
            zmq.SNDHWM: WAITING,
            zmq.ROUTER_MANDATORY: 1,
            zmq.LINGER: 1000,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        if self._keys is not None:
            self._guard = AsyncioAuthenticator(self._context)
            self._guard.start()
            self._guard.configure_curve(domain="*", location=self._clients or "")
            self._socket.curve_publickey, self._socket.curve_secretkey = self._keys
            self._socket.curve_server = True
        before = os.umask(0o177)  # an ipc socket is this user's alone
        try:
            self._socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"cannot listen at {self._endpoint} ({error}): give another endpoint"
            ) from error
        finally:
            os.umask(before)
        self._listening = asyncio.create_task(self._listen())

    async def close(self, seconds: float) -> None:
        """Close it; running calls may finish for *seconds*."""
        for task in filter(None, (self._listening, self._watching)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._answering:
            await asyncio.wait(self._answering, timeout=seconds)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        if self._guard is not None:
            self._guard.stop()
        self._socket.close()
        self._context.destroy()

    async def _listen(self) -> None:
        messages = size = 0
        while True:
            *way, body = await self._socket.recv_multipart(copy=False)
            messages, size = messages + 1, size + len(body)
            await self._take([part.bytes for part in way[:2]], len(way), body)
            if messages >= TURN or size >= BULK:
                messages = size = 0
                await asyncio.sleep(FULL if self._rpc.is_full() else 0)

    async def _take(self, way: list[bytes], parts: int, body: Any) -> None:
        """Begin to answer a message, or refuse it; *parts* is how many precede its body."""
        size = len(body)
        plain = parts == 1 or (parts == 2 and not way[1])
        if not plain or size > self._limit:
            log.info(
                "dropped a message of %d parts: it is too large or no JSON-RPC request", parts + 1
            )
            return
        try:
            self._memory.take(size)
        except Busy:
            await self._send(way, self._rpc.busy())
            await asyncio.sleep(size * REFUSED)
            return
        task = asyncio.create_task(self._answer(way, body.bytes))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        task.add_done_callback(lambda _: self._memory.free(size))

    async def _answer(self, way: list[bytes], body: bytes) -> None:
        asked = self._rpc.answer(body)
        del body
        answer = await asked
        if answer is not None:
            await self._send(way, answer)

    def _drop(self, error: zmq.ZMQError) -> None:
        """Count an answer that could not be sent; log it once a second at most."""
        self._dropped += 1
        if self._complaint.due(asyncio.get_running_loop().time()):
            log.info("%d answers were dropped, the last one: %s", self._dropped, error)
            self._dropped = 0

    async def _send(self, way: list[bytes], answer: bytes) -> None:
        """Send an answer; it is dropped if the peer has gone or does not read."""
        size = len(answer)
        large = size >= LARGE
        try:
            tracker = await self._socket.send_multipart(
                [*way, answer], flags=zmq.DONTWAIT, copy=not large, track=large
            )
        except zmq.ZMQError as error:
            self._drop(error)
            return
        if large:
            self._memory.keep(size)
            until = asyncio.get_running_loop().time() + self._deadline
            self._leaving.append((tracker, size, until))
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Hold the bytes of large answers until they are sent, or their deadline is over."""
        while self._leaving:
            await asyncio.sleep(LOOK)
            now, left = asyncio.get_running_loop().time(), []
            for tracker, size, until in self._leaving:
                if tracker.done or now >= until:
                    self._memory.free(size)
                else:
                    left.append((tracker, size, until))
            self._leaving = left


def check_endpoint(endpoint: str, secret: str | None, clients: str | None) -> None:
    """Raise an error for an endpoint that is malformed, or public without keys."""
    kind, _, place = endpoint.partition("://")
    if kind not in ("ipc", "tcp") or not place:
        raise ConfigError(
            f"endpoint {endpoint!r} is not usable: give ipc:///path or tcp://HOST:PORT"
        )
    if (secret is None) != (clients is None):
        raise ConfigError("CURVE needs the server's key and a folder of clients' keys: give both")
    if kind == "tcp":
        host = "" if place.startswith("*") else split_address(place.replace("*", "0"))[0]
        check_bind("ZeroMQ", host, secret, "keys with --curve-secret and --curve-clients")
    version = zmq.zmq_version_info()
    if version < OLDEST:
        raise ConfigError(f"libzmq is {zmq.zmq_version()}: use 4.3.5 or newer")


def _keys(secret: str) -> tuple[bytes, bytes]:
    with contextlib.suppress(OSError, ValueError):
        public, private = zmq.auth.load_certificate(Path(secret))
        if private is not None:
            return public, private
    raise ConfigError(f"file {secret!r} holds no secret CURVE key: make one with zmq.auth")
