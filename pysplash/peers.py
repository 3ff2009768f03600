"""Peers: the connections of one stream door, so many at most, each with an end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from .log import logger

#: seconds for which a connection's own end is awaited, and bytes that are read meanwhile
LINGER, LINGER_BYTES = 1.0, 2**20
#: bytes a stream keeps for a door that does not read them yet
BUFFER = 65536
_RESET = struct.pack("ii", 1, 0)

log = logger("gateway")


class Peer:
    """One connection. *patience* is seconds an answer may take to leave."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float
    ) -> None:
        self.reader = reader
        self._writer = writer
        self._patience = patience

    async def send(self, data: bytes) -> None:
        """Send *data*; raise TimeoutError at a peer that does not read it."""
        self._writer.write(data)
        async with asyncio.timeout(self._patience):
            await self._writer.drain()

    async def finish(self) -> None:
        """Say that nothing more comes, and let the peer read what it has been sent.

        A connection that is closed over bytes nobody read is reset, answer and all.
        """
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._patience):
                self._writer.write_eof()
                await self._writer.drain()
            async with asyncio.timeout(LINGER):
                left = LINGER_BYTES
                while left > 0 and (data := await self.reader.read(BUFFER)):
                    left -= len(data)
        self._writer.close()

    def leave(self) -> None:
        """End the connection, whether the peer has read anything or not."""
        self._writer.close()

    def reset(self) -> None:
        """End the connection so that nobody takes its end for an answer."""
        connection = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()


class Peers:
    """All connections of one door. *serve* has one; *refuse* gets those that are too many."""

    def __init__(
        self,
        serve: Callable[[Peer], Awaitable[None]],
        refuse: Callable[[Peer], Awaitable[None]],
        most: int,
        patience: float,
    ) -> None:
        self._serve = serve
        self._refuse = refuse
        self._most = most
        self._patience = patience
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.Task[Any]] = set()

    async def open(self, listener: socket.socket) -> None:
        """Take connections from *listener*."""
        self._server = await asyncio.start_server(self._come, sock=listener, limit=BUFFER)

    async def close(self, seconds: float) -> None:
        """Take none any more, let those that are there finish, then end them."""
        if self._server is not None:
            self._server.close()
        for task in self._resting:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Within the block the present task waits for a request, so for nothing promised."""
        task = asyncio.current_task()
        assert task is not None
        self._resting.add(task)
        try:
            yield
        finally:
            self._resting.discard(task)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = Peer(reader, writer, self._patience)
        if len(self._tasks) >= self._most:
            log.warning("a connection was refused: %d are open", self._most)
            await self._refuse(peer)
            return
        self._tasks.add(task)
        try:
            await self._serve(peer)
        except (OSError, TimeoutError, EOFError):
            peer.reset()
        except asyncio.CancelledError:
            peer.reset()
        except Exception:
            log.exception("a connection ended by an error of the gateway's own")
            peer.reset()
        finally:
            self._tasks.discard(task)
