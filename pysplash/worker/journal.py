"""The journal: outcomes not stored yet, in memory that outlives their worker.

Jobs of a batch share a round trip, so what several of them returned is for a moment in their worker
alone. It writes each outcome down in memory it shares with its pool, which stores what a dead
worker could not. There are two sides: what is on its way to Redis stays on one while the other
takes what comes.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Sequence
from typing import Any

import hiredis

#: bytes of one side, and of both
SIDE = 32768
SIZE = 2 * SIDE
#: bytes in use, at the beginning of a side
_LENGTH = struct.Struct("<Q")
Words = Sequence[str | bytes | int | float]
_pack: Any = hiredis.pack_command


class Journal:
    """One worker's part of the memory, from byte *start* on."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._sides = (start, start + SIDE)
        self._side = start
        self._used = 0

    def note(self, outcome: Words) -> bool:
        """Write an outcome down; return False if there is no room for it."""
        raw: bytes = _pack(tuple(outcome))
        begin = _LENGTH.size + self._used
        if begin + len(raw) > SIDE:
            return False
        # The length after the words: a worker may be killed between the two.
        self._memory[self._side + begin : self._side + begin + len(raw)] = raw
        self._used += len(raw)
        _LENGTH.pack_into(self._memory, self._side, self._used)
        return True

    def switch(self) -> None:
        """Write on the other side, emptied: what is on this one is on its way."""
        self._side = self._sides[self._side == self._sides[0]]
        self.wipe()

    def wipe(self) -> None:
        """Empty the present side: all that is on it is stored."""
        self._used = 0
        _LENGTH.pack_into(self._memory, self._side, 0)

    def clear(self) -> None:
        """Empty both sides."""
        for side in self._sides:
            _LENGTH.pack_into(self._memory, side, 0)

    def read(self) -> list[tuple[str, ...]]:
        """Return what is written down, as words; a byte that is no UTF-8 as a surrogate."""
        found: list[tuple[str, ...]] = []
        for side in self._sides:
            used = min(_LENGTH.unpack_from(self._memory, side)[0], SIDE - _LENGTH.size)
            begin = side + _LENGTH.size
            reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
            reader.feed(self._memory[begin : begin + used])
            with contextlib.suppress(hiredis.ProtocolError):
                while (words := reader.gets()) is not False:
                    found.append(tuple(words))
        return found
