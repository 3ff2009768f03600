"""The gateway: doors, each a process with an event loop, for programs that do not speak RQ.

It reads no pickles and imports no code of the application: it calls tasks by the names that
living pools publish, and gets JSON back.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

from redis import Redis

from pysplash.application.handlers import task_name
from pysplash.application.registry import check_name
from pysplash.config import check_number
from pysplash.errors import EXIT_OK, ConfigError
from pysplash.framed import LIMIT, split_address
from pysplash.host.processes import thread_count
from pysplash.log import logger

from .admission import Dispatcher
from .auth import Logins
from .binding import check_bind, listen
from .doors.build import Door, DoorPlace, DoorSettings, build, door_module
from .memory import DoorCounts, Memory, kept
from .processes import DoorProcesses
from .shutdown import Shutdown
from .tuning import tune_loop, tune_process

#: seconds a call may take at most
LONGEST = 86400.0
TOKEN = "a token with --token-file"

log = logger("gateway")


class Gateway:
    """Doors for programs that do not speak RQ; ``Gateway(url, http="127.0.0.1:8080").run()``.

    *tcp* (``"host:port"``) opens a framed door to the one *handler*: ``"module:function"`` as
    pools serve it with ``--handler``, or the name of a task from base64 text to base64 text.
    *http* (``"host:port"``) takes JSON-RPC 2.0 at ``POST /rpc``; *zmq* takes it at an endpoint
    ``ipc:///path`` or ``tcp://host:port``. Port 0 is any free one; :attr:`addresses` says which.
    A listening socket may stand for *tcp*. Redis is found as a :class:`~pysplash.Client` finds it.

    A door that others than this machine can reach needs a key: *token* for *tcp* and *http*,
    *curve_secret* and *curve_clients* for *zmq*.

    A call may take *timeout* seconds, and wait *patience* seconds for a pool that serves it. Each
    door takes on *inflight* calls and, for streams, *connections* at a time; a request has
    *limit* bytes at most and is whole within *deadline* seconds; requests that wait hold *memory*
    bytes together. Whatever is beyond gets an answer that says so, or a closed connection. On
    the first TERM or INT running calls may finish, for *drain* seconds; on the second they end.

    Raises :class:`~pysplash.errors.ConfigError`, and :class:`~pysplash.errors.UnsafeBind`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        connection: Redis | None = None,
        tcp: str | socket.socket | None = None,
        handler: str | None = None,
        http: str | None = None,
        zmq: str | None = None,
        token: str | None = None,
        curve_secret: str | None = None,
        curve_clients: str | None = None,
        timeout: float = 60.0,
        patience: float = 0.0,
        inflight: int = 256,
        connections: int = 256,
        limit: int = LIMIT,
        deadline: float = 10.0,
        memory: int = 12 * 2**20,
        drain: float = 25.0,
        tracebacks: bool = False,
    ) -> None:
        if tcp is None and http is None and zmq is None:
            raise ConfigError("no door is named: give at least one of --tcp, --http and --zmq")
        if (tcp is None) != (handler is None):
            raise ConfigError("a framed door and its handler go together: give --tcp and --handler")
        if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
            raise ConfigError("the token is empty or not plain text: give printable ASCII")
        check_number("timeout", timeout, 0.001, LONGEST)
        check_number("patience", patience, 0, LONGEST)
        check_number("drain", drain, 0, LONGEST)
        check_number("deadline", deadline, 0.001, LONGEST)
        for name, value in (("inflight", inflight), ("connections", connections)):
            check_number(name, value, 1, 10**6, whole=True)
        check_number("limit", limit, 1, 2**32 - 1, whole=True)
        check_number("memory", memory, limit, math.inf, whole=True)
        self._redis = (url, connection)
        self._tcp, self._http = tcp, http
        self._settings = DoorSettings(
            task=None if handler is None else handler_task(handler),
            http=http,
            zmq=zmq,
            logins=None if token is None else Logins(token),
            curve=(curve_secret, curve_clients),
            tracebacks=tracebacks,
            limit=limit,
            deadline=deadline,
            connections=connections,
        )
        self._calls = {"timeout": timeout, "patience": patience}
        self._inflight, self._memory = inflight, memory
        self._drain = drain
        self._doors: list[Door] = []
        ways = {"framed": tcp, "HTTP": http, "ZeroMQ": zmq}
        #: the kinds of all doors, in the order of their places, and of those of this process
        self._kinds = tuple(kind for kind, place in ways.items() if place is not None)
        self._mine = self._kinds
        self._counts = DoorCounts(len(self._kinds))
        self._listeners: dict[str, socket.socket] = {}
        self._dispatcher: Dispatcher | None = None
        #: the event loop in which it is open
        self._loop: asyncio.AbstractEventLoop | None = None
        #: where the doors are, by their kinds
        self.addresses: dict[str, str] = {}
        for door, address in (("framed", tcp), ("HTTP", http)):
            if isinstance(address, str):
                check_bind(door, split_address(address)[0], token, TOKEN)
        if http is not None:
            door_module("HTTP")
        if zmq is not None:
            door_module("ZeroMQ").check_endpoint(zmq, curve_secret, curve_clients)

    def run(self, opened: Callable[[Gateway], None] | None = None) -> int:
        """Serve until TERM or INT; return the exit status. *opened* is called once it serves.

        It has this process for itself. Each door, if there are several, has a process of its own,
        which is replaced if it dies; in a program that already has other threads, which
        must not be forked, all doors are in this one. Raises
        :class:`~pysplash.errors.CrashLoop` if one dies again and again;
        :class:`~pysplash.errors.ConfigError` in any thread but the main one, which has the signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError(
                "Gateway.run() heeds signals, which only the main thread gets: run it there, or "
                "await Gateway.open() in this thread's own event loop"
            )
        tune_process()
        if len(self._kinds) > 1 and thread_count() == 1:
            return self._run_apart(opened)

        async def serve() -> None:
            shutdown = Shutdown()
            shutdown.heed_signals()
            tune_loop()
            await self.serve(shutdown, opened)

        asyncio.run(serve())
        return EXIT_OK

    async def serve(
        self, shutdown: Shutdown, opened: Callable[[Gateway], None] | None = None
    ) -> None:
        """Serve until *ending* is asked for, in this process and the loop that runs."""
        await self.open()
        if opened is not None:
            opened(self)
        await shutdown.asked.wait()
        which = ", ".join(door.kind for door in self._doors)
        log.info("closing %s: running calls may finish", which, extra={"action": "drain"})
        closing = asyncio.create_task(self.close())
        hurry = asyncio.create_task(shutdown.now.wait())
        await asyncio.wait([closing, hurry], return_when=asyncio.FIRST_COMPLETED)
        for task in (hurry, closing):
            task.cancel()
        await asyncio.gather(hurry, closing, return_exceptions=True)
        await self.close(0)

    async def open(self) -> None:
        """Open all doors, in this process and the loop that runs; on an error none stays open.

        Raises :class:`~pysplash.errors.ConfigError` if it is open already.
        """
        self._check_loop()
        if self._loop is not None:
            raise ConfigError("the gateway is open already: close it first, or make another one")
        self._loop = asyncio.get_running_loop()
        url, connection = self._redis
        kept_each = kept(self._memory, len(self._kinds), self._settings.limit)
        memory = Memory(self._memory, self._counts, kept_each)
        self._dispatcher = Dispatcher(
            url, connection, **self._calls, counts=self._counts, memory=memory
        )
        try:
            self._bind()
            for number, kind in enumerate(self._kinds):
                if kind in self._mine:
                    listener = self._listeners.get(kind)
                    way = DoorPlace(self._dispatcher, number, self._inflight, listener)
                    self._doors.append(build(kind, way, self._settings))
                    await self._doors[-1].open()
            await self._dispatcher.open()
        except BaseException:
            await self.close(0)
            raise
        for door in self._doors:
            self.addresses[door.kind] = door.address
            log.info("%s door at %s", door.kind, door.address, extra={"action": "open"})

    async def close(self, seconds: float | None = None) -> None:
        """Close all doors; calls that are running may finish for *seconds* (None: *drain*).

        Raises :class:`~pysplash.errors.ConfigError` in another event loop than :meth:`open`.
        """
        self._check_loop()
        patience = self._drain if seconds is None else seconds
        await asyncio.gather(*(door.close(patience) for door in self._doors))
        self._doors = []
        self._unbind()
        if self._dispatcher is not None:
            await self._dispatcher.settle(patience)
            await self._dispatcher.close()
            self._dispatcher = None
        self._loop = None

    def _check_loop(self) -> None:
        """Raise an error if it is open in another loop; forget what was in one that is closed."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return
        if not self._loop.is_closed():
            raise ConfigError(
                "the gateway is open in another event loop: close it there, where it was opened"
            )
        self._doors, self._dispatcher, self._loop = [], None, None
        self._unbind()

    def _run_apart(self, opened: Callable[[Gateway], None] | None) -> int:
        """Serve with a process for each door."""

        def tell(addresses: dict[str, str]) -> None:
            self.addresses.update(addresses)
            if opened is not None:
                opened(self)

        self._bind()
        return DoorProcesses(
            self._kinds,
            self._serve_one,
            forget=lambda kind: self._counts.leave(self._kinds.index(kind)),
            shut=self._unbind,
            drain=self._drain,
        ).run(tell)

    async def _serve_one(self, kind: str, shutdown: Shutdown, tell: Callable[[str], None]) -> None:
        """Serve at one door, in its own process."""
        self._mine = (kind,)
        self._unbind(kind)
        if kind == "ZeroMQ":  # one that follows another opens the same
            place = self.addresses.get(kind, self._settings.zmq)
            self._settings = replace(self._settings, zmq=place)
        tune_loop()
        await self.serve(shutdown, lambda _: tell(self.addresses[kind]))

    def _bind(self) -> None:
        """Listen, for the doors of this process, where that is not done yet."""
        try:
            for kind, place in (("framed", self._tcp), ("HTTP", self._http)):
                if place is not None and kind in self._mine and kind not in self._listeners:
                    self._listeners[kind] = listen(place) if isinstance(place, str) else place
        except ConfigError:
            self._unbind()
            raise

    def _unbind(self, *but: str) -> None:
        """Listen no longer."""
        for kind in self._listeners.keys() - set(but):
            self._listeners.pop(kind).close()


def handler_task(handler: str) -> str:
    """Return the task that *handler* means: ``module:function``, or a task's own name."""
    return task_name(handler) if ":" in handler else check_name(handler)
