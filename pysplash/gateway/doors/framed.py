"""The framed door: one frame in, one call of one task, the raw bytes it answers, the end.

A door with a token wants it first, in a frame of its own. What comes to nothing ends with a
reset connection: the protocol has no word for it, and an orderly end after no bytes is an answer.
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
from pysplash.gateway.admission import Lane
from pysplash.gateway.auth import Logins
from pysplash.gateway.binding import shown
from pysplash.gateway.memory import Share
from pysplash.log import logger

from .pacing import CHUNK
from .peers import Peer, Peers

#: bytes of a request, or of an answer, up to which a call is made in passing
SMALL = 4096

log = logger("gateway")


def _tell(error: Exception) -> None:
    """Say what a request came to."""
    if isinstance(error, FrameError):
        log.debug("a framed request was refused: %s", error)
    elif isinstance(error, ConnectionFailed):
        log.warning("a framed request was lost: %s", error)
    else:
        log.info("a framed request came to nothing: %s", error)


def _as_bytes(answer: Any) -> bytes:
    """Return what a call answered; raise :class:`NotBytes` for what is no base64 text either."""
    return answer if isinstance(answer, bytes) else decode(answer)


class FramedDoor:
    """Frames over TCP, to the task *task*."""

    kind = "framed"

    def __init__(
        self,
        listener: socket.socket,
        lane: Lane,
        memory: Share,
        *,
        task: str,
        logins: Logins | None,
        limit: int,
        deadline: float,
        connections: int,
    ) -> None:
        self._listener = listener
        self._lane = lane
        self._memory = memory
        self._task = task
        self._logins = logins
        self._limit = limit
        self._deadline = deadline
        self._bundles = lane.bundles(task)
        self._peers = Peers(self._serve, b"", connections, deadline, self._take_on)

    @property
    def address(self) -> str:
        """Where it listens."""
        return shown(self._listener)

    async def open(self) -> None:
        """Open the door."""
        await self._peers.open(self._listener)

    async def close(self, seconds: float) -> None:
        """Close it, once those who are in have their answers."""
        await self._peers.close(seconds)
        await self._bundles.close()

    # --- small requests that are there as a whole, as most are ---

    def _take_on(self, peer: Peer) -> bool:
        """Make a peer's call without a task of its own, if nothing has to be waited for."""
        if self._logins is not None:
            return False
        data = peer.look(HEADER + SMALL)
        if not is_whole(data) or len(data) - HEADER > self._limit:
            return False
        if not self._lane.step_in():
            return False
        held = len(data)
        try:
            self._memory.take(held)
        except Busy:
            self._lane.leave()
            return False
        self._bundles.add(data[HEADER:], partial(self._answer_at_once, peer, held))
        return True

    def _answer_at_once(self, peer: Peer, held: int, answer: Any, error: Exception | None) -> None:
        """Send a peer its answer; leave it to a task if that takes time."""
        self._memory.free(held)
        self._lane.leave()
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
            log.debug("a framed peer has gone: %s", error)
        peer.reset()  # a socket that has no room for so little has been treated strangely

    async def _send_large(self, answer: str | bytes, peer: Peer) -> None:
        await self._send(peer, await self._decoded(answer))

    # --- all others ---

    async def _serve(self, peer: Peer) -> None:
        busy = False
        try:
            answer = await self._answer(peer)
        except Busy:
            busy = True  # only beyond this block nothing holds the request any more
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
            async with self._lane.turn(held):
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
        """Return what a request carries, from one who may ask, and the bytes held for it."""
        if self._logins is not None:
            said, held = await self._frame(peer, self._logins.length, until, last=False)
            self._memory.free(held)
            if not self._logins.admit(peer.host, said):
                raise FrameError("the token is wrong, or too many before it were")
        return await self._frame(peer, self._limit, until, last=True)

    async def _frame(
        self, peer: Peer, limit: int, until: float, *, last: bool
    ) -> tuple[bytes, int]:
        """Return what one frame carries, and how many bytes are held for it.

        Of what comes after the *last* one nothing is kept.
        """
        frame = FrameReader(limit)
        held = 0
        try:
            while True:
                data = await self._read(peer, CHUNK if last else frame.wanted, until)
                if not data:
                    raise FrameError("the peer left before its frame was whole")
                self._memory.take(len(data))
                held += len(data)
                payload = frame.first(data)
                if payload is not None:
                    return payload, held
        except BaseException:
            self._memory.free(held)
            raise

    async def _read(self, peer: Peer, count: int, until: float) -> bytes:
        """Return what comes from a peer until a moment of the loop's clock."""
        data = await peer.at_once(count)
        if data is not None:
            return data
        with self._peers.resting():
            async with asyncio.timeout_at(until):
                return await peer.read(count)
