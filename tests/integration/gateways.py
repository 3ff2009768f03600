"""A gateway in a thread, and peers that are nothing but sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from pysplash import Gateway
from pysplash.application.handlers import Handler
from pysplash.application.registry import REGISTRY, TaskSpec
from pysplash.framed import split_address
from pysplash.gateway.shutdown import Shutdown
from tests.integration.door_pools import SPECS, HandPool

#: seconds for anything that has to happen, on a machine that does much else
BOUND = 20.0


def double(data: bytes) -> bytes:
    """Return it twice; of some words, something else."""
    if data == b"boom":
        raise LookupError("a secret place")
    if data == b"text":
        return "text"  # type: ignore[return-value]
    return data * 2


DOUBLE = TaskSpec("it.double", signature="(base64: str) -> str")
SQUARE = TaskSpec("it.square", signature="(number: int) -> int")
REGISTRY.add(Handler(double), DOUBLE)


def announce(redis: Redis, **settings: Any) -> HandPool:
    """Say that there is a pool, which serves what gateways call in tests."""
    pool = HandPool(redis, **settings)
    pool.presence.set_tasks((*(spec for spec in SPECS if spec.name != SQUARE.name), SQUARE, DOUBLE))
    pool.stay()
    return pool


@contextmanager
def opened(url: str, **settings: Any) -> Iterator[Gateway]:
    """Serve with a gateway in a thread for the length of the block."""
    gateway = Gateway(url, **settings)
    ready = threading.Event()
    told: list[Any] = []

    async def serve() -> None:
        shutdown = Shutdown()
        told.extend([asyncio.get_running_loop(), shutdown])
        await gateway.serve(shutdown, lambda _: ready.set())

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(BOUND), "the gateway does not open"
    try:
        yield gateway
    finally:
        loop, shutdown = told
        if thread.is_alive():
            loop.call_soon_threadsafe(shutdown.ask)
        thread.join(2 * BOUND)
        assert not thread.is_alive(), "the gateway does not close"


def dial(address: str) -> socket.socket:
    """Return a connection to ``"host:port"`` that gives up at some time."""
    return socket.create_connection(split_address(address), BOUND)


def hear(connection: socket.socket) -> bytes:
    """Return all that comes until the end; raise ConnectionResetError if that is a reset."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def said(address: str, *parts: bytes, end: bool = False) -> bytes | None:
    """Send *parts*, end the sending side if *end*, and return the answer; None for a reset."""
    try:
        with dial(address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                connection.sendall(part)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return hear(connection)
    except TimeoutError:
        raise
    except OSError:
        return None


def reset(connection: socket.socket) -> None:
    """End a connection rudely."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
