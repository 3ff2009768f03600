"""Clients that are not redis-py's: of valkey-py, of fakeredis, and those that cannot be used.

Where another library speaks Redis's protocol over a socket, redis-py can connect to the same place
in the same way. So outages are known by redis-py's errors alone, whatever client was given.
"""

from __future__ import annotations

import inspect
from typing import Any

import redis.connection
import redis.sentinel
from redis import Redis

from pysplash.errors import ConfigError

#: what a client may be, for errors
GIVE = "give a redis.Redis or valkey.Valkey, or a URL such as redis://localhost:6379/0"
#: settings by which a library tells its own name, or calls its own code
_OWN = {"lib_name", "lib_version", "parser_class", "retry", "retry_on_error", "command_packer"}


def check_client_class(kind: type[Any]) -> None:
    """Raise :class:`ConfigError`, saying what to give, for a class of clients RQ cannot use."""
    clusters = any(each.__name__.endswith("Cluster") for each in kind.__mro__)
    called = f"{kind.__module__.partition('.')[0]}'s {kind.__qualname__}"
    if inspect.iscoroutinefunction(getattr(kind, "execute_command", None)):
        raise ConfigError(f"{called} is for asyncio, which RQ is not: {GIVE}")
    if clusters:
        raise ConfigError(
            f"{called} is for a cluster, over which RQ cannot spread its keys: {GIVE} of one server"
        )


def check_client(client: Any) -> None:
    """Do so for a client, and for what is none."""
    check_client_class(type(client))
    pool = getattr(client, "connection_pool", None)
    if not isinstance(getattr(pool, "connection_kwargs", None), dict):
        raise ConfigError(f"the connection is a {type(client).__qualname__}: {GIVE}")


def is_in_process(client: Any) -> bool:
    """Return whether the server is fakeredis, which no other process can reach."""
    kinds = (type(client), client.connection_pool.connection_class)
    return any(each.__module__.startswith("fakeredis") for kind in kinds for each in kind.__mro__)


def is_of_redis_py(client: Any) -> bool:
    """Return whether a client is redis-py's, or derived from one of these."""
    return isinstance(client, Redis)


def equivalent(client: Any) -> tuple[type[Any], dict[str, Any]]:
    """Return redis-py's class of connections for *client*'s, and their settings.

    Raises :class:`ConfigError` for a class of connections that redis-py has not.
    """
    pool = client.connection_pool
    foreign = pool.connection_class
    kind = next((found for each in foreign.__mro__ if (found := _namesake(each.__name__))), None)
    if kind is None:
        raise ConfigError(f"a connection by {foreign.__qualname__} is not known: {GIVE}")
    taken = _parameters(kind)
    # What is not checked there is not checked here either, and the other way round.
    settings = {name: it for name, it in _parameters(foreign).items() if name.startswith("ssl_")}
    settings |= pool.connection_kwargs
    return kind, {name: it for name, it in settings.items() if name in taken and name not in _OWN}


def understood(kind: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return *options* without those that are off and that the class of connections has not."""
    taken = _parameters(kind)
    return {name: it for name, it in options.items() if name in taken or it not in (None, False)}


def _namesake(name: str) -> type[Any] | None:
    if name in ("AbstractConnection", "object"):
        return None
    for home in (redis.connection, redis.sentinel):
        found = getattr(home, name, None)
        if isinstance(found, type) and issubclass(found, redis.connection.AbstractConnection):
            return found
    return None


def _parameters(kind: type[Any]) -> dict[str, Any]:
    """Return what the class of connections *kind* takes, with the defaults."""
    taken: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        if "__init__" in vars(each) and each is not object:
            for name, parameter in inspect.signature(vars(each)["__init__"]).parameters.items():
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    taken[name] = parameter.default
    return {name: default for name, default in taken.items() if name != "self"}
