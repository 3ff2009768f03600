"""The framed door: one frame in, one call of one task, its raw bytes out, then the end.

A door with a token wants it first, in a frame of its own. A request that fails ends with a reset
connection: the protocol has no reply for errors, and an orderly end without bytes is an answer.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from pysplash.application.handlers import decode
from pysplash.client.requests import LARGE
from pysplash.errors import Busy, CallError, ConnectionFailed, FrameError, NotBytes
from pysplash.framed import HEADER, FrameReader, is_whole
from pysplash.gateway.admission import DoorLimit
from pysplash.gateway.auth import Logins
from pysplash.gateway.binding import shown
from pysplash.gateway.memory import Share
from pysplash.log import logger

from .pacing import CHUNK
from .peers import Peer, Peers

#: bytes of a request, or of an answer, up to which a call needs no task of its own
SMALL = 4096

log = logger("gateway")


def _tell(error: Exception) -> None:
    """Log why a request failed."""
    if isinstance(error, FrameError):
        log.debug("a framed request was refused: %s", error)
    elif isinstance(error, ConnectionFailed):
        log.warning("a framed request was lost: %s", error)
    else:
        log.info("a framed request failed: %s", error)


def _as_bytes(answer: Any) -> bytes:
    """Return what a call answered; raise :class:`NotBytes` for what is no base64 text either."""
    return answer if isinstance(answer, bytes) else decode(answer)


class FramedDoor:
    """Frames over TCP, to the task *task*."""

    kind = "framed"

    def __init__(
        self,
        listener: socket.socket,
        calls: DoorLimit,
        memory: Share,
        *,
        task: str,
        logins: Logins | None,
        limit: int,
        deadline: float,
        connections: int,
    ) -> None:
        self._listener = listener
        self._calls = calls
        self._memory = memory
        self._task = task
        self._logins = logins
        self._limit = limit
        self._deadline = deadline
        self._bundles = calls.bundles(task)
        self._peers = Peers(self._serve, b"", connections, deadline, self._take_on)

    @property
    def address(self) -> str:
        """Where it listens."""
        return shown(self._listener)

    async def open(self) -> None:
        """Open the door."""
        await self._peers.open(self._listener)

    async def close(self, seconds: float) -> None:
        """Close it; running calls may finish for *seconds*."""
        await self._peers.close(seconds)
        await self._bundles.close()

    # --- small requests that have arrived as a whole, as most do ---

    def _take_on(self, peer: Peer) -> bool:
        """Make a peer's call without a task, if nothing has to be waited for; return whether."""
        if self._logins is not None:
            return False
        data = peer.look(HEADER + SMALL)
        if not is_whole(data) or len(data) - HEADER > self._limit:
            return False
        if not self._calls.step_in():
            return False
        held = len(data)
        try:
            self._memory.take(held)
        except Busy:
            self._calls.leave()
            return False
        self._bundles.add(data[HEADER:], partial(self._answer_at_once, peer, held))
        return True

    def _answer_at_once(self, peer: Peer, held: int, answer: Any, error: Exception | None) -> None:
        """Send a peer its answer; a large one in a task of its own."""
        self._memory.free(held)
        self._calls.leave()
        if peer.over:
            return
        if error is not None:
            _tell(error)
            peer.reset()
        elif isinstance(answer, str | bytes) and len(answer) > SMALL:
            self._peers.serve(peer, partial(self._send_large, answer))
            return
        else:
            self._send_at_once(peer, answer)
        self._peers.let_go(peer)

    def _send_at_once(self, peer: Peer, told: Any) -> None:
        try:
            answer = _as_bytes(told)
            if peer.send_at_once(answer, last=True) == len(answer):
                peer.finish()
                return
        except NotBytes as error:
            _tell(error)
        except OSError as error:
            log.debug("a framed peer has disconnected: %s", error)
        peer.reset()  # so small an answer always fits the send buffer of a sound connection

    async def _send_large(self, answer: str | bytes, peer: Peer) -> None:
        await self._send(peer, await self._decoded(answer))

    # --- all others ---

    async def _serve(self, peer: Peer) -> None:
        busy = False
        try:
            answer = await self._answer(peer)
        except Busy:
            busy = True  # the request is released only beyond this block
        except (FrameError, CallError, ConnectionFailed, NotBytes) as error:
            _tell(error)
        else:
            await self._send(peer, answer)
            return
        if busy:
            await self._memory.pause()
        peer.reset()

    async def _answer(self, peer: Peer) -> bytes:
        held = 0
        try:
            until = asyncio.get_running_loop().time() + self._deadline
            payload, held = await self._request(peer, until)
            async with self._calls.admission(held):
                answer = await self._bundles.ask(payload)
        finally:
            self._memory.free(held)
        return await self._decoded(answer)

    async def _decoded(self, answer: Any) -> bytes:
        large = isinstance(answer, str) and len(answer) > LARGE
        return await asyncio.to_thread(decode, answer) if large else _as_bytes(answer)

    async def _send(self, peer: Peer, answer: bytes) -> None:
        self._memory.keep(len(answer))
        try:
            await peer.send(answer, last=True)
        finally:
            self._memory.free(len(answer))
        peer.finish()

    async def _request(self, peer: Peer, until: float) -> tuple[bytes, int]:
        """Return the payload of an authenticated request, and the bytes held for it."""
        if self._logins is not None:
            said, held = await self._frame(peer, self._logins.length, until, last=False)
            self._memory.free(held)
            if not self._logins.admit(peer.host, said):
                raise FrameError(
                    "the token is wrong, or the address is locked out after too many wrong ones"
                )
        return await self._frame(peer, self._limit, until, last=True)

    async def _frame(
        self, peer: Peer, limit: int, until: float, *, last: bool
    ) -> tuple[bytes, int]:
        """Return the payload of one frame, and how many bytes are held for it.

        Bytes after the *last* frame are dropped.
        """
        frame = FrameReader(limit)
        held = 0
        try:
            while True:
                data = await self._read(peer, CHUNK if last else frame.wanted, until)
                if not data:
                    raise FrameError("the peer disconnected before its frame was complete")
                self._memory.take(len(data))
                held += len(data)
                payload = frame.first(data)
                if payload is not None:
                    return payload, held
        except BaseException:
            self._memory.free(held)
            raise

    async def _read(self, peer: Peer, count: int, until: float) -> bytes:
        """Return what a peer sends; raise TimeoutError at the time *until* of the loop's clock."""
        data = await peer.at_once(count)
        if data is not None:
            return data
        with self._peers.resting():
            async with asyncio.timeout_at(until):
                return await peer.read(count)
