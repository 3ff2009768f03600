"""What living pools publish of themselves, as callers read it: tasks, queues, when last seen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

from redis import Redis

from pysplash.log import logger

from .pool_id import PoolId, pool_id

log = logger("pool")


POOLS_KEY = "pysplash:pools"
POOL_KEY = "pysplash:pool:{}"
DEFAULT_QUEUE = "default"

#: returns about, open and state of every pool that is alive
READ = """
local found = {}
for _, name in ipairs(redis.call('ZRANGE', 'pysplash:pools', 0, -1)) do
  local pool = redis.call('HMGET', 'pysplash:pool:' .. name, 'about', 'open', 'state')
  if pool[1] then found[#found + 1] = pool end
end
return found
"""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as one pool offers it: with the queue and the seconds that hold there."""

    name: str
    queue: str
    timeout: int | None
    signature: str
    help: str


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """What a pool says of itself."""

    name: str
    host: str
    pid: int
    version: str
    started: float
    queues: tuple[str, ...]
    serializer: str | None
    tasks: tuple[Task, ...] = ()
    #: whether its workers know bundles of bytes; earlier releases do not say so, and do not
    takes_bytes: bool = False
    #: what tells this life of the pool from others of its name; earlier releases have none
    run: str = ""
    #: whether it takes jobs; False once it is stopping
    open: bool = True
    #: its last tick, as in a record
    state: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """The key of its hash."""
        return POOL_KEY.format(PoolId(self.name, self.run).entry)

    def task(self, name: str) -> Task | None:
        """Return the task *name*, if the pool knows it."""
        return next((task for task in self.tasks if task.name == name), None)


def read_pool(stored: Sequence[bytes | None]) -> PoolFacts:
    """Return the facts stored as about, open and state; what is not known yet is passed over."""
    about, is_open, state = stored
    fields = _known(PoolFacts, json.loads(about or b"{}"))
    fields["name"], fields["run"] = pool_id(fields["name"])
    fields["queues"] = tuple(fields["queues"])
    fields["tasks"] = tuple(Task(**_known(Task, task)) for task in fields["tasks"])
    return PoolFacts(**fields, open=is_open == b"1", state=json.loads(state or b"null"))


def _known(kind: type[Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {
        field.name: fields[field.name] for field in dataclass_fields(kind) if field.name in fields
    }


def in_order(found: Iterable[Sequence[bytes | None]]) -> list[PoolFacts]:
    """Return the pools that READ has found, by name, without those that make no sense."""
    pools = []
    for stored in found:
        try:
            pools.append(read_pool(stored))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("the record of a pool cannot be read: %r", error)
    return sorted(pools, key=lambda pool: pool.name)


def read_pools(client: Redis) -> list[PoolFacts]:
    """Return every pool that is alive, by name; one round trip, nothing is changed."""
    found: Any = client.eval(READ, 0)
    return in_order(found)
