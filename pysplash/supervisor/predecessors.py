"""Predecessors: earlier lives of a pool, killed, whose workers' jobs the present one settles.

A pool that is started again under its name is meant to go on where the killed one was. So what
that one left is settled here as ``pysplash purge`` would, once its workers cannot be alive any
more; pools of other names are left to ``purge``.
"""

from __future__ import annotations

from redis import Redis
from redis.exceptions import RedisError

from pysplash.client.discovery import read_pools
from pysplash.client.pool_id import PoolId
from pysplash.log import logger

from .purge import dead_pools, may_live, remove, strike_off, workers_of

#: seconds between two looks for them; the first is taken once the word of a pool that was killed
#: just before has expired
LOOK, FIRST = 15.0, 12.0
#: seconds within which no other pool of the name settles the same worker's jobs
ALONE = 60
_SETTLING = "pysplash:settling:{}"

log = logger("pool")


class Predecessors:
    """Finds the workers of dead pools of the same name; *me* is this one."""

    def __init__(self, client: Redis, me: PoolId) -> None:
        self._client = client
        self._me = me
        self._due: float | None = None
        self._is_first = True

    def lost_workers(self, now: float) -> list[str]:
        """Return workers whose jobs are to be settled now; each is returned once."""
        if self._due is None:
            self._due = now + FIRST
        if now < self._due:
            return []
        self._due = now + LOOK
        try:
            if self._is_first:
                self._is_first = False
                self._warn_of_namesakes()
            return self._find()
        except RedisError as error:
            log.debug("earlier pools of this name are not looked for: %s", error)
            return []

    def _find(self) -> list[str]:
        found = []
        for pool, gone_by in dead_pools(self._client).items():
            if pool.name != self._me.name or pool == self._me:
                continue
            workers = workers_of(self._client, pool)
            over = gone_by <= self._client.time()[0]
            gone = [name for name in workers if over or not may_live(self._client, pool, name)]
            found += [name for name in gone if self._take(name)]
            if not workers:
                strike_off(self._client, pool)
        return found

    def _take(self, worker: str) -> bool:
        return bool(self._client.set(_SETTLING.format(worker), self._me.run, nx=True, ex=ALONE))

    def note_settled(self, worker: str) -> None:
        """Remove a worker whose jobs are settled from RQ's lists."""
        log.warning(
            "worker %s of an earlier pool %s is gone: its jobs are settled",
            worker,
            self._me.name,
            extra={"action": "predecessor", "worker": worker},
        )
        try:
            remove(self._client, worker)
        except RedisError as error:
            log.debug("worker %s is not removed: %s", worker, error)

    def _warn_of_namesakes(self) -> None:
        for pool in read_pools(self._client):
            if pool.name == self._me.name and pool.run != self._me.run:
                log.warning(
                    "another pool is named %s (host %s, pid %d): both work, "
                    "but give each a --name of its own to tell them apart",
                    pool.name,
                    pool.host,
                    pool.pid,
                    extra={"action": "namesake"},
                )
