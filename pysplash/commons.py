"""Commons: what the doors of a gateway have in common, whichever processes they are in.

Memory that is shared by whoever is forked after it was made. Each door writes its own numbers and
reads all of them, so nobody waits for anybody, and no lock can be left held by one that is killed.
"""

from __future__ import annotations

import mmap

_WORD = 8


class Commons:
    """The numbers of so many *doors*, each by its place among them."""

    def __init__(self, doors: int) -> None:
        self.doors = doors
        page = memoryview(mmap.mmap(-1, 3 * doors * _WORD))
        numbers = page.cast("q")
        #: bytes that a door's peers make it hold, and calls that it has taken on
        self.held, self.taken = numbers[:doors], numbers[doors : 2 * doors]
        #: when a door last had a call, in monotonic seconds
        self.used = page.cast("d")[2 * doors :]

    def leave(self, door: int) -> None:
        """Forget a door whose process has gone: it holds nothing and has taken on nothing."""
        self.held[door] = self.taken[door] = 0
