"""The framed door: one frame in, one call of one task, the raw bytes it answers, the end.

A door with a token wants it first, in a frame of its own. What comes to nothing ends with a
reset connection: the protocol has no word for it, and an orderly end after no bytes is an answer.
"""

from __future__ import annotations

import asyncio
import socket

from .binding import shown
from .drafts import LARGE
from .errors import Busy, CallError, ConnectionFailed, FrameError
from .exchange import Lane
from .handlers import decode, encode
from .log import logger
from .logins import Logins
from .pace import CHUNK
from .peers import Peer, Peers
from .shares import Share
from .wire import FrameReader

log = logger("gateway")


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
        self._peers = Peers(self._serve, b"", connections, deadline)

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

    async def _serve(self, peer: Peer) -> None:
        busy = False
        try:
            answer = await self._answer(peer)
        except Busy:
            busy = True  # only beyond this block nothing holds the request any more
        except FrameError as error:
            log.debug("a framed request was refused: %s", error)
        except CallError as error:
            log.info("a framed request came to nothing: %s", error)
        except ConnectionFailed as error:
            log.warning("a framed request was lost: %s", error)
        else:
            self._memory.keep(len(answer))
            try:
                await peer.send(answer, last=True)
            finally:
                self._memory.free(len(answer))
            peer.finish()
            return
        if busy:
            await self._memory.pause()
        peer.reset()

    async def _answer(self, peer: Peer) -> bytes:
        held = 0
        try:
            until = asyncio.get_running_loop().time() + self._deadline
            payload, held = await self._request(peer, until)
            large = held > LARGE
            async with self._lane.turn(held):
                asked = await asyncio.to_thread(encode, payload) if large else encode(payload)
                text: str = await self._lane.ask(self._task, (asked,))
        finally:
            self._memory.free(held)
        large = isinstance(text, str) and len(text) > LARGE
        return await asyncio.to_thread(decode, text) if large else decode(text)

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
