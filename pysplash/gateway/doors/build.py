"""What a gateway needs of a door, and how one of each kind is built."""

from __future__ import annotations

import importlib
import socket
from dataclasses import dataclass
from typing import Any, Protocol

from pysplash.errors import ConfigError
from pysplash.framed import split_address
from pysplash.gateway.admission import Dispatcher
from pysplash.gateway.auth import Logins
from pysplash.gateway.binding import LOCAL_NAMES

from .framed import FramedDoor
from .rpc import Rpc


class Door(Protocol):
    """A door of one *kind*: framed, HTTP or ZeroMQ."""

    kind: str

    @property
    def address(self) -> str:
        """Its address."""

    async def open(self) -> None:
        """Open it."""

    async def close(self, seconds: float) -> None:
        """Close it: running calls may finish, for *seconds* at most."""


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """The settings of a gateway's doors; see :class:`~pysplash.Gateway`."""

    task: str | None
    http: str | None
    zmq: str | None
    logins: Logins | None
    curve: tuple[str | None, str | None]
    tracebacks: bool
    limit: int
    deadline: float
    connections: int

    @property
    def hosts(self) -> list[str] | None:
        """What a Host header may say: without a token, only what means this machine."""
        if self.logins is not None or self.http is None:
            return None
        return [*LOCAL_NAMES, "127.0.0.1", "::1", split_address(self.http)[0]]


@dataclass(frozen=True, slots=True)
class DoorPlace:
    """One door among all: its *place*, its *listener*, the *most* calls it accepts."""

    dispatcher: Dispatcher
    place: int
    most: int
    listener: socket.socket | None


def build(kind: str, way: DoorPlace, settings: DoorSettings) -> Door:
    """Return a door of this *kind*, still to be opened."""
    calls = way.dispatcher.door_limit(way.place, way.most)
    share = way.dispatcher.memory.share(way.place)
    bounds: dict[str, Any] = {"limit": settings.limit, "deadline": settings.deadline}
    streams: dict[str, Any] = bounds | {
        "connections": settings.connections,
        "logins": settings.logins,
    }
    if kind == "framed":
        assert settings.task is not None
        assert way.listener is not None
        return FramedDoor(way.listener, calls, share, task=settings.task, **streams)
    rpc = Rpc(way.dispatcher, calls, tracebacks=settings.tracebacks)
    module = door_module(kind)
    door: Door
    if kind == "HTTP":
        door = module.HttpDoor(way.listener, rpc, share, hosts=settings.hosts, **streams)
    else:
        secret, clients = settings.curve
        door = module.ZmqDoor(settings.zmq, rpc, share, secret=secret, clients=clients, **bounds)
    return door


def door_module(kind: str) -> Any:
    """Return the module of a door, which needs what not everybody has installed."""
    module = {"HTTP": "http", "ZeroMQ": "zmq"}[kind]
    try:
        return importlib.import_module(f".{module}", __package__)
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: pip install h11 pyzmq") from error
