"""Dialing: one connection of redis-py's asyncio, to wherever an address leads."""

from __future__ import annotations

from typing import Any

from redis.asyncio import connection as transports
from redis.asyncio import sentinel as sentinels
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .config import Address
from .errors import ConfigError


async def connect(place: Address) -> transports.AbstractConnection:
    """Return an open connection to *place* that speaks RESP3; raise redis's errors.

    Behind Sentinel it is one to the server that is the primary now, or they say so.
    """
    kind: Any = connection_class(place)
    options = place.options | {"protocol": 3}
    asked = place.sentinels
    if asked is None:
        connection: transports.AbstractConnection = kind(**options)
        await connection.connect()
        return connection
    settings = {"retry": Retry(NoBackoff(), 0)} | asked.options
    manager = sentinels.Sentinel(list(asked.hosts), sentinel_kwargs=settings, **asked.trust)
    pool = sentinels.SentinelConnectionPool(asked.service, manager, connection_class=kind)
    connection = kind(connection_pool=pool, **options)
    try:
        await connection.connect()
    finally:
        for client in manager.sentinels:
            await client.aclose()
    return connection


def connection_class(place: Address) -> type[transports.AbstractConnection]:
    """Return asyncio's twin of an address's kind of connection.

    Raises :class:`ConfigError` for a kind that has none.
    """
    home = transports if place.sentinels is None else sentinels
    kind: type[transports.AbstractConnection] | None = getattr(
        home, place.connection_class.__name__, None
    )
    if kind is None:
        raise ConfigError(
            "an AsyncClient needs a URL such as redis://localhost:6379/0, or a Sentinel's client: "
            f"it cannot connect by {place.connection_class.__name__}"
        )
    return kind
