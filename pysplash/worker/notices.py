"""Notices: how a pool tells idle workers that jobs wait, where the server does not tell them.

A pipe with one byte for each worker that is to claim; whichever idle worker reads it does. A
notice that nobody needed costs one turn that finds nothing; one that is lost is sent again at the
pool's next look.
"""

from __future__ import annotations

import contextlib
import os

#: seconds between two looks at queues: at least, at most, and as a share of the time without jobs
SHORTEST_PAUSE, LONGEST_PAUSE, SHARE = 0.02, 0.2, 0.05
#: notices that are under way at most
MOST = 512


def pause_after(quiet: float) -> float:
    """Return the seconds to the next look at queues on which nothing came for *quiet* seconds."""
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, SHARE * quiet))


class Notices:
    """The pipe. The pool makes it; workers inherit its reading end as *reading*."""

    def __init__(self, reading: int | None = None) -> None:
        self._writing = -1
        if reading is None:
            reading, self._writing = os.pipe()
            for fd in (reading, self._writing):
                os.set_blocking(fd, False)
        self._reading = reading

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are notices."""
        return self._reading

    def send(self, count: int) -> None:
        """Have *count* idle workers claim; notices that nobody has read are replaced."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, MOST)
        os.write(self._writing, bytes(min(count, MOST)))

    def take(self) -> bool:
        """Return whether there was a notice; it is taken."""
        try:
            return bool(os.read(self._reading, 1))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close both ends."""
        for fd in (self._reading, self._writing):
            if fd >= 0:
                os.close(fd)
