"""Redis clients from a URL, a client or an address, and checks that say why Redis is not there."""

from __future__ import annotations

import pickle
import re
from typing import Any
from urllib.parse import urlsplit

import redis
from redis import ConnectionPool, Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import DefaultParser
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from rq.connections import parse_connection
from rq.job import Job

from pysplash.errors import ConfigError, ConnectionFailed

from .address import Address, Sentinels
from .outage import REFUSALS, UNREACHABLE
from .refusals import refusal

#: what redis-py tells the server about itself, worked out once and not at every connection
if hasattr(redis, "DriverInfo"):
    _DRIVER: dict[str, Any] = {"driver_info": redis.DriverInfo()}
else:
    _DRIVER = {"lib_version": redis.__version__}

#: seconds the pool waits for an answer before it goes on without
ANSWER = 2.0
#: seconds a sentinel may take to answer before the next one is asked, if it is not said
ASKED = 1.0
#: what a connection pool keeps for itself among its options, by the versions of redis-py
STAYS_HERE = {
    "connection_pool",
    "event_dispatcher",
    "himport_registry",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "orig_host_address",
    "orig_socket_connect_timeout",
    "orig_socket_timeout",
    "retry",
}
HOW_TO_GET_ONE = "start one, name another with -u, or let --embedded bring its own"


class _HangsUp:
    """A connection found through Sentinel that is closed after an error, as redis-py's others are.

    Redis-py's own stays open where a reply did not come in time or the wait was interrupted: at a
    server that hangs, and with a reply under way that the next command would take for its own
    (redis-py#4292).
    """

    def read_response(self, *arguments: Any, **settings: Any) -> Any:
        """Return the next reply."""
        settings = {"disconnect_on_error": True} | settings
        return super().read_response(*arguments, **settings)  # type: ignore[misc]


class _Managed(_HangsUp, SentinelManagedConnection):
    pass


class _ManagedSSL(_HangsUp, SentinelManagedSSLConnection):
    pass


_MENDED: dict[type[Any], type[Any]] = {
    SentinelManagedConnection: _Managed,
    SentinelManagedSSLConnection: _ManagedSSL,
}
_AS_ASKED_FOR = {used: asked for asked, used in _MENDED.items()}


def mended(kind: type[Any]) -> type[Any]:
    """Return the class of connections to use where *kind* is asked for."""
    return _MENDED.get(kind, kind)


class Parser(DefaultParser):  # type: ignore[valid-type, misc]
    """redis-py's parser, extended by error codes of Redis that redis-py has no class for."""

    EXCEPTION_CLASSES = DefaultParser.EXCEPTION_CLASSES | REFUSALS


def from_url(url: str, redis_class: type[Redis] = Redis) -> Redis:
    """Return a client for *url*; raise :class:`ConfigError` if it does not parse."""
    try:
        client: Redis = redis_class.from_url(url)
        parts = urlsplit(url)
        if parts.scheme in ("redis", "rediss") and parts.path.strip("/"):
            int(parts.path.strip("/"))
    except (ValueError, TypeError) as error:
        scheme, separator, rest = url.rpartition("://")
        secret, at, place = rest.rpartition("@")
        shown = f"{scheme}{separator}{'***@' if at else ''}{place}"
        why = "" if secret else f" ({error})"
        raise ConfigError(
            f"url {shown!r} does not parse{why}: "
            "give one such as redis://localhost:6379/0 or unix:///run/redis.sock"
        ) from error
    return client


def address(client: Redis) -> str:
    """Say where *client* connects to, without its password."""
    pool = client.connection_pool
    options = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        places = ", ".join(f"{host}:{port}" for host, port in _places(pool))
        return f"{pool.service_name}/{options.get('db', 0)} (by Sentinel at {places})"
    if "path" in options:
        return f"unix://{options['path']}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"


