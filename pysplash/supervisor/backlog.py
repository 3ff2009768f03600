"""The backlog: jobs waiting in the pool's queues, read in one round trip and never changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq.suspension import WORKERS_SUSPENDED

from pysplash.connections.outage import said
from pysplash.errors import BacklogUnavailable

QUEUE_KEY = "rq:queue:{}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Jobs waiting, by queue; the age in seconds of the oldest one; whether RQ is suspended."""

    queues: dict[str, int]
    oldest: float | None
    suspended: bool

    @property
    def total(self) -> int:
        """Jobs waiting in all queues together."""
        return sum(self.queues.values())


class Backlog:
    """Reads the watched queues. One round trip a call; two where a job waits."""

    def __init__(
        self,
        connection: Redis,
        queues: Sequence[str],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._queues = tuple(queues)
        self._wall_clock = wall_clock

    def read(self) -> Waiting:
        """Return what waits now; raise :class:`BacklogUnavailable` if Redis cannot be read."""
        try:
            return self._read()
        except RedisError as error:
            raise BacklogUnavailable(f"the queues cannot be read: {said(error)}") from error

    def _read(self) -> Waiting:
        with self._connection.pipeline(transaction=False) as pipeline:
            for name in self._queues:
                pipeline.llen(QUEUE_KEY.format(name))
                pipeline.lindex(QUEUE_KEY.format(name), 0)
            pipeline.exists(WORKERS_SUSPENDED)
            *replies, suspended = pipeline.execute(raise_on_error=False)
        if isinstance(suspended, Exception):
            raise suspended
        lengths = [reply if isinstance(reply, int) else 0 for reply in replies[::2]]
        heads = [head for head in replies[1::2] if isinstance(head, bytes)]
        return Waiting(
            queues=dict(zip(self._queues, lengths, strict=True)),
            oldest=self._oldest(heads) if heads else None,
            suspended=bool(suspended),
        )

    def _oldest(self, heads: Sequence[bytes]) -> float | None:
        with self._connection.pipeline(transaction=False) as pipeline:
            for head in heads:
                pipeline.hget(b"rq:job:" + head, "enqueued_at")
            stamps = pipeline.execute(raise_on_error=False)
        ages = [self._wall_clock() - at for at in map(_timestamp, stamps) if at is not None]
        return max(0.0, *ages) if ages else None


def _timestamp(stamp: Any) -> float | None:
    """Seconds since the epoch of a time as RQ writes it; None for anything else."""
    if not isinstance(stamp, bytes):
        return None
    try:
        moment = datetime.fromisoformat(stamp.decode())
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
