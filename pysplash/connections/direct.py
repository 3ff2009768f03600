"""A direct connection to Redis, taken over from redis-py once it is open.

redis-py opens it (addresses, TLS, Sentinel, authentication); from then on bytes go straight to
the socket and replies come from hiredis, because a worker's one round trip a job is worth it.
Nothing is ever sent twice. Server pushes (RESP3) are heard between replies.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from typing import Any

import hiredis
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .outage import AWAY, failure

BUFFER = 65536
#: seconds a reply may take before the connection counts as dead
ANSWER = 10.0
_NOTHING = object()
Word = str | bytes | int | float
_pack: Any = hiredis.pack_command


def packed(*words: Word) -> bytes:
    """Return a command as it is sent."""
    command: bytes = _pack(words)
    return command


def _bound(sock: socket.socket, seconds: float) -> None:
    """Set a timeout of *seconds* for each call on *sock*.

    The kernel keeps it: Python's own timeout polls before each call. TLS knows only Python's.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    sock.settimeout(None)
    whole, part = divmod(seconds, 1)
    limit = struct.pack("@ll", int(whole), int(1e6 * part))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, limit)


class DirectConnection:
    """Sends commands and reads replies in order; closed after any error, it must be opened again.

    *answer* is how many seconds the server may take to answer.
    """

    def __init__(self, client: Redis, answer: float = ANSWER) -> None:
        self._pool = client.connection_pool
        self._seconds = answer
        self._connection: Any = None
        self._socket: socket.socket | None = None
        self._reader: Any = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(BUFFER)
        #: whether the server has told of a change since this was last cleared
        self.notified = False

    @property
    def open(self) -> bool:
        """Whether it is connected."""
        return self._socket is not None

    def connect(self) -> None:
        """Open the connection; raise redis's errors if that fails.

        It speaks RESP3, in which servers tell of changes, or RESP2 where the server knows no other.
        """
        self.close()
        try:
            connection = self._connected(3)
        except ResponseError as error:
            if "HELLO" not in str(error).upper():
                raise
            connection = self._connected(2)
        self._connection, self._socket = connection, connection._sock
        _bound(self._socket, self._seconds)
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    def _connected(self, protocol: int) -> Any:
        options = self._pool.connection_kwargs | {"protocol": protocol}
        connection = self._pool.connection_class(**options)
        connection.connect()
        return connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection, self._socket = self._connection, None, None
        if connection is not None:
            connection.disconnect()

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 if there is none."""
        return self._socket.fileno() if self._socket is not None else -1

    def call(self, *words: Word) -> Any:
        """Send one command and return its reply; raise redis's error if it is one."""
        self.send(*words)
        return self.reply()

    def send(self, *words: Word) -> None:
        """Send one command whose reply is waited for later, by :meth:`reply`."""
        self.post(_pack(words))

    def post(self, packet: bytes) -> None:
        """Send commands that are packed, whose replies are waited for later, by :meth:`replies`."""
        if self._socket is None:
            raise RedisConnectionError("the connection is closed")
        try:
            self._socket.sendall(packet)
        except OSError as error:
            raise self._broken(error) from error
        except BaseException:
            self.close()
            raise

    def reply(self) -> Any:
        """Return the reply to what was sent; raise redis's error if it is one."""
        return self.checked(self.replies(1)[0])

    def replies(self, count: int) -> list[Any]:
        """Return the replies to *count* commands that were sent, errors among them as they are."""
        if self._socket is None:
            raise RedisConnectionError("the connection is closed")
        try:
            found: list[Any] = []
            while len(found) < count:
                reply = self._reader.gets()
                if reply is _NOTHING:
                    self._receive()
                elif isinstance(reply, hiredis.PushNotification):
                    self.notified = True
                else:
                    found.append(reply)
            return found
        except OSError as error:
            raise self._broken(error) from error
        except BaseException:
            self.close()
            raise

    def checked(self, reply: Any) -> Any:
        """Return *reply*; raise it if it is an error.

        A server that serves nobody for now is left: the next connection may find one that does.
        """
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        error = failure(str(reply))
        if isinstance(error, AWAY):
            self.close()
        raise error

    def call_all(self, *commands: tuple[Word, ...]) -> list[Any]:
        """Send commands in one packet and return their replies, errors among them as they are."""
        self.post(b"".join([_pack(command) for command in commands]))
        return self.replies(len(commands))

    def _broken(self, error: OSError) -> Exception:
        """Close the connection, perhaps in the middle of a reply; return the error to raise."""
        self.close()
        if isinstance(error, TimeoutError | BlockingIOError):
            return RedisTimeoutError("Redis did not answer in time")
        return RedisConnectionError(str(error))

    def _receive(self) -> None:
        assert self._socket is not None
        count = self._socket.recv_into(self._buffer)
        if count == 0:
            raise RedisConnectionError("Redis closed the connection")
        self._reader.feed(self._buffer, 0, count)

    def listen(self, seconds: float, *others: int) -> list[int]:
        """Wait *seconds* at most for a push; return which *other* descriptors are readable."""
        if self._socket is None:
            raise RedisConnectionError("the connection is closed")
        if self._hear() or self.notified:
            return []
        ready, _, _ = select.select([self._socket.fileno(), *others], [], [], seconds)
        if self._socket.fileno() in ready:
            try:
                self._receive()
            except (OSError, RedisConnectionError) as error:
                self.close()
                raise RedisConnectionError(str(error)) from error
            self._hear()
        return [fd for fd in others if fd in ready]

    def _hear(self) -> bool:
        heard = False
        while (reply := self._reader.gets()) is not _NOTHING:
            heard = self.notified = isinstance(reply, hiredis.PushNotification) or heard
        return heard
