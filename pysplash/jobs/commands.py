"""Commands of RQ's ``send_*_command`` functions, received for all workers of a pool.

One subscription on one connection of the pool's, instead of a thread and a connection in each
worker. A message that makes no sense is reported in one line and changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from pysplash.log import logger

CHANNEL = "rq:pubsub:"
KINDS = ("shutdown", "kill-horse", "stop-job", "stop-execution")
#: what those name that are about a job
NAMED = {"stop-job": ("job_id",), "stop-execution": ("job_id", "execution_id")}
#: seconds the rest of a message may take; a message cut off costs the subscription
REST = 1.0
#: seconds between two tries while Redis is away
PAUSE = 1.0

log = logger("pool")


class Command(NamedTuple):
    """A command to one worker.

    For ``stop-job`` with the job's id, for ``stop-execution``, which RQ has since 3.0, with both
    ids; else they are empty.
    """

    worker: str
    kind: str
    job_id: str = ""
    execution_id: str = ""


class CommandListener:
    """Receives the commands for the workers it follows."""

    def __init__(self, client: Redis) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._followed: set[str] = set()
        self._away_until = 0.0

    def follow(self, workers: Collection[str]) -> None:
        """Receive commands for just these workers; if Redis is away, try again at the next call."""
        wanted = set(workers)
        new, gone = wanted - self._followed, self._followed - wanted
        if not (new or gone) or time.monotonic() < self._away_until:
            return
        try:
            if new:
                self._pubsub.subscribe(*(CHANNEL + name for name in new))
            if gone:
                self._pubsub.unsubscribe(*(CHANNEL + name for name in gone))
            self._followed = wanted
        except RedisError as error:
            self._away(error)

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptor that is readable when a command has come."""
        connection = self._pubsub.connection
        connected = getattr(connection, "_sock", None)
        return () if connected is None else (connected.fileno(),)

    def read(self) -> Iterator[Command]:
        """Yield the commands that have come; wait only for the rest of a message that has begun."""
        while self._followed and time.monotonic() >= self._away_until:
            try:
                if not self._pubsub.connection.can_read(timeout=0):
                    return
                message = self._pubsub.get_message(timeout=REST)
            except RedisError as error:
                self._away(error)
                return
            command = understand(message) if message else None
            if command is not None:
                yield command

    def close(self) -> None:
        """Unsubscribe and disconnect."""
        self._followed = set()
        self._pubsub.close()

    def _away(self, error: Exception) -> None:
        log.debug("commands cannot be received: %s", error)
        self._away_until = time.monotonic() + PAUSE
        self._followed = set()
        self._pubsub.reset()


def understand(message: dict[str, Any]) -> Command | None:
    """Return the command in a message; log it and return None if it is not valid."""
    raw, channel = message.get("data"), message.get("channel")
    worker = channel.decode(errors="replace") if isinstance(channel, bytes) else str(channel)
    worker = worker.removeprefix(CHANNEL)
    try:
        payload = json.loads(raw)  # type: ignore[arg-type]
        ids = payload.get("job_id", ""), payload.get("execution_id", "")
        command = Command(worker, payload["command"], *ids)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        command = None
    if command is not None and _is_valid(command):
        return command
    log.warning(
        "command %.100r for worker %s is not valid: expected one of %s",
        raw,
        worker,
        ", ".join(KINDS),
        extra={"action": "command", "worker": worker},
    )
    return None


def _is_valid(command: Command) -> bool:
    """Return whether RQ has such a command, with the ids it needs."""
    texts = all(isinstance(word, str) for word in command)
    if not texts or command.kind not in KINDS:
        return False
    return all(getattr(command, name) for name in NAMED.get(command.kind, ()))
