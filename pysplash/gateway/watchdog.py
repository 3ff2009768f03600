"""The watchdog of the doors' processes: it notices event loops that hang.

Each process counts a number of its own up, in memory that all share, and the parent sees which
have not moved. A process that is stopped or hangs cannot say so; deaths are reported by the system.
"""

from __future__ import annotations

import asyncio

from .memory import shared_numbers

#: seconds between two beats, and between two looks at them
BEAT = LOOK = 1.0
#: seconds without a beat after which a process counts as hung; one that computes has longer
HUNG, BUSY = 10.0, 120.0
#: the part of a core from which on a process computes
COMPUTES = 0.1


class LoopBeats:
    """Counters of so many processes, which each counts up while its event loop turns."""

    def __init__(self, count: int) -> None:
        self._beats = shared_numbers(count)

    def __getitem__(self, place: int) -> int:
        """Return how many beats the process in this place has counted."""
        return self._beats[place]

    async def beat(self, place: int) -> None:
        """Count up for the process in this place, as long as its event loop turns."""
        while True:
            self._beats[place] += 1
            await asyncio.sleep(BEAT)


class Watchdog:
    """Watches the beats of one process, as seen by whoever looks now and then, since *now*.

    While nobody looks no time passes: after all processes were stopped together, none hangs.
    """

    def __init__(self, beat: int, now: float) -> None:
        self._beat = beat
        self._looked = now
        self._still = 0.0
        self._used: float | None = None

    def is_hung(self, beat: int, used: float, now: float) -> bool:
        """Return whether the process hangs, given its *beat* count and *used* CPU seconds."""
        if beat != self._beat or self._used is None:
            self._beat, self._used, self._still = beat, used, 0.0
        else:
            self._still += min(now - self._looked, 2 * LOOK)
        self._looked = now
        busy = used - self._used > COMPUTES * self._still
        return self._still >= (BUSY if busy else HUNG)
