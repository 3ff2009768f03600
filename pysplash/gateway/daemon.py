"""A whole TCP daemon around one function: the embedded server, a pool and a framed door.

The daemon itself is the gateway; the server's guard and the pool are its children, in sessions of
their own, so a key pressed at the terminal reaches the daemon alone. It closes the door first,
while the pool still works, then stops the pool, then the server. If it is killed, the server
goes with it, and the pool sees that its parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from pysplash import errors
from pysplash.application.handlers import handler_path
from pysplash.config import check_number
from pysplash.embedded import EmbeddedServer
from pysplash.errors import EXIT_OK, SplashError
from pysplash.framed import split_address
from pysplash.log import logger
from pysplash.supervisor.pool import Pool

from .binding import check_bind, listen
from .gateway import TOKEN, Gateway
from .shutdown import Shutdown
from .tuning import tune_loop, tune_process

QUEUE = "default"
#: seconds the first request may wait for the pool's first worker
PATIENCE = 30.0
#: seconds beyond the time to terminate after which a pool that is to end is killed
MARGIN = 10.0
#: bytes of what a pool says of its end
MOST_WORDS = 65536

_POOL = """\
import sys
sys.path[:] = {path!r}
from pysplash.gateway.daemon_pool import main
sys.exit(main({facts!r}))
"""

log = logger("gateway")


class Daemon:
    """A TCP daemon around one function: ``Daemon(echo, 10123).start()``.

    *handler* is a function from bytes to bytes at the top level of a module (the program's own
    file too, if its start is guarded by ``if __name__ == "__main__"``), or ``"module:function"``.
    Each connection carries one request, a frame, and gets the raw bytes the handler returned,
    then its end; :func:`pysplash.framed.request` sends one. *processes* is how many workers there
    are; None leaves it to the pool. *host* is this machine alone unless a *token* is given, which
    peers then send first, in a frame of its own.

    A request may take *timeout* seconds and carry *limit* bytes. More *options* are the pool's
    (``max_cpu``, ``max_jobs``, ``params`` ...). The form is that of small TCP daemons for work
    that an event loop cannot do itself; nothing else has to be installed or run.

    Raises :class:`~pysplash.errors.ConfigError`, and :class:`~pysplash.errors.UnsafeBind`.
    """

    def __init__(
        self,
        handler: str | Callable[[bytes], bytes],
        port: int,
        processes: int | None = None,
        *,
        host: str = "127.0.0.1",
        token: str | None = None,
        timeout: float = 60.0,
        limit: int = 2**20,
        terminate_seconds: float = 25.0,
        **options: Any,
    ) -> None:
        check_number("port", port, 0, 65535, whole=True)
        if processes is not None:
            check_number("processes", processes, 1, 10_000, whole=True)
            options |= {"min_procs": processes, "max_procs": processes}
        check_bind("framed", host, token, TOKEN)
        self._handler = handler_path(handler)
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        split_address(self._address)
        self._terms: dict[str, Any] = {"token": token, "timeout": timeout, "limit": limit}
        self._terminate = terminate_seconds
        self._options = options | {"terminate_seconds": terminate_seconds}
        Pool([QUEUE], url="redis://localhost", handlers=[self._handler], **self._options)

    def start(self, opened: Callable[[str], None] | None = None) -> int:
        """Serve until TERM or INT; return the exit status, 0.

        Blocks, in the main thread. The first signal lets running requests finish, the second does
        not. *opened* is told ``"host:port"`` once the door is open. Raises what ends the pool, as
        :meth:`Pool.start <pysplash.Pool.start>` does.
        """
        with listen(self._address) as listener, EmbeddedServer() as server:
            gateway = Gateway(
                server.url,
                tcp=listener,
                handler=self._handler,
                patience=PATIENCE,
                drain=self._terminate,
                **self._terms,
            )
            tune_process()
            asyncio.run(self._serve(gateway, server.url, opened))
        return EXIT_OK

    async def _serve(
        self, gateway: Gateway, url: str, opened: Callable[[str], None] | None
    ) -> None:
        def tell(gateway: Gateway) -> None:
            if opened is not None:
                opened(gateway.addresses["framed"])

        tune_loop()
        shutdown = Shutdown()
        shutdown.heed_signals()
        words, theirs = os.pipe()
        with open(words, "rb") as last_words:
            try:
                pool = await self._start_pool(url, theirs)
            finally:
                os.close(theirs)
            gone = asyncio.create_task(pool.wait())
            gone.add_done_callback(lambda _: shutdown.ask())
            try:
                await gateway.serve(shutdown, tell)
            finally:
                status = await self._end_pool(pool, gone, shutdown)
            said = last_words.read(MOST_WORDS)
        _raise(status, said)

    async def _start_pool(self, url: str, words: int) -> asyncio.subprocess.Process:
        level = log.getEffectiveLevel()
        facts = [QUEUE, url, self._handler, os.getpid(), words, level, self._options]
        path = [os.path.abspath(entry) for entry in sys.path]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _POOL.format(path=path, facts=json.dumps(facts)),
            stdin=subprocess.DEVNULL,
            pass_fds=(words,),
            start_new_session=True,
        )

    async def _end_pool(
        self, pool: asyncio.subprocess.Process, gone: asyncio.Task[int], shutdown: Shutdown
    ) -> int:
        """Stop the pool, warm or cold as *ending* is, and return its status."""
        hurry = asyncio.create_task(shutdown.now.wait())
        for number, seconds in (
            (signal.SIGTERM, self._terminate + MARGIN),
            (signal.SIGQUIT, MARGIN),
            (signal.SIGKILL, None),
        ):
            if gone.done():
                break
            if number is not signal.SIGTERM or not hurry.done():
                with contextlib.suppress(ProcessLookupError):
                    pool.send_signal(number)
                among = {gone, hurry} if number is signal.SIGTERM else {gone}
                await asyncio.wait(among, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        return await gone


def _raise(status: int, said: bytes) -> None:
    """Raise what ended the pool, if it was an error."""
    if said:
        kind, message = json.loads(said)
        raise getattr(errors, kind)(message)
    if status:
        raise SplashError(f"the daemon's pool ended by itself, with status {status}: see its log")
