"""Frames, and the caller's side of a framed door: one request, one answer, over a plain socket.

A frame is a length of four bytes, unsigned and in network order, then that many bytes. A length is
checked before anything is kept for it.

Nothing but the standard library's ``socket`` is used, looked up when it is called, so what makes
sockets cooperative by replacing it (gevent, eventlet) makes this cooperative too.
"""

from __future__ import annotations

import socket
import struct
import time

from .errors import CallTimeout, ConfigError, DoorClosed, FrameError

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


_LENGTH = struct.Struct("!I")
#: bytes of a length, and the most that one can say
HEADER, MOST = _LENGTH.size, 2**32 - 1
#: bytes a frame may carry unless told otherwise
LIMIT = 2**20


def pack(payload: bytes) -> bytes:
    """Return *payload* as a frame; raise :class:`FrameError` for what fits into none."""
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise FrameError(f"a frame carries bytes, not {type(payload).__name__}: encode it first")
    data = bytes(payload)
    if len(data) > MOST:
        raise FrameError(f"{len(data)} bytes do not fit into one frame: send at most {MOST}")
    return _LENGTH.pack(len(data)) + data


def unpack(frame: bytes, limit: int = LIMIT) -> bytes:
    """Return what one whole frame carries; raise :class:`FrameError` for anything else."""
    reader = FrameReader(limit)
    payloads = reader.feed(frame)
    if len(payloads) != 1 or reader.begun:
        raise FrameError(f"{len(frame)} bytes are not one whole frame: give exactly one")
    return payloads[0]


def is_whole(data: bytes) -> bool:
    """Return whether *data* are one frame, no more and no less."""
    return len(data) >= HEADER and len(data) == HEADER + _LENGTH.unpack_from(data)[0]


class FrameReader:
    """Decodes frames from bytes that come in parts of any size.

    It never holds more than one frame; who reads no more than :attr:`wanted` bytes at a time
    never holds more than that either. *limit* is bytes a frame may carry.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held = bytearray()
        self._length: int | None = None

    @property
    def wanted(self) -> int:
        """Bytes missing to the end of the length, or of the frame."""
        return (HEADER if self._length is None else self._length) - len(self._held)

    @property
    def begun(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._held) or self._length is not None

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take in *data*; return the payloads of the frames it completes.

        Raises :class:`FrameError` for a length above the limit, once that length is known.
        """
        payloads: list[bytes] = []
        view = memoryview(data)
        while True:
            taken = min(self.wanted, len(view))
            self._held += view[:taken]
            view = view[taken:]
            if self.wanted:
                return payloads
            held = bytes(self._held)
            self._held.clear()
            if self._length is None:
                self._length = self._checked(_LENGTH.unpack(held)[0])
            else:
                payloads.append(held)
                self._length = None

    def first(self, data: bytes) -> bytes | None:
        """Take in *data* up to the end of one frame; return its payload, None if it is incomplete.

        Nothing of what follows that frame is looked at.
        """
        if not self.begun and len(data) >= HEADER:  # mostly it is all there
            end = HEADER + self._checked(_LENGTH.unpack_from(data)[0])
            if len(data) >= end:
                return data[HEADER:end]
        view = memoryview(data)
        while view:
            part = view[: self.wanted]
            view = view[len(part) :]
            if payloads := self.feed(part):
                return payloads[0]
        return None

    def _checked(self, length: int) -> int:
        if length > self._limit:
            raise FrameError(
                f"a frame announces {length} bytes, {self._limit} are allowed: send less at once"
            )
        return length
