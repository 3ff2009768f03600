"""Read pacing: large requests are read in parts, so that other connections get their turn."""

from __future__ import annotations

import asyncio
from collections import deque

#: bytes taken from a connection at once; so often by all of a door within *TICK* seconds
CHUNK, SOME, TICK = 16384, 16, 0.002


class ReadPacing:
    """Bounds how much of large requests one door reads within each tick."""

    def __init__(self) -> None:
        #: those that wait to read on, how many more may in this tick, and when it ends
        self._paced: deque[asyncio.Future[None]] = deque()
        self._left, self._ends = SOME, 0.0

    async def turn(self) -> None:
        """Wait until the next part of a large request may be read."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._ends:
            self._left, self._ends = SOME, loop.time() + TICK
        if self._left and not self._paced:
            self._left -= 1
            await asyncio.sleep(0)
            return
        turn = loop.create_future()
        self._paced.append(turn)
        if len(self._paced) == 1:
            loop.call_later(TICK, self._go_on)
        await turn

    def _go_on(self) -> None:
        """Wake some of those that wait to read on."""
        loop = asyncio.get_running_loop()
        left = SOME
        while self._paced and left:
            turn = self._paced.popleft()
            if not turn.done():
                turn.set_result(None)
                left -= 1
        self._left, self._ends = left, loop.time() + TICK
        if self._paced:
            loop.call_later(TICK, self._go_on)
