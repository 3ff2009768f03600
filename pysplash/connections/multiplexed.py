"""One Redis connection for many concurrent commands, for asyncio.

redis-py opens the connection (addresses, TLS, Sentinel, authentication). From then on commands are
sent as they come, and each reply goes to the oldest command that has none. So a caller that is
cancelled leaves the order of replies as it was. Pushes of the server (RESP3) are read between them.
Whether the server tells of changes is tried when the connection is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.asyncio import connection as transports
from redis.asyncio import sentinel as sentinels
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pysplash.errors import ConfigError

from .address import Address
from .foreign import understood
from .outage import failure
from .refusals import lacks_hello
from .scripts import ScriptCall, sha

#: bytes taken in at once
BUFFER = 65536
#: bytes that may wait to be sent before callers wait for them to be
HIGH_WATER = 2**20
#: seconds without a byte, while replies are waited for, after which the connection counts as dead
ANSWER = 10.0
#: how often that is checked within this time
LOOKS = 5
Word = str | bytes | int | float
#: told the key that has changed; None: any may have
Hear = Callable[[bytes | None], None]
#: errors of a server that cannot serve now: another one may be the primary
ELSEWHERE = (ReadOnlyError, MasterDownError, BusyLoadingError)
_NOTHING = object()
_pack: Any = hiredis.pack_command


class _Packet:
    """Commands sent together, their replies so far, and the future for all of them."""

    __slots__ = ("count", "future", "replies")

    def __init__(self, count: int, future: asyncio.Future[list[Any]]) -> None:
        self.count = count
        self.future = future
        self.replies: list[Any] = []


class MultiplexedConnection(asyncio.BufferedProtocol):
    """One connection shared by many callers of one event loop; once broken it stays so.

    *answer* is how many seconds may pass without a byte while replies are waited for.
    """

    def __init__(self, place: Address, hear: Hear, answer: float = ANSWER) -> None:
        self._place = place
        self._seconds = answer
        self._connection: Any = None
        self._transport: Any = None
        self._hear = hear
        self._waiting: deque[_Packet] = deque()
        self._parser: Any = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(BUFFER)
        self._writable = asyncio.Event()
        self._writable.set()
        #: the next check for silence, and how many in a row found no new byte
        self._alarm: asyncio.TimerHandle | None = None
        self._quiet = 0
        self._error: Exception | None = RedisConnectionError("the connection is not open")
        #: why the server does not tell of changed keys; empty if it does
        self.untold = ""

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent, as it is not open yet or was lost."""
        return self._error is not None

    async def open(self) -> None:
        """Connect and have the server tell of the keys that are read; raise redis's errors.

        :attr:`untold` says why it does not, where it cannot or may not.
        """
        self._connection = await self._connect()
        self._transport = self._connection._writer.transport
        self._transport.set_write_buffer_limits(HIGH_WATER)
        self._transport.set_protocol(self)
        self._error = None
        try:
            if not self.untold:
                await self.call("CLIENT", "TRACKING", "ON", "NOLOOP")
        except ResponseError as error:
            self.untold = str(error)
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> transports.AbstractConnection:
        """Return an open connection; one without RESP3, and so without pushes, if need be."""
        try:
            return await connect(self._place)
        except RedisError as error:
            if not lacks_hello(error):
                raise
            self.untold = str(error)
        return await connect(self._place, protocol=2)

    def leave(self) -> None:
        """Hang up where the event loop is closed, so that nothing can be waited for."""
        connection, transport = self._connection, self._transport
        self._error = self._error or RedisConnectionError("its event loop was closed")
        self._connection = None
        if connection is not None:
            connection._reader = connection._writer = None
        if transport is not None:
            with contextlib.suppress(OSError, AttributeError, NotImplementedError):
                transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Disconnect; whoever still waits for a reply gets an error."""
        self._break(RedisConnectionError("the connection was closed"))
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def call(self, *words: Word) -> Any:
        """Send one command and return its reply; raise ResponseError if it is an error."""
        (reply,) = await self.call_all([words])
        if isinstance(reply, hiredis.ReplyError):
            raise ResponseError(str(reply))
        return reply

    async def call_all(self, commands: list[tuple[Word, ...]]) -> list[Any]:
        """Send commands in one packet and return their replies, errors among them as they are."""
        if self._error is not None:
            raise self._error
        if not commands:
            return []
        packed = b"".join([_pack(command) for command in commands])
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Packet(len(commands), future))
        if self._alarm is None:
            self._quiet = 0
            self._watch_silence()
        self._transport.write(packed)
        if not self._writable.is_set():
            await self._writable.wait()
        return await future

    async def script(self, text: str, *words: Word) -> Any:
        """Run a script by its hash; send its text if the server does not have it."""
        (reply,) = await self.script_for_all(text, [((), words)])
        if isinstance(reply, hiredis.ReplyError):
            raise ResponseError(str(reply))
        return reply

    async def script_for_all(self, text: str, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run a script once for each of *calls*, in one packet.

        Of what it reads a server may tell only of the keys that it is given as such. Returns the
        replies, errors among them as they are.
        """
        replies: list[Any] = [None] * len(calls)
        left: list[int] = list(range(len(calls)))
        head: tuple[Word, Word] = ("EVALSHA", sha(text))
        while left:
            commands: list[tuple[Word, ...]] = []
            for number in left:
                keys, words = calls[number]
                commands.append((*head, len(keys), *keys, *words))
                head = ("EVALSHA", sha(text))
            for number, reply in zip(left, await self.call_all(commands), strict=True):
                replies[number] = reply
            left, head = [n for n in left if _is_unknown(replies[n])], ("EVAL", text)
        return replies

    # --- what the transport asks of a protocol ---

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer for incoming bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse incoming bytes and deliver complete replies."""
        self._quiet = 0
        try:
            self._parser.feed(self._buffer, 0, nbytes)
            while self._error is None and (reply := self._parser.gets()) is not _NOTHING:
                self._deliver(reply)
        except hiredis.ProtocolError as error:
            self._break(RedisConnectionError(str(error)))

    def eof_received(self) -> None:
        """Fail all pending commands: the server closed the connection."""
        self._break(RedisConnectionError("Redis closed the connection"))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all pending commands: the connection is lost."""
        self._break(RedisConnectionError(str(error or "Redis closed the connection")))

    def pause_writing(self) -> None:
        """Let callers wait until the send buffer has room."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let callers continue: the send buffer has room."""
        self._writable.set()

    def _watch_silence(self) -> None:
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(self._seconds / LOOKS, self._check_silence)

    def _check_silence(self) -> None:
        """Close the connection if replies are pending and no byte came for too long."""
        self._alarm = None
        self._quiet += 1
        if self._waiting and self._quiet > LOOKS:
            self._break(RedisTimeoutError(f"nothing came for {self._seconds:g} s"))
        elif self._waiting:
            self._watch_silence()

    def _deliver(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if reply[0] == b"invalidate":
                for key in reply[1] or (None,):
                    self._hear(key)
            return
        if isinstance(reply, hiredis.ReplyError) and isinstance(failure(str(reply)), ELSEWHERE):
            self._break(RedisConnectionError(str(reply)))
            return
        packet = self._waiting[0]
        packet.replies.append(reply)
        if len(packet.replies) == packet.count:
            self._waiting.popleft()
            if not packet.future.done():
                packet.future.set_result(packet.replies)

    def _break(self, error: Exception) -> None:
        """Fail all pending commands, and report that any key may have changed."""
        if self._error is None:
            self._error = error
            self._transport.abort()
            self._hear(None)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._writable.set()
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(error)
                future.exception()  # a caller that went away does not ask


def _is_unknown(reply: Any) -> bool:
    """Return whether a reply says that the server does not have the script."""
    return isinstance(reply, hiredis.ReplyError) and "NOSCRIPT" in str(reply)


async def connect(place: Address, protocol: int = 3) -> transports.AbstractConnection:
    """Return an open connection to *place* that speaks RESP3, or another; raise redis's errors.

    Behind Sentinel it is one to the server that is the primary now, or they say so.
    """
    kind: Any = connection_class(place)
    options = understood(kind, place.options) | {"protocol": protocol}
    asked = place.sentinels
    if asked is None:
        connection: transports.AbstractConnection = kind(**options)
        await connection.connect()
        return connection
    settings = {"retry": Retry(NoBackoff(), 0)} | asked.options
    manager = sentinels.Sentinel(list(asked.hosts), sentinel_kwargs=settings, **asked.trust)
    pool = sentinels.SentinelConnectionPool(asked.service, manager, connection_class=kind)
    connection = kind(connection_pool=pool, **options)
    try:
        await connection.connect()
    finally:
        for client in manager.sentinels:
            await client.aclose()
    return connection


def connection_class(place: Address) -> type[transports.AbstractConnection]:
    """Return the asyncio class for an address's kind of connection.

    Raises :class:`ConfigError` for a kind that has none.
    """
    home = transports if place.sentinels is None else sentinels
    kind: type[transports.AbstractConnection] | None = getattr(
        home, place.connection_class.__name__, None
    )
    if kind is None:
        raise ConfigError(
            "an AsyncClient needs a URL such as redis://localhost:6379/0, or a Sentinel's client: "
            f"it cannot connect by {place.connection_class.__name__}"
        )
    return kind
