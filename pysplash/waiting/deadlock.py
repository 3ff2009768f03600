"""Deadlock detection: the waits-for graph of jobs, kept in Redis.

While a job waits, the set ``pysplash:waits:<its id>`` holds the ids it waits for. It is also how a
waiting job finds those it may help: nobody else's end brings its own nearer. When the set appears,
so does an entry in the stream ``pysplash:fan:<its id>``, which wakes those who wait further out.
What a killed job leaves behind goes with it when it is settled, or else by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from redis import Redis

from pysplash.errors import WouldDeadlock

KEY = "pysplash:waits:{}"
FAN_KEY = "pysplash:fan:{}"
#: seconds a job's edges live unless renewed, and between two renewals
TTL = 60
RENEWAL = 20.0


class Edges:
    """The edges of one waiting job, *me*."""

    def __init__(self, client: Redis, me: str) -> None:
        self.client = client
        self._me = me
        self._key = KEY.format(me)
        self._fan = FAN_KEY.format(me)
        self._renewal = 0.0

    def publish(self, ids: Collection[str]) -> None:
        """Record that the job waits for *ids*; raise WouldDeadlock if one of them waits for it.

        Edges first, then the walk: of two jobs that begin to wait for each other at the same time,
        one at least sees the circle.
        """
        with self.client.pipeline(transaction=True) as pipe:
            pipe.delete(self._key)
            self._write(pipe, ids)
            pipe.xadd(self._fan, {"waits": len(ids)}, maxlen=1)
            pipe.expire(self._fan, TTL)
            for name in ids:
                pipe.smembers(KEY.format(name))
            beneath = pipe.execute()[-len(ids) :]
        after = set().union(*map(_names, beneath))
        if reaches(self._me, after - set(ids), self._follow):
            raise WouldDeadlock(f"job {self._me} waits for a job that waits for it")

    def renew(self, pending: Callable[[], Collection[str]]) -> None:
        """Renew the edges to the jobs still *pending*, if that is due."""
        if time.monotonic() >= self._renewal and (ids := pending()):
            with self.client.pipeline(transaction=True) as pipe:
                self._write(pipe, ids)
                pipe.execute()

    def withdraw(self) -> None:
        """Remove the job's edges: it waits no more."""
        forget(self.client, self._me)

    def _write(self, pipe: Any, ids: Iterable[str]) -> None:
        pipe.sadd(self._key, *ids)
        pipe.expire(self._key, TTL)
        self._renewal = time.monotonic() + RENEWAL

    def _follow(self, ids: list[str]) -> list[set[str]]:
        with self.client.pipeline(transaction=False) as pipe:
            for waiting in ids:
                pipe.smembers(KEY.format(waiting))
            return [_names(names) for names in pipe.execute()]


def forget(client: Redis, job_id: str) -> None:
    """Remove the edges of a job that waits no more."""
    client.delete(KEY.format(job_id), FAN_KEY.format(job_id))


def _names(members: Iterable[bytes]) -> set[str]:
    return {name.decode() for name in members}


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
