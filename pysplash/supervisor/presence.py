"""Presence: what a living pool publishes of itself in Redis.

One hash a pool, which expires unless the pool renews it, and one sorted set that knows all pools
by the moment at which the last of their workers must be gone. All times are the server's.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from pysplash.application.registry import TaskSpec
from pysplash.client.discovery import DEFAULT_QUEUE, POOL_KEY, POOLS_KEY, PoolFacts, Task
from pysplash.client.pool_id import PoolId
from pysplash.config import WorkerSettings
from pysplash.control.model import Decision, PoolView
from pysplash.log import logger
from pysplash.recording.writer import entry
from pysplash.version import __version__

from .predecessors import Predecessors

#: seconds a pool counts as alive after its last renewal, and seconds between two of them
ALIVE, RENEW = 10, 2.0
#: seconds beyond terminate_seconds after which a dead pool's workers must have ended
MARGIN = 10

log = logger("pool")

_RENEW = """
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'open', ARGV[2], 'state', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'about', ARGV[4]) end
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('ZADD', KEYS[2], now[1] + ARGV[6], ARGV[1])
return redis.call('HEXISTS', KEYS[1], 'about')
"""


def offered(specs: Sequence[TaskSpec], queues: Sequence[str]) -> tuple[Task, ...]:
    """Return the tasks as a pool that serves *queues* offers them."""
    own = DEFAULT_QUEUE if DEFAULT_QUEUE in queues else queues[0]
    return tuple(
        Task(spec.name, spec.queue or own, spec.timeout, spec.signature, spec.help)
        for spec in specs
    )


def write_about(facts: PoolFacts) -> str:
    """Return the constant part of *facts* as JSON; the name is that of its entry."""
    fields = asdict(facts)
    del fields["open"], fields["state"], fields["run"]
    fields["name"] = PoolId(facts.name, facts.run).entry
    return json.dumps(fields, separators=(",", ":"))


class Presence:
    """Publishes one pool's tasks and state; an unreachable Redis does not disturb the pool."""

    def __init__(self, connection: Redis, settings: WorkerSettings, terminate: float) -> None:
        self._connection = connection
        self._script = connection.register_script(_RENEW)
        self._settings = settings
        me = PoolId(settings.pool, settings.run)
        self._entry = me.entry
        #: earlier lives of this pool, whose jobs it settles
        self.predecessors = Predecessors(self._connection, me)
        self._gone_after = ALIVE + int(terminate) + MARGIN
        self._about = ""
        self._told: tuple[bool, str] | None = None
        self._told_at = 0.0
        self._started = time.time()
        self.set_tasks(())

    def set_tasks(self, specs: Sequence[TaskSpec]) -> None:
        """Publish these tasks from now on."""
        settings = self._settings
        facts = PoolFacts(
            name=settings.pool,
            run=settings.run,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            started=round(self._started, 3),
            queues=settings.queues,
            serializer=settings.serializer,
            tasks=offered(specs, settings.queues),
            takes_bytes=True,
        )
        self._about = write_about(facts)

    def publish(self, view: PoolView, decision: Decision) -> None:
        """Renew the entry every two seconds, or at once if tasks or the drain have changed."""
        if view.queued is None:
            return
        news = (view.drain is None, self._about)
        if news == self._told and view.now - self._told_at < RENEW:
            return
        state = json.dumps(entry(time.time(), view, decision), separators=(",", ":"))
        about = self._about if self._told is None or news[1] != self._told[1] else ""
        if self._try(lambda: self._renew(news[0], state, about)):
            self._told, self._told_at = news, view.now

    def close(self) -> None:
        """Delete the pool's entry."""
        name = self._entry

        def withdraw() -> None:
            with self._connection.pipeline() as pipeline:
                pipeline.delete(POOL_KEY.format(name))
                pipeline.zrem(POOLS_KEY, name)
                pipeline.execute()

        if self._told is not None:
            self._try(withdraw)
        self._connection.close()

    def _renew(self, is_open: bool, state: str, about: str) -> None:
        name = self._entry
        words: list[Any] = [name, int(is_open), state, about, ALIVE, self._gone_after]
        keys = [POOL_KEY.format(name), POOLS_KEY]
        if not self._script(keys, words):  # the key had expired: Redis, or this pool, was away
            words[3] = self._about
            self._script(keys, words)

    def _try(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except RedisError as error:
            log.debug("the pool's entry in Redis is not renewed: %s", error)
            return False
        return True