def check(client: Redis) -> None:
    """Raise :class:`ConnectionFailed`, saying why and what to do, unless Redis answers."""
    try:
        client.ping()
    except AuthenticationError as error:
        raise ConnectionFailed(
            f"Redis at {address(client)} refuses the password or user ({error}): "
            "give it as redis://user:password@host or in REDIS_PASSWORD"
        ) from error
    except UNREACHABLE as error:
        raise ConnectionFailed(
            f"no Redis answers at {address(client)}: {HOW_TO_GET_ONE}"
        ) from error
    except RedisError as error:
        if "auth" in str(error).lower():
            raise ConnectionFailed(
                f"Redis at {address(client)} demands a password ({error}): "
                "give it as redis://user:password@host or in REDIS_PASSWORD"
            ) from error
        if "HELLO" in str(error).upper():
            raise ConnectionFailed(f"Redis at {address(client)} {refusal(error)}") from error
        raise ConnectionFailed(f"Redis at {address(client)} refuses: {error}") from error


def numbers(clients: bytes, name: str) -> list[int]:
    """Return the ids of the connections called *name* in the output of CLIENT LIST."""
    called = re.compile(rb"^id=(\d+) .*? name=%b " % re.escape(name.encode()), re.MULTILINE)
    return [int(number) for number in called.findall(clients)]


def check_prefix() -> None:
    """Raise :class:`ConfigError` if RQ, as it can since 3.0, is to use other keys than ``rq:``."""
    prefix = Job.redis_job_namespace_prefix.removesuffix(":job:")
    if prefix != "rq":
        raise ConfigError(
            f"RQ_KEY_PREFIX is {prefix!r}: PySplash knows RQ's keys under 'rq' only; unset it, "
            "or give each of its users a Redis database of their own"
        )


def portable(client: Redis) -> Address:
    """Return what another process needs to connect as *client* does.

    Raises :class:`ConfigError` for a client whose settings cannot travel, and where RQ's keys have
    a prefix of the user's own.
    """
    check_prefix()
    redis_class, connection_class, options = parse_connection(client)
    pool = client.connection_pool
    sentinels = _sentinels(pool) if isinstance(pool, SentinelConnectionPool) else None
    kind = _AS_ASKED_FOR.get(connection_class, connection_class)
    address = Address(redis_class, kind, _travelling(options), sentinels)
    try:
        pickle.dumps(address)
    except Exception as error:
        raise ConfigError(
            f"the connection's settings cannot be sent to workers ({error}): give a URL instead"
        ) from error
    return address


def _travelling(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if name not in STAYS_HERE and type(value) is not object
    }


def _sentinels(pool: SentinelConnectionPool) -> Sentinels:
    """Return the sentinels that a *pool* asks."""
    manager = pool.sentinel_manager
    options = {"socket_timeout": ASKED} | _travelling(manager.sentinel_kwargs)
    trust = {"min_other_sentinels": manager.min_other_sentinels}
    instead = getattr(manager, "_force_master_ip", None)
    if instead is not None:  # older ones of redis-py do not take it
        trust["force_master_ip"] = instead
    return Sentinels(pool.service_name, _places(pool), options, trust)


def _places(pool: SentinelConnectionPool) -> tuple[tuple[str, int], ...]:
    """Return where the sentinels are."""
    asked = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    return tuple((str(each["host"]), int(each["port"])) for each in asked)


def reach(address: Address, **changes: Any) -> Redis:
    """Return a new client for *address*, some of its options changed."""
    options = {"parser_class": Parser} | address.options | _DRIVER | changes
    pool: ConnectionPool
    asked = address.sentinels
    if asked is None:
        pool = ConnectionPool(connection_class=address.connection_class, **options)
    else:
        # where one is away the next is asked, not the same again
        asking = {"retry": Retry(NoBackoff(), 0)} | asked.options
        manager = Sentinel(list(asked.hosts), sentinel_kwargs=asking, **asked.trust)
        pool = SentinelConnectionPool(
            asked.service, manager, connection_class=mended(address.connection_class), **options
        )
    return address.redis_class(connection_pool=pool)  # type: ignore[no-any-return]


def own(client: Redis, answer: float = ANSWER, *, repeats: int = 1) -> Redis:
    """Return a client of the pool's own, to the same place, that gives up after *answer* seconds.

    A command whose connection is lost is sent again so many times, whether it was done or not; a
    slow answer is not waited for twice.
    """
    return reach(
        portable(client),
        socket_timeout=answer,
        socket_connect_timeout=answer,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), repeats, (RedisConnectionError,)),
    )
