"""Doors: what a gateway needs of one, and how one of each kind is built."""

from __future__ import annotations

import importlib
import socket
from dataclasses import dataclass
from typing import Any, Protocol

from pysplash.errors import ConfigError
from pysplash.framed import split_address
from pysplash.gateway.admission import Exchange
from pysplash.gateway.auth import Logins
from pysplash.gateway.binding import LOCAL_NAMES

from .framed import FramedDoor
from .rpc import Rpc


class Door(Protocol):
    """One way in, of a *kind*."""

    kind: str

    @property
    def address(self) -> str:
        """Where it is."""

    async def open(self) -> None:
        """Open it."""

    async def close(self, seconds: float) -> None:
        """Close it once those who are in have their answers, *seconds* at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the doors of a gateway are told, as :class:`~pysplash.Gateway` was."""

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
class Way:
    """The way of the door in one place: in by a *listener*, on by a lane of *most* calls."""

    exchange: Exchange
    place: int
    most: int
    listener: socket.socket | None


def build(kind: str, way: Way, plan: Plan) -> Door:
    """Return a door of this *kind*, still to be opened."""
    lane, share = way.exchange.lane(way.place, way.most), way.exchange.memory.share(way.place)
    bounds: dict[str, Any] = {"limit": plan.limit, "deadline": plan.deadline}
    streams: dict[str, Any] = bounds | {"connections": plan.connections, "logins": plan.logins}
    if kind == "framed":
        assert plan.task is not None
        assert way.listener is not None
        return FramedDoor(way.listener, lane, share, task=plan.task, **streams)
    rpc = Rpc(way.exchange, lane, tracebacks=plan.tracebacks)
    module = door_module(kind)
    door: Door
    if kind == "HTTP":
        door = module.HttpDoor(way.listener, rpc, share, hosts=plan.hosts, **streams)
    else:
        secret, clients = plan.curve
        door = module.ZmqDoor(plan.zmq, rpc, share, secret=secret, clients=clients, **bounds)
    return door


def door_module(kind: str) -> Any:
    """Return the module of a door, which needs what not everybody has installed."""
    module = {"HTTP": "http", "ZeroMQ": "zmq"}[kind]
    try:
        return importlib.import_module(f".{module}", __package__)
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'pysplash[gateway]'") from error
