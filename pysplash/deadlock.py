"""Who waits for whom: the waits-for graph in Redis, which shows a circle before it closes.

While a job waits, the set ``pysplash:waits:<its id>`` holds the ids it waits for. A set whose job
was killed goes by itself after a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from redis import Redis

from .errors import WouldDeadlock

KEY = "pysplash:waits:{}"
#: seconds a job's edges live unless renewed, and between two renewals
TTL = 60
RENEWAL = 20.0


class Edges:
    """The edges of one waiting job, *me*."""

    def __init__(self, client: Redis, me: str) -> None:
        self.client = client
        self._me = me
        self._key = KEY.format(me)
        self._renewal = 0.0

    def publish(self, ids: Iterable[str]) -> None:
        """Say that the job waits for *ids*."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.sadd(self._key, *ids)
            pipe.expire(self._key, TTL)
            pipe.execute()
        self._renewal = time.monotonic() + RENEWAL

    def renew(self, pending: Callable[[], Collection[str]]) -> None:
        """Say it again, if that is due, for the jobs still *pending*."""
        if time.monotonic() >= self._renewal and (ids := pending()):
            self.publish(ids)

    def walk(self, ids: Iterable[str]) -> None:
        """Raise WouldDeadlock if one of *ids* waits for the job, directly or through others."""
        if reaches(self._me, ids, self._follow):
            raise WouldDeadlock(f"job {self._me} waits for a job that waits for it")

    def withdraw(self) -> None:
        """Say that the job waits no more."""
        self.client.delete(self._key)

    def _follow(self, ids: list[str]) -> list[set[str]]:
        with self.client.pipeline(transaction=False) as pipe:
            for waiting in ids:
                pipe.smembers(KEY.format(waiting))
            return [{name.decode() for name in names} for names in pipe.execute()]


def reaches(
    goal: str, start: Iterable[str], follow: Callable[[list[str]], Iterable[Collection[str]]]
) -> bool:
    """Whether *goal* can be reached from *start*, itself included, breadth first.

    *follow* maps a list of nodes to the nodes after each; it is called once for each level.
    """
    seen: set[str] = set()
    level = set(start)
    while level and goal not in level:
        seen |= level
        level = set().union(*follow(sorted(level))) - seen
    return goal in level
