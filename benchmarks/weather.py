"""What storms are made of: signals to workers at random instants, an eye on what still moves."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random

from redis import Redis

from benchmarks import census
from benchmarks.supervisors import Supervisor

SIGNALS = ("TERM", "INT", "KILL")
#: share of the signals for which a worker that has done nothing yet may be chosen, too
YOUNG = 0.1
#: seconds between two looks at a supervisor that is left in peace
LOOK = 0.1
#: seconds without any change after which what is missing will not come any more
STILL = 30.0


class Strikes:
    """Signals to the workers of a supervisor, one at a time, at most *longest* seconds apart."""

    def __init__(
        self,
        redis: Redis,
        chance: Random,
        signals: Sequence[str],
        *,
        workers: int,
        longest: float,
    ) -> None:
        #: signals that reached a worker, by name
        self.struck: Counter[str] = Counter()
        self._redis = redis
        self._chance = chance
        self._signals = signals
        self._longest = longest
        self._recent: deque[int] = deque(maxlen=workers - 1)

    def strike(self, supervisor: Supervisor) -> None:
        """Signal one worker.

        Those that were signalled a moment ago can only be killed. Those that have done nothing yet
        are mostly spared: a supervisor pauses before further starts if many die so young.
        """
        if not self._signals:
            return
        name = self._chance.choice(self._signals)
        spared = () if name == "KILL" else self._recent
        proven = self._chance.random() > YOUNG
        pids = sorted(set(supervisor.workers(self._redis, proven=proven)).difference(spared))
        if not pids:
            return
        victim = self._chance.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.Signals[f"SIG{name}"])
            self._recent.append(victim)
            self.struck[name] += 1

    def pause(self) -> None:
        """Let a moment pass; chance says how long it is, so that every instant is hit."""
        time.sleep(self._chance.uniform(0, self._longest))


class Tide:
    """How many jobs are where, and whether it is time to give up waiting for a change."""

    def __init__(self, redis: Redis, queues: Sequence[str], seconds: float) -> None:
        self._redis = redis
        self._queues = queues
        self._deadline = time.monotonic() + seconds
        self._moved = time.monotonic()
        self.places: dict[str, int] = {}

    def under_way(self) -> int:
        """Look; return how many jobs are still to run, or run."""
        before, self.places = self.places, census.count(self._redis, self._queues)
        if self.places != before:
            self._moved = time.monotonic()
        return sum(self.places[place] for place in census.MOVING)

    def calm(self, seconds: float) -> bool:
        """Whether nothing is under way, and nothing has changed for so many *seconds*."""
        return not self.under_way() and time.monotonic() > self._moved + seconds

    def out(self) -> bool:
        """Whether nothing has changed for long, or time is up."""
        return time.monotonic() > min(self._deadline, self._moved + STILL)


def wait(predicate: Callable[[], bool], bound: float) -> None:
    """Wait until *predicate* holds, *bound* seconds at most."""
    deadline = time.monotonic() + bound
    while not predicate() and time.monotonic() < deadline:
        time.sleep(LOOK)
