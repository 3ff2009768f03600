"""Clients of other libraries for the same protocol: valkey-py's, which RQ takes as well.

Their errors are of classes of their own, and their connections take other settings. So PySplash
talks by redis-py to where they point. (A fakeredis client is one of redis-py already.)
"""

from __future__ import annotations

from typing import Any

from redis import BlockingConnectionPool, ConnectionPool, Redis, connection
from redis.sentinel import Sentinel

#: settings that mean the same in both; those of TLS do, too
_ALIKE = {
    *("host", "port", "path", "db", "username", "password", "client_name"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "health_check_interval"),
    *("encoding", "encoding_errors", "decode_responses", "protocol"),
}


def redis_client(client: Any) -> Redis:
    """Return *client* if it is redis-py's; else a client of redis-py to the same server."""
    pool = client.connection_pool
    if isinstance(pool, ConnectionPool | BlockingConnectionPool):
        return client  # type: ignore[no-any-return]
    options = _plain(pool.connection_kwargs)
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        asked = [each.connection_pool.connection_kwargs for each in manager.sentinels]
        places = [(each["host"], each["port"]) for each in asked]
        sentinel = Sentinel(
            places,
            min_other_sentinels=manager.min_other_sentinels,
            sentinel_kwargs=_plain(manager.sentinel_kwargs),
            **options,
        )
        primary: Redis = sentinel.master_for(pool.service_name)
        return primary
    kind = getattr(connection, pool.connection_class.__name__, pool.connection_class)
    return Redis(connection_pool=ConnectionPool(connection_class=kind, **options))


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that mean the same in both libraries."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and (name in _ALIKE or name.startswith("ssl_"))
    }
