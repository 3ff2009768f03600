"""Transactions that report a lost connection as such.

Where a connection is lost in a transaction that watches a key, redis-py says that the key has
changed. RQ then does all of it again, though it may have been done: a result is stored twice.
Where one is lost that stores a failure, RQ goes on, with a line in its log or without; RQ 2 then
lets jobs go ahead that depend on a success.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.exceptions import WatchError

from .outage import AWAY


class _StrictPipeline(Pipeline):
    """A pipeline that raises a timeout, which RQ does not ignore, where its connection was lost."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute; see redis-py."""
        try:
            return super().execute(raise_on_error)
        except (WatchError, RedisConnectionError) as error:
            cause = error.__context__ if isinstance(error, WatchError) else error
            if isinstance(cause, AWAY):
                raise RedisTimeoutError(f"the connection was lost: {cause}") from error
            raise


@contextlib.contextmanager
def raising_lost_connections(client: Redis) -> Iterator[None]:
    """Within a block, let transactions of *client* raise if their connection is lost."""

    def pipeline(transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pool, callbacks = client.connection_pool, client.response_callbacks
        return _StrictPipeline(pool, callbacks, transaction, shard_hint)

    vars(client)["pipeline"] = pipeline
    try:
        yield
    finally:
        del vars(client)["pipeline"]


class _RaisingLogger:
    """A logger that raises the error of a server that is away instead of logging it."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def exception(self, *arguments: Any) -> None:
        """Log the error being handled; raise it if Redis is away."""
        _raise_if_away()
        self._log.exception(*arguments)

    def error(self, *arguments: Any) -> None:
        """Log an error; raise the one being handled if Redis is away."""
        _raise_if_away()
        self._log.error(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def _raise_if_away() -> None:
    error = sys.exc_info()[1]
    if isinstance(error, AWAY):
        raise error


@contextlib.contextmanager
def raising_outages(worker: Any) -> Iterator[None]:
    """Within a block, let RQ's *worker* raise errors of an absent Redis instead of logging them."""
    said, worker.log = worker.log, _RaisingLogger(worker.log)
    try:
        yield
    finally:
        worker.log = said
