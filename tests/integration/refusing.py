"""Users whom a server refuses some commands, as managed services and access lists do."""

from __future__ import annotations

from redis import Redis

#: what each of them may not use
REFUSED = {
    "no_tracking": ("-client|tracking",),
    "no_client": ("-client",),
    "no_closing": ("-client|kill", "-client|list"),
    "no_scripts": ("-@scripting",),
}


def add_user(redis: Redis, name: str) -> str:
    """Add the user *name* to the server of *redis*; return its URL for that user."""
    rules = ("on", ">secret", "~*", "&*", "+@all", *REFUSED[name])
    redis.execute_command("ACL", "SETUSER", name, *rules)
    path = redis.connection_pool.connection_kwargs["path"]
    return f"unix://{name}:secret@{path}"
