"""The connections of one stream door: bounded in number, each ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from pysplash.log import Seldom, logger

from .lingering import LOOK, LingeringCloses
from .pacing import CHUNK, ReadPacing

#: connections taken at once, before those that are there have their turn
CROWD = 8
#: seconds between two log lines about refused connections; seconds before the next accept after
#: one failed, for want of a descriptor say
QUIET, SHORT = 1.0, 1.0
#: seconds between two refusals: refused clients reconnect at once
PACE = 0.001
#: tells the system that more is to come, so that it may wait (on Linux)
_MORE = getattr(socket, "MSG_MORE", 0)
_RESET = struct.pack("ii", 1, 0)

log = logger("gateway")


class Peer:
    """One connection. *patience* is seconds an answer may take to leave.

    It is a bare socket: what nobody reads yet stays with the system, and most requests are there
    as a whole when they are looked for, most answers gone at once.
    """

    def __init__(
        self,
        connection: socket.socket,
        host: str,
        patience: float,
        pace: ReadPacing,
        lingering: LingeringCloses,
    ) -> None:
        self._connection = connection
        #: the address it comes from, "" where there is none
        self.host = host
        self._patience = patience
        self._pace = pace
        self._lingering = lingering
        self._over = False
        #: what has been looked at and is still to be read
        self._ahead = b""

    def look(self, count: int) -> bytes:
        """Return what has come, *count* bytes at most, and leave it to be read; b"" for nothing."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._ahead = self._connection.recv(count)
        return self._ahead

    async def at_once(self, count: int) -> bytes | None:
        """Return what has come, *count* bytes at most, b"" at the end; None if nothing has."""
        if self._ahead:
            data, self._ahead = self._ahead[:count], self._ahead[count:]
            return data
        try:
            data = self._connection.recv(count)
        except (BlockingIOError, InterruptedError):
            return None
        if len(data) == count >= CHUNK:
            await self._pace.turn()
        return data

    async def read(self, count: int) -> bytes:
        """Return what comes, *count* bytes at most, b"" at the end.

        Large requests are paced, so that others get their turn.
        """
        data = await asyncio.get_running_loop().sock_recv(self._connection, count)
        if len(data) == count >= CHUNK:
            await self._pace.turn()
        return data

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """Send *data*; raise TimeoutError at a peer that does not read it.

        What is the *last* to be sent may leave with the connection's end, by :meth:`finish`.
        """
        rest = memoryview(data)[self.send_at_once(data, last=last) :]
        if rest:
            async with asyncio.timeout(self._patience):
                await asyncio.get_running_loop().sock_sendall(self._connection, rest)

    def send_at_once(self, data: bytes, *, last: bool = False) -> int:
        """Send so much of *data* as goes now; return how many bytes that is."""
        try:
            return self._connection.send(data, _MORE if last else 0)
        except (BlockingIOError, InterruptedError):
            return 0

    def finish(self) -> None:
        """End the connection in order: the peer can still read what it has been sent."""
        if not self._over:
            self._over = True
            self._lingering.see_off(self._connection)

    @property
    def over(self) -> bool:
        """Whether it has been ended."""
        return self._over

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def reset(self) -> None:
        """Reset the connection, so that the peer does not take its end for an answer."""
        if not self._over:
            self._over = True
            _make_reset(self._connection)
            self._connection.close()


class Peers:
    """All connections of one door, *most* at a time; *serve* handles one.

    Further ones get the bytes *refusal* and are closed, or are reset where it is empty. *take* is
    asked first: it returns True if it handles the peer without a task. Later it passes such a peer
    to :meth:`serve` or :meth:`let_go`.
    """

    def __init__(
        self,
        serve: Callable[[Peer], Awaitable[None]],
        refusal: bytes,
        most: int,
        patience: float,
        take: Callable[[Peer], bool] = lambda _: False,
    ) -> None:
        self._serve = serve
        self._take_on = take
        self._refusal = refusal
        self._most = most
        self._patience = patience
        self._listener: socket.socket | None = None
        self._refused = 0
        self._complaint = Seldom(QUIET)
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken: set[Peer] = set()
        self._lingering = LingeringCloses()
        self._pace = ReadPacing()
        self._resting: set[asyncio.Task[Any]] = set()

    async def open(self, listener: socket.socket) -> None:
        """Accept connections from *listener*."""
        listener.setblocking(False)
        with contextlib.suppress(OSError):  # those it takes have it from here
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._take)

    async def close(self, seconds: float) -> None:
        """Accept no more; let those that are open finish for *seconds*, then end them."""
        listener, self._listener = self._listener, None
        loop = asyncio.get_running_loop()
        if listener is not None:
            loop.remove_reader(listener)
            listener.close()
        for task in self._resting:
            task.cancel()
        until = loop.time() + seconds
        while (self._taken or self._tasks) and loop.time() < until:
            await asyncio.sleep(LOOK)
        for peer in self._taken:
            peer.reset()
        left = set(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._lingering.close(seconds)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Mark the current task as waiting for a request: closing the door may cancel it."""
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
        """Accept the connections that are pending, a few at a time."""
        peers: list[Peer] = []
        while len(peers) < CROWD and (peer := self._accept(len(peers))) is not None:
            peers.append(peer)
        for peer in peers:  # their requests have had some time to arrive
            if not self._is_taken_on(peer):
                self.serve(peer)

    def _accept(self, before: int) -> Peer | None:
        """Accept one connection; *before* were accepted just now. None: accept no more now."""
        if self._listener is None:
            return None
        full = len(self) + before >= self._most
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return None
        except OSError as error:
            log.warning("accepting a connection failed: %s", error)
            self._pause(SHORT)
            return None
        connection.setblocking(False)
        if full:
            self._refuse(connection)
            self._pause(PACE)
            return None
        host = str(address[0]) if isinstance(address, tuple) else ""
        return Peer(connection, host, self._patience, self._pace, self._lingering)

    def __len__(self) -> int:
        return len(self._tasks) + len(self._taken) + len(self._lingering)

    def _is_taken_on(self, peer: Peer) -> bool:
        self._taken.add(peer)
        try:
            taken = self._take_on(peer)
        except OSError:
            peer.reset()
            taken = True
        if not taken or peer.over:
            self._taken.discard(peer)
        return taken

    def serve(self, peer: Peer, serve: Callable[[Peer], Awaitable[None]] | None = None) -> None:
        """Serve a peer in a task of its own, by *serve* or as all."""
        self._taken.discard(peer)
        task = asyncio.get_running_loop().create_task(self._see_to(peer, serve or self._serve))
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, peer))

    def let_go(self, peer: Peer) -> None:
        """Take note that a peer that was handled without a task has ended."""
        self._taken.discard(peer)

    def _end(self, peer: Peer, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # before it began; a task that has begun closes its peer itself
            peer.close()

    def _pause(self, seconds: float) -> None:
        """Accept no connection for *seconds*; meanwhile they wait in the listen queue."""
        if self._listener is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener)
            loop.call_later(seconds, self._resume)

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
        if self._complaint.due(asyncio.get_running_loop().time()):
            log.warning(
                "%d connections refused: %d are open, which is the limit", self._refused, self._most
            )
            self._refused = 0

    async def _see_to(self, peer: Peer, serve: Callable[[Peer], Awaitable[None]]) -> None:
        try:
            await serve(peer)
        except (OSError, TimeoutError, EOFError, asyncio.CancelledError):
            peer.reset()
        except Exception:
            log.exception("internal error while serving a connection")
            peer.reset()


def _make_reset(connection: Any) -> None:
    """Have the connection reset when it is closed."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
