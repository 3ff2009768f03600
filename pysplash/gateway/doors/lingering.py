"""Lingering closes: how connections end that have their answer, without a task for each.

Closing a connection with unread bytes resets it, and the answer is lost. So our side is shut down
and the peer's end is awaited; most have ended when they are first looked at.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque

from .pacing import CHUNK

#: seconds for which a connection's own end is awaited, and bytes that are read meanwhile
LINGER, LINGER_BYTES = 1.0, 2**20
#: seconds after which a connection is first looked at, and seconds between two looks at *SOME* of
#: those that were still there
SOON, PAUSE, SOME = 0.002, 0.002, 8
#: seconds between two looks whether all have gone, when the door closes
LOOK = 0.01


class LingeringCloses:
    """The connections of one door that have their answer and are to end."""

    def __init__(self) -> None:
        #: until when they may end themselves, and with how many bytes
        self._leaving: dict[socket.socket, tuple[float, int]] = {}
        #: those that were not looked at yet, and those that were still there
        self._off: list[socket.socket] = []
        self._slow: deque[socket.socket] = deque()

    def __len__(self) -> int:
        return len(self._leaving)

    async def close(self, seconds: float) -> None:
        """Wait until all have gone, for *seconds* at most; then end them."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(seconds, LINGER)
        while self._leaving and loop.time() < until:
            await asyncio.sleep(LOOK)
        for connection in list(self._leaving):
            self._part(connection)

    def see_off(self, connection: socket.socket) -> None:
        """End one side of a connection, and wait a little for the peer to end the other.

        A connection that is closed over bytes nobody read is reset, answer and all.
        """
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        self._leaving[connection] = (loop.time() + LINGER, LINGER_BYTES)
        self._off.append(connection)
        if len(self._off) == 1:
            loop.call_later(SOON, self._look)

    def _look(self) -> None:
        """Be done with the peers that have ended; look at the others now and then."""
        off, self._off = self._off, []
        idle = not self._slow
        self._slow.extend(each for each in off if not self._is_over(each))
        if idle and self._slow:
            asyncio.get_running_loop().call_later(PAUSE, self._look_again)

    def _look_again(self) -> None:
        """Look at some of the peers that were still there, each in its turn."""
        for _ in range(min(SOME, len(self._slow))):
            connection = self._slow.popleft()
            if not self._is_over(connection):
                self._slow.append(connection)
        if self._slow:
            asyncio.get_running_loop().call_later(PAUSE, self._look_again)

    def _is_over(self, connection: socket.socket) -> bool:
        """Read what a peer still sends, so much at most; return whether that is over."""
        if connection not in self._leaving:
            return True
        until, left = self._leaving[connection]
        try:
            count = len(connection.recv(CHUNK))
            left = left - count if count else 0
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            left = 0
        if left > 0 and asyncio.get_running_loop().time() < until:
            self._leaving[connection] = (until, left)
            return False
        self._part(connection)
        return True

    def _part(self, connection: socket.socket) -> None:
        """Be done with a connection."""
        del self._leaving[connection]
        connection.close()
