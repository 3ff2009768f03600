"""Where a Redis is, as another process needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The sentinels to ask where a service's primary is."""

    service: str
    hosts: tuple[tuple[str, int], ...]
    #: of the connections to them
    options: dict[str, Any]
    #: how far they are trusted, as redis-py's Sentinel takes it
    trust: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """How to connect to a Redis, in a form that can be sent to another process."""

    redis_class: type[Any]
    connection_class: type[Any]
    options: dict[str, Any]
    sentinels: Sentinels | None = None
