"""A pool by hand: what one says of itself, and tasks for workers in threads."""

from __future__ import annotations

import time
from typing import Any

from redis import Redis

from pysplash import task
from pysplash.application.registry import TaskSpec
from pysplash.client.discovery import POOL_KEY
from pysplash.client.pool_id import PoolId
from pysplash.config import WorkerSettings
from pysplash.connections.clients import own, portable
from pysplash.control.model import Decision, Drain, PoolView, Reason
from pysplash.supervisor.presence import Presence
from tests.integration.rq_life import boom, square

#: what the pools by hand publish
SPECS = tuple(TaskSpec(name) for name in ("it.square", "it.boom", "it.nap", "it.thing", "it.rare"))

task(name="it.square")(square)
task(name="it.boom")(boom)


@task(name="it.nap")
def nap(seconds: float) -> float:
    """Sleep: a job's work, not a test's wait."""
    time.sleep(seconds)  # noqa: TID251 -- this is the job
    return seconds


class Thing:
    """A value that is not plain."""


@task(name="it.thing")
def thing() -> Thing:
    """Return a value that is not plain."""
    return Thing()


STEADY = Decision(1, Reason.STEADY)


class HandPool:
    """A pool that only says that it is there, when it is told to."""

    def __init__(self, redis: Redis, name: str = "hand", **settings: Any) -> None:
        told: dict[str, Any] = {
            "queues": ("default",),
            "address": portable(redis),
            "pool": name,
        } | settings
        self.redis, self.key = (
            own(redis),
            POOL_KEY.format(PoolId(told["pool"], told.get("run", "")).entry),
        )
        self.presence = Presence(self.redis, WorkerSettings(**told), terminate=25)
        self.presence.set_tasks(SPECS)
        self.now = 1000.0

    def tell(self, passed: float = 0.0, **view: Any) -> None:
        """Say so, *passed* seconds after the last time."""
        self.now += passed
        self.presence.publish(PoolView(now=self.now, **view), STEADY)

    def stay(self) -> None:
        """Say so once for as long as the server runs, since nobody is here to renew it."""
        self.tell()
        self.redis.persist(self.key)

    def drain(self) -> None:
        """Say that it is stopping."""
        self.tell(drain=Drain.WARM)
