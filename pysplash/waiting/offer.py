"""What a worker offers to code in its process: to run jobs for a wait, and its slot in the pool.

The worker offers itself here and ``wait_jobs`` finds it here, so neither imports the other.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from redis import Redis
from rq.job import Job


class PoolSlot(Protocol):
    """What a worker's process shares with its pool."""

    def parked(self) -> AbstractContextManager[None]:
        """Wait for other jobs, for the length of a block."""

    def held(self) -> float:
        """Return the seconds for which the pool held this process so far."""

    def note(self, words: Sequence[str | bytes]) -> bool:
        """Write words down where they outlive this process; return False if there is no room."""


class _Attachment:
    """The slot of a process, if it is a worker of a pool."""

    slot: PoolSlot | None = None
    process = 0


def attach(slot: PoolSlot | None) -> None:
    """Make *slot* the one of this process."""
    _Attachment.slot, _Attachment.process = slot, os.getpid()


def attached() -> PoolSlot | None:
    """Return the slot of this process; None if it is no worker of a pool.

    A process that a job has forked is none: the slot is its parent's.
    """
    return _Attachment.slot if _Attachment.process == os.getpid() else None


#: ids looked at by the first round trip of a search, by how much more by each that follows one
#: without a find, and at most
FEWEST, MORE, MOST = 8, 16, 1000
#: running jobs watched for children of their own, at most
WATCHED = 64


class Help(Enum):
    """What one request for help came to."""

    RAN = "ran"  #: a job was run here and finished
    FAILED = "failed"  #: a job was run here and did not finish
    NOTHING = "nothing"  #: there is nothing to claim


@dataclass(slots=True)
class Stuck:
    """A descendant that is queued where the worker may not take it."""

    job_id: str
    queue: str


class Search:
    """One pass over those a job waits for, and those they wait for in turn, breadth first.

    Each id is looked at once. Few (*size*) are sent at first and ever more as long as nothing is
    found, so the whole pass costs in proportion to its ids, whatever the number of finds.
    """

    def __init__(self, ids: Iterable[str], size: int = FEWEST) -> None:
        self._left = deque(ids)
        self._seen = set(self._left)
        self._size = size
        #: descendants that run and wait for nobody: what they may yet wait for is worth knowing
        self.running: list[str] = []
        self.stuck: list[Stuck] = []

    def batch(self) -> list[str]:
        """Return the ids to look at next; none if all have been looked at."""
        return [self._left[index] for index in range(min(self._size, len(self._left)))]

    def saw(
        self,
        count: int,
        *,
        claimed: bool,
        beneath: Iterable[str] = (),
        running: Iterable[str] = (),
        stuck: Iterable[Stuck] = (),
    ) -> None:
        """Note that the first *count* ids were looked at, and what was beneath them."""
        for _ in range(count):
            self._left.popleft()
        self._size = FEWEST if claimed else min(MOST, MORE * self._size)
        for name in beneath:
            if name not in self._seen:
                self._seen.add(name)
                self._left.append(name)
        self.running.extend(running)
        self.stuck.extend(stuck)


class Helper(Protocol):
    """A worker that runs jobs inside the one it is running."""

    @property
    def max_nesting(self) -> int:
        """Jobs nested in one another from which a waiting one first looks for another worker."""

    @property
    def depth(self) -> int:
        """How many jobs this worker is in the middle of."""

    #: seconds a deeply nested wait leaves its jobs to other workers
    patience: float

    def be_patient(self, *, longer: bool) -> None:
        """Wait longer the next time, or not so long."""

    def runs(self, job: Job) -> bool:
        """Return whether it runs *job* and could run another inside it."""

    def waiting_client(self) -> Redis:
        """Return the client for the waits of its jobs."""

    def help(self, search: Search) -> Help:
        """Claim the next job *search* finds and run it to its stored or storable outcome."""

    def settle(self) -> None:
        """Store what is done; from here on the job that waits is the one that runs."""


class _Offer(threading.local):
    helper: Helper | None = None
    process = 0


_offer = _Offer()


def offer(helper: Helper | None) -> None:
    """Make *helper* the one for jobs that wait in this thread."""
    _offer.helper, _offer.process = helper, os.getpid()


def at_hand() -> Helper | None:
    """Return the helper for jobs that wait in this thread, if there is one.

    In a process that a job has forked there is none: the connection of the worker is its parent's.
    """
    return _offer.helper if _offer.process == os.getpid() else None
