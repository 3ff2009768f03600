"""The HTTP door: JSON-RPC 2.0 at POST /rpc, with h11 for the protocol.

h11 turns bytes into events and back and does nothing else, so the limits are the door's: one
deadline for a whole request, bytes counted as they come, a number of connections. The web servers
we looked at have a deadline for each read only, so a client that sends a byte now and then passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Sequence

import h11

from pysplash.errors import Busy
from pysplash.gateway.auth import Logins
from pysplash.gateway.binding import shown
from pysplash.gateway.memory import Share

from .pacing import CHUNK
from .peers import Peer, Peers
from .rpc import Rpc

#: bytes a request's head may have
HEAD = 16384
#: seconds between two requests over one connection
IDLE = 60.0
PATH = b"/rpc"


class Refusal(Exception):
    """A request is refused with an HTTP status, and its connection is closed."""

    def __init__(self, status: int, *headers: tuple[str, str]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class HttpDoor:
    """JSON-RPC over HTTP. *hosts* are what a Host header may say; None: anything."""

    kind = "HTTP"

    def __init__(
        self,
        listener: socket.socket,
        rpc: Rpc,
        memory: Share,
        *,
        hosts: Sequence[str] | None,
        logins: Logins | None,
        limit: int,
        deadline: float,
        connections: int,
    ) -> None:
        self._listener = listener
        self._rpc = rpc
        self._memory = memory
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._logins = logins
        self._limit = limit
        self._deadline = deadline
        self._peers = Peers(self._serve, _refusal(), connections, deadline)
        self._closing = False

    @property
    def address(self) -> str:
        """Where it listens."""
        return shown(self._listener)

    async def open(self) -> None:
        """Open the door."""
        await self._peers.open(self._listener)

    async def close(self, seconds: float) -> None:
        """Close it; running calls may finish for *seconds*."""
        self._closing = True
        await self._peers.close(seconds)

    async def _serve(self, peer: Peer) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        began = False
        while await self._is_there(peer, protocol, IDLE if began else self._deadline):
            began = True
            if not await self._turn(peer, protocol):
                break
            protocol.start_next_cycle()
        peer.finish()

    async def _is_there(self, peer: Peer, protocol: h11.Connection, seconds: float) -> bool:
        """Wait for the first bytes of a request; False if none comes."""
        if protocol.trailing_data[0]:
            return True
        try:
            with self._peers.resting():
                async with asyncio.timeout(seconds):
                    data = await peer.read(CHUNK)
        except TimeoutError:
            return False
        if data:
            protocol.receive_data(data)
        return bool(data)

    async def _turn(self, peer: Peer, protocol: h11.Connection) -> bool:
        """Answer one request; return whether another may follow."""
        held, busy = [0], False
        try:
            async with asyncio.timeout(self._deadline):
                asked = self._rpc.answer(await self._request(peer, protocol, held))
            answer = await asked
        except Refusal as refusal:
            await peer.send(_response(protocol, refusal.status, b"", refusal.headers))
            return False
        except Busy:
            busy = True  # the request is released only beyond this block
        except h11.RemoteProtocolError as error:
            with contextlib.suppress(h11.LocalProtocolError):
                await peer.send(_response(protocol, error.error_status_hint or 400, b""))
            return False
        finally:
            self._memory.free(held[0])
        if busy:
            await self._memory.pause()
            await peer.send(_response(protocol, 503, b"", [("Retry-After", "1")]))
            return False
        await self._send(peer, protocol, answer)
        return protocol.our_state is h11.DONE and protocol.their_state is h11.DONE

    async def _send(self, peer: Peer, protocol: h11.Connection, answer: bytes | None) -> None:
        last = [("Connection", "close")] if self._closing else []
        if answer is None:
            await peer.send(_response(protocol, 204, b"", last))
            return
        self._memory.keep(len(answer))
        try:
            await peer.send(_response(protocol, 200, answer, last))
        finally:
            self._memory.free(len(answer))

    async def _request(self, peer: Peer, protocol: h11.Connection, held: list[int]) -> bytes:
        """Return the body of one request, counting the bytes that are held for it."""
        body = bytearray()
        while True:
            event = protocol.next_event()
            if isinstance(event, h11.Request):
                self._check(event, peer.host)
                if protocol.they_are_waiting_for_100_continue:
                    waiting = h11.InformationalResponse(status_code=100, headers=[])
                    await peer.send(protocol.send(waiting) or b"")
            elif isinstance(event, h11.Data):
                self._memory.take(len(event.data))
                held[0] += len(event.data)
                if held[0] > self._limit:
                    raise Refusal(413)
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            elif event is h11.NEED_DATA:
                protocol.receive_data(await peer.read(CHUNK))
            else:
                raise EOFError("the peer disconnected before its request was complete")

    def _check(self, request: h11.Request, host: str) -> None:
        """Raise :class:`Refusal` for a request that is unauthorized or no JSON-RPC."""
        headers: dict[bytes, bytes] = dict(request.headers)
        if sum(len(name) + len(value) for name, value in request.headers) > HEAD:
            raise Refusal(431)
        if not self._is_for_us(headers.get(b"host", b"")) or b"origin" in headers:
            raise Refusal(403)
        if self._logins is not None:
            _check_login(self._logins, host, headers.get(b"authorization"))
        if request.target != PATH:
            raise Refusal(404)
        if request.method != b"POST":
            raise Refusal(405, ("Allow", "POST"))
        if b"content-length" in headers and b"transfer-encoding" in headers:
            raise Refusal(400)
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json" or b"content-encoding" in headers:
            raise Refusal(415)
        if int(headers.get(b"content-length", b"0")) > self._limit:
            raise Refusal(413)

    def _is_for_us(self, host: bytes) -> bool:
        """Return whether a Host header names this door; this refuses DNS rebinding."""
        text = host.decode("latin-1").lower()
        name = text[1 : text.find("]")] if text.startswith("[") else text.partition(":")[0]
        return self._hosts is None or name in self._hosts


def _check_login(logins: Logins, host: str, shown: bytes | None) -> None:
    """Raise :class:`Refusal` for a wrong token, or an address that is locked out."""
    if seconds := logins.refused(host):
        raise Refusal(429, ("Retry-After", str(math.ceil(seconds))))
    scheme, _, token = (shown or b"").partition(b" ")
    bears = shown is not None and logins.admit(host, token if scheme == b"Bearer" else b"")
    if not bears:
        raise Refusal(401, ("WWW-Authenticate", "Bearer"))


def _refusal() -> bytes:
    """Return the response for connections beyond the limit."""
    return _response(h11.Connection(h11.SERVER), 503, b"", [("Retry-After", "1")])


def _response(
    protocol: h11.Connection, status: int, body: bytes, more: Sequence[tuple[str, str]] = ()
) -> bytes:
    headers = list(more)
    if status != 204:
        headers.append(("Content-Length", str(len(body))))
    if body:
        headers.append(("Content-Type", "application/json"))
    if status >= 400:
        headers.append(("Connection", "close"))
    head = h11.Response(status_code=status, headers=headers)
    parts = [protocol.send(head), protocol.send(h11.Data(data=body)) if body else b""]
    return b"".join(part or b"" for part in [*parts, protocol.send(h11.EndOfMessage())])
