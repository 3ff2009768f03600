"""Users whom a server refuses some commands, as managed services and access lists do."""

from __future__ import annotations

from redis import Redis


def _client(*subcommands: str) -> tuple[str, ...]:
    """Return the rules that leave these of CLIENT; Redis 6.2 cannot refuse some of a command."""
    return ("-client", *(f"+client|{word}" for word in subcommands))


#: what each of them may not use
REFUSED = {
    "no_tracking": _client("id", "setname", "getname", "info", "list", "kill", "caching"),
    "no_client": ("-client",),
    "no_closing": _client("id", "setname", "getname", "info", "tracking", "caching"),
    "no_scripts": ("-@scripting",),
}


def add_user(redis: Redis, name: str) -> str:
    """Add the user *name* to the server of *redis*; return its URL for that user."""
    rules = ("on", ">secret", "~*", "&*", "+@all", *REFUSED[name])
    redis.execute_command("ACL", "SETUSER", name, *rules)
    path = redis.connection_pool.connection_kwargs["path"]
    return f"unix://{name}:secret@{path}"
