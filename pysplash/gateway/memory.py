"""The memory that peers may make the doors of a gateway hold, counted in a page all doors share.

The page is memory that processes forked later share. Each door writes its own numbers and reads all
of them, so nobody waits for anybody, and no lock can be left held by a process that is killed.
"""

from __future__ import annotations

import asyncio
import mmap
from typing import TypeVar, cast

from pysplash.errors import Busy

#: seconds by which a refusal is delayed for each that is pending already, and at most
REFUSING, LONGEST = 0.005, 0.5


class Memory:
    """The bytes that peers may make a gateway hold, *most* of them, in a share for each door.

    *kept* bytes of each share cannot be taken by another: a flood at one door leaves room at all.
    """

    def __init__(self, most: int, counts: DoorCounts, kept: int = 0) -> None:
        self._most = most
        #: bytes of each share that no other can take
        self.kept = kept
        self._held = counts.held

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return sum(self._held)

    def share(self, door: int) -> Share:
        """Return the share of the door in this place."""
        return Share(self, self._held, door)

    def room(self, door: int) -> int:
        """Return how many bytes more a door may hold; less than 0 if it holds too many."""
        kept = self.kept
        others = sum(max(kept, held) for held in self._held) - max(kept, self._held[door])
        return self._most - self._held[door] - others


class Share:
    """The bytes that the peers of one door make a gateway hold."""

    def __init__(self, memory: Memory, held: memoryview[int], door: int) -> None:
        self._memory = memory
        self._held = held
        self._door = door
        #: refusals that are pending
        self._refused = 0

    def take(self, count: int) -> None:
        """Hold *count* bytes more; raise :class:`Busy` if that is too much.

        The bytes are counted first and checked then, because another process may do the same: of
        two that want the last bytes at the same moment, not both get them.
        """
        self.keep(count)
        if self._held[self._door] <= self._memory.kept:  # no other may have taken that
            return
        if self._memory.room(self._door) < 0:
            self.free(count)
            raise Busy

    async def pause(self) -> None:
        """Delay a refusal: by 5 ms for each that is pending already, by half a second at most.

        Refused clients retry at once, and a crowd of them would keep door and machine busy.
        """
        self._refused += 1
        try:
            await asyncio.sleep(min(LONGEST, REFUSING * self._refused))
        finally:
            self._refused -= 1

    def keep(self, count: int) -> None:
        """Count *count* bytes that are held already, whether or not there is room."""
        self._held[self._door] += count

    def free(self, count: int) -> None:
        """Hold *count* bytes less."""
        self._held[self._door] -= count


def kept(most: int, doors: int, limit: int) -> int:
    """Return what to keep of *most* bytes for each of *doors*: half of it, divided.

    Less where a request of *limit* bytes would not find room any more.
    """
    return min(most // (2 * doors), (most - limit) // max(1, doors - 1))


N = TypeVar("N", int, float)


def shared_numbers(count: int, kind: type[N] = int) -> memoryview[N]:
    """Return *count* numbers of a *kind*, 0 at first, which processes forked later share."""
    page = memoryview(mmap.mmap(-1, count * 8))
    return cast("memoryview[N]", page.cast("q" if kind is int else "d"))


class DoorCounts:
    """What each of so many *doors* holds and has accepted, each by its place among them."""

    def __init__(self, doors: int) -> None:
        self.doors = doors
        #: bytes that a door's peers make it hold, and calls that it has accepted
        self.held, self.taken = shared_numbers(doors), shared_numbers(doors)
        #: when a door last had a call, in monotonic seconds
        self.used = shared_numbers(doors, float)

    def leave(self, door: int) -> None:
        """Clear the numbers of a door whose process has ended."""
        self.held[door] = self.taken[door] = 0
