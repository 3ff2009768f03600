"""What an AsyncClient has in each event loop: one connection, and the calls in flight there.

What is made in one event loop cannot be waited for in another. So each loop has its own, made when
the client is first used there; what was in a loop that is closed since, or in the process from
which this one was forked, is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from typing import Any

from pysplash.connections.address import Address
from pysplash.errors import CallError, ConnectionFailed

from .async_transport import CONNECT, AnswerStream
from .send_queue import SendQueue


class LoopSession:
    """A client's connection in one event loop, what it sends, and whom it waits for."""

    def __init__(self, place: Address, where: str) -> None:
        self.pid = os.getpid()
        self.answers = AnswerStream(place, where)
        self.sending = SendQueue(self.answers)
        #: held by who reads the pools
        self.reading = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()

    def in_background(self, step: Coroutine[Any, Any, Any]) -> None:
        """Run *step* as a task that nobody waits for."""

        async def quietly() -> None:
            with contextlib.suppress(CallError, ConnectionFailed):
                await step

        task = asyncio.ensure_future(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Disconnect, in its own loop; calls that are waited for raise, their jobs go on."""
        if self._background:
            await asyncio.wait(self._background, timeout=CONNECT)
        await self.sending.close()
        await self.answers.close()


class LoopSessions:
    """The sessions of one client, by their event loops. Threads may share it."""

    def __init__(self, place: Address, where: str) -> None:
        self._place, self._where = place, where
        self._sessions: dict[asyncio.AbstractEventLoop, LoopSession] = {}

    def here(self) -> LoopSession:
        """Return the session of the running loop; make one if there is none."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.pid != os.getpid():
            self._leave_closed()
            session = self._sessions[loop] = LoopSession(self._place, self._where)
        return session

    async def close(self) -> None:
        """Close all; those of loops that run in other threads are closed there, soon."""
        mine = asyncio.get_running_loop()
        self._leave_closed()
        for loop, session in list(self._sessions.items()):
            self._sessions.pop(loop, None)
            if loop is mine:
                await session.close()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(session.close(), loop)
            else:
                session.answers.leave()

    def _leave_closed(self) -> None:
        """Forget the sessions of closed loops, and those of the process before a fork."""
        for loop, session in list(self._sessions.items()):
            if session.pid != os.getpid():  # the connection is the parent's: not a byte to it
                self._sessions.pop(loop, None)
            elif loop.is_closed():
                self._sessions.pop(loop, None)
                session.answers.leave()
