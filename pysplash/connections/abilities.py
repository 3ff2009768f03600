"""What a server lets this client do, found out by trying.

Managed services, proxies and access lists refuse some commands, and say so in their own ways. So
each command is tried with arguments that change nothing, and an error means that it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import hiredis
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from pysplash.errors import ConnectionFailed

from .clients import address
from .direct import DirectConnection, Word
from .outage import AWAY

#: the id of a connection that does not exist
NOBODY = 2**62
#: tells this connection of changes of what it read after CLIENT CACHING YES, others' changes only
TRACK = ("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
_TRIALS: tuple[tuple[Word, ...], ...] = (
    ("CLIENT", "ID"),
    TRACK,
    ("CLIENT", "LIST", "ID", NOBODY),
    ("CLIENT", "KILL", "ID", NOBODY),
)
#: what scripts need beside scripting, each in a form that changes nothing: two keys without a hash
#: slot in common, and options that came with Redis 6.2
_NEEDED = """
redis.call('LPOP', KEYS[1], 1)
redis.call('LPOS', KEYS[1], '', 'MAXLEN', 1)
redis.call('ZADD', KEYS[2], 'XX', 'GT', 1, '')
return 'OK'
"""
_KEYS = ("pysplash:nothing:a", "pysplash:nothing:b")


class Abilities(NamedTuple):
    """What a server lets one connection do."""

    #: the server's number of this connection; 0 where it does not say
    number: int = 0
    #: whether it tells of changed keys (``CLIENT TRACKING``)
    tracking: bool = False
    #: whether it closes other connections (``CLIENT LIST`` and ``CLIENT KILL``)
    closing: bool = False


class Asking(Protocol):
    """A connection that sends several commands at once."""

    def call_all(self, *commands: tuple[Word, ...]) -> list[Any]:
        """Send commands in one packet and return their replies, errors among them as they are."""

    def checked(self, reply: Any) -> Any:
        """Return *reply*; raise it if it is an error."""


def find_out(connection: Asking, name: str) -> Abilities:
    """Call a connection *name* at the server, have it track keys, and return what is allowed.

    Raises redis's error if the server serves nobody for now.
    """
    replies = connection.call_all(("CLIENT", "SETNAME", name), *_TRIALS)
    for reply in replies:
        try:
            connection.checked(reply)
        except AWAY:
            raise
        except RedisError:
            continue
    return _abilities(replies[1:])


def _abilities(replies: Sequence[Any]) -> Abilities:
    number, tracking, listing, killing = replies
    allowed = [not isinstance(reply, hiredis.ReplyError) for reply in (tracking, listing, killing)]
    known = number if isinstance(number, int) else 0
    return Abilities(known, allowed[0], allowed[1] and allowed[2] and bool(known))


def introduce(connection: Any, name: str) -> None:
    """Greet the server as redis-py does over its new *connection*, and say its *name*.

    Redis-py itself gives up a connection that may not be named.
    """
    connection.on_connect()
    try:
        connection.send_command("CLIENT", "SETNAME", name)
        connection.read_response()
    except AWAY:
        raise
    except ResponseError:
        return


def abilities_of(client: Redis, name: str) -> Abilities:
    """Return what the server of *client* allows, tried over a connection called *name*.

    Raises redis's error if it cannot be reached.
    """
    connection = DirectConnection(client)
    try:
        connection.connect()
        return find_out(connection, name)
    finally:
        connection.close()


def check_abilities(client: Redis) -> None:
    """Raise :class:`ConnectionFailed`, naming what is missing, for a server that cannot be used."""
    try:
        client.eval(_NEEDED, len(_KEYS), *_KEYS)
    except AWAY:
        raise
    except ResponseError as error:
        raise ConnectionFailed(f"Redis at {address(client)} {_missing(error)}") from error


def _missing(error: ResponseError) -> str:
    text = str(error)
    lower = text.lower()
    if "crossslot" in lower or "cluster" in lower or lower.startswith("moved"):
        return f"is a cluster ({text}): RQ and PySplash need a single server, or one with Sentinel"
    if "key" in lower and "permission" in lower:
        return f"refuses keys that PySplash uses ({text}): allow the user rq:* and pysplash:*"
    if "unknown command" in lower or "permission" in lower or "not supported" in lower:
        return f"does not run scripts ({text}): PySplash needs EVAL, EVALSHA and SCRIPT LOAD"
    return f"is too old ({text}): PySplash needs Redis 6.2 or newer, or Valkey"
