"""Pulses: whether processes whose event loops should turn still do.

The beats are numbers in memory that is shared by whoever is forked after it was made: each process
counts its own up, and whoever looks after them sees which have not moved. A process that is
stopped, or hangs, cannot say so; one that is dead is its parent's to hear of.
"""

from __future__ import annotations

import asyncio
import mmap

_WORD = 8
#: seconds between two beats, and between two looks at them
BEAT = LOOK = 1.0
#: seconds without a beat after which a process counts as hung; one that computes has longer
HUNG, BUSY = 10.0, 120.0
#: the part of a core from which on a process computes
COMPUTES = 0.1


class Pulses:
    """The beats of so many processes, each by its place among them."""

    def __init__(self, count: int) -> None:
        self._beats = memoryview(mmap.mmap(-1, count * _WORD)).cast("q")

    def __getitem__(self, place: int) -> int:
        """Return how often the process in a place has beaten."""
        return self._beats[place]

    async def beat(self, place: int) -> None:
        """Beat for the process in a place, as long as its loop turns."""
        while True:
            self._beats[place] += 1
            await asyncio.sleep(BEAT)


class Vigil:
    """What is known of one process's pulse by whoever looks at it now and then, since *now*.

    While nobody looks no time passes: where all processes were stopped none is hung afterwards.
    """

    def __init__(self, beat: int, now: float) -> None:
        self._beat = beat
        self._looked = now
        self._still = 0.0
        self._used: float | None = None

    def is_hung(self, beat: int, used: float, now: float) -> bool:
        """Return whether the process hangs, that has beaten so often and *used* seconds of CPU."""
        if beat != self._beat or self._used is None:
            self._beat, self._used, self._still = beat, used, 0.0
        else:
            self._still += min(now - self._looked, 2 * LOOK)
        self._looked = now
        busy = used - self._used > COMPUTES * self._still
        return self._still >= (BUSY if busy else HUNG)
