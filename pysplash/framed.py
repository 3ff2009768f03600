"""The caller's side of a framed door: one request, one answer, over a plain socket.

Nothing but the standard library's ``socket`` is used, looked up when it is called, so what makes
sockets cooperative by replacing it (gevent, eventlet) makes this cooperative too.
"""

from __future__ import annotations

import socket
import time

from .errors import CallTimeout, ConfigError, DoorClosed
from .wire import FrameReader, pack, unpack

__all__ = ["FrameReader", "pack", "request", "unpack"]

CHUNK = 65536


def request(
    address: str, payload: bytes, timeout: float | None = None, *, token: str | None = None
) -> bytes:
    """Send *payload* to the framed door at *address* (``"host:port"``) and return its answer.

    *timeout* is seconds for all of it (None: no limit); *token* is what the door demands, if it
    demands one. Raises :class:`~pysplash.errors.DoorClosed` if there is no door or it gives no
    answer: the handler failed, the frame was too long, the door is busy;
    :class:`~pysplash.errors.CallTimeout`. The form is that of small TCP daemons: a request of
    one frame, an answer of raw bytes, then the end of the connection.
    """
    host, port = split_address(address)
    until = None if timeout is None else time.monotonic() + timeout
    frames = pack(payload) if token is None else pack(token.encode()) + pack(payload)
    try:
        with socket.create_connection((host, port), _left(until)) as connection:
            connection.settimeout(_left(until))
            connection.sendall(frames)
            return _read(connection, until)
    except TimeoutError:
        raise CallTimeout(f"the door at {address} did not answer within {timeout:g} s") from None
    except OSError as error:
        raise DoorClosed(
            f"the door at {address} gave no answer ({error.strerror or error}): it is not there, "
            "is busy, refused the request, or the handler failed"
        ) from error


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``"host:port"``; raise :class:`ConfigError` for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"address {address!r} is no HOST:PORT: give one such as 127.0.0.1:10123")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _read(connection: socket.socket, until: float | None) -> bytes:
    parts: list[bytes] = []
    while True:
        connection.settimeout(_left(until))
        part = connection.recv(CHUNK)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
