"""Peers: the connections of one stream door, so many at most, each with an end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from .log import logger

#: seconds for which a connection's own end is awaited, and bytes that are read meanwhile
LINGER, LINGER_BYTES = 1.0, 2**20
#: bytes taken from a connection at once, and kept for a door that does not read them yet
BUFFER = 16384
#: connections taken at once, before those that are there have their turn
CROWD = 4
#: seconds between two lines about connections that were refused, and before the next try to take
#: one after there was no descriptor for it
QUIET, SHORT = 1.0, 1.0
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
        name = writer.get_extra_info("peername")
        #: the address it comes from, "" where there is none
        self.host: str = name[0] if isinstance(name, tuple) else ""

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

    def reset(self) -> None:
        """End the connection so that nobody takes its end for an answer."""
        _make_reset(self._writer.get_extra_info("socket"))
        self._writer.transport.abort()


class Peers:
    """All connections of one door. *serve* has one; those that are too many are told *refusal*.

    Without a refusal they are reset. Nothing else is done for them, so refusing is cheap.
    """

    def __init__(
        self, serve: Callable[[Peer], Awaitable[None]], refusal: bytes, most: int, patience: float
    ) -> None:
        self._serve = serve
        self._refusal = refusal
        self._most = most
        self._patience = patience
        self._listener: socket.socket | None = None
        self._refused = 0
        self._tell_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.Task[Any]] = set()

    async def open(self, listener: socket.socket) -> None:
        """Take connections from *listener*."""
        listener.setblocking(False)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._take)

    async def close(self, seconds: float) -> None:
        """Take none any more, let those that are there finish, then end them."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
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
        if self._listener is None:
            raise EOFError("the door is closing")
        task = asyncio.current_task()
        assert task is not None
        self._resting.add(task)
        try:
            yield
        finally:
            self._resting.discard(task)

    def _take(self) -> None:
        """Take the connections that wait, some at once: the others' turn is next."""
        loop = asyncio.get_running_loop()
        for _ in range(CROWD):
            if self._listener is None:
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("no connection can be taken: %s", error)
                loop.remove_reader(self._listener)
                loop.call_later(SHORT, self._resume)
                return
            connection.setblocking(False)
            if len(self._tasks) >= self._most:
                self._refuse(connection)
                continue
            task = loop.create_task(self._come(connection))
            self._tasks.add(task)
            task.add_done_callback(partial(self._end, connection))

    def _end(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # before it could do anything, or it would have seen to it
            connection.close()

    def _resume(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._take)

    def _refuse(self, connection: socket.socket) -> None:
        if self._refusal:
            with contextlib.suppress(OSError):
                connection.send(self._refusal)
        else:
            _make_reset(connection)
        connection.close()
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            log.warning("connections refused: %d more, %d are open", self._refused, self._most)
            self._refused, self._tell_at = 0, now + QUIET

    async def _come(self, connection: socket.socket) -> None:
        try:
            peer = await self._receive(connection)
        except OSError as error:
            log.debug("a connection was lost before it was open: %s", error)
            return
        try:
            await self._serve(peer)
        except (OSError, TimeoutError, EOFError):
            peer.reset()
        except asyncio.CancelledError:
            peer.reset()
        except Exception:
            log.exception("a connection ended by an error of the gateway's own")
            peer.reset()

    async def _receive(self, connection: socket.socket) -> Peer:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(BUFFER, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
        except BaseException:
            connection.close()
            raise
        with contextlib.suppress(AttributeError):  # asyncio's own takes 16 times as much at once
            transport.max_size = BUFFER  # type: ignore[attr-defined]
        return Peer(reader, asyncio.StreamWriter(transport, protocol, reader, loop), self._patience)


def _make_reset(connection: Any) -> None:
    """Let the end of a connection be a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
