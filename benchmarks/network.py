"""A bad network: a relay between a supervisor and its server that loses, cuts, delays and slices.

It hears on a loopback port and passes bytes on to the server's socket. What happens to a connection
happens at a moment that chance chooses, in the middle of whatever is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

#: bytes taken in at once, and bytes of a slice
CHUNK, SLICE = 65536, 7
#: seconds by which a slow connection is behind
DELAY = 0.05
#: seconds for the relay to come and to go
BOUND = 10.0


class Link:
    """One connection through the relay."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        #: what befalls the next bytes of a direction, by "up" and "down"
        self.next: dict[str, str] = {}
        self.silent = False
        self.delay = 0.0
        self.sliced = False
        self.closed = False

    def cut(self) -> None:
        """End it at once, both ways, as a crash of the peer would."""
        self.closed = True
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.family == socket.AF_INET:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Relay:
    """The relay, in a thread of its own for the length of a block; its port is in ``url``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._links: list[Link] = []
        self._loop: Any = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop: Any = None
        self._awaited: tuple[Sequence[bytes], Callable[[Link], None]] | None = None
        self.url = ""

    def __enter__(self) -> Relay:
        self._thread.start()
        if not self._ready.wait(BOUND):
            raise RuntimeError("the relay did not open")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(BOUND)

    def befall(self, trouble: Callable[[Link], None], chance: Random) -> bool:
        """Let *trouble* befall one connection; return whether there was one."""
        done = threading.Event()
        found: list[Link] = []

        def pick() -> None:
            links = [link for link in self._links if not link.closed]
            if links:
                found.append(chance.choice(links))
                trouble(found[0])
            done.set()

        self._loop.call_soon_threadsafe(pick)
        done.wait(BOUND)
        return bool(found)

    def await_words(self, words: Sequence[bytes], name: str) -> None:
        """Let the trouble *name* befall the next connection on which all *words* are sent at once.

        It is lost in this request, or in the reply to it.
        """
        self._awaited = (words, TROUBLES[name])

    @property
    def sprung(self) -> bool:
        """Whether what was awaited last has come."""
        return self._awaited is None

    # --- in its thread ---

    def _look(self, link: Link, chunk: bytes) -> None:
        if self._awaited is not None and all(word in chunk for word in self._awaited[0]):
            (_, trouble), self._awaited = self._awaited, None
            trouble(link)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for link in self._links:
            link.cut()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link()
        link.writers.append(writer)
        try:
            there, back = await asyncio.open_unix_connection(self._path)
        except OSError:
            link.cut()
            return
        link.writers.append(back)
        self._links.append(link)
        try:
            await asyncio.gather(
                self._copy(link, "up", reader, back), self._copy(link, "down", there, writer)
            )
        except asyncio.CancelledError:
            pass  # the relay closes
        finally:
            link.cut()
            self._links.remove(link)

    async def _copy(
        self, link: Link, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while not link.closed and (chunk := await reader.read(CHUNK)):
                if way == "up":
                    self._look(link, chunk)
                if link.silent:
                    continue
                fate = link.next.pop(way, None)
                await _forward(link, b"" if fate == "lost" else chunk, writer, half=fate == "half")
                if fate:
                    break
        link.cut()


async def _forward(
    link: Link, chunk: bytes, writer: asyncio.StreamWriter, *, half: bool = False
) -> None:
    """Pass bytes on, as slowly and in as small pieces as the link has them; or the first *half*."""
    await asyncio.sleep(link.delay)
    chunk = chunk[: len(chunk) // 2] if half else chunk
    step = SLICE if link.sliced else CHUNK
    for start in range(0, len(chunk), step):
        writer.write(chunk[start : start + step])
        await writer.drain()


def _cut(link: Link) -> None:
    link.cut()


def _lose(way: str, fate: str) -> Callable[[Link], None]:
    def lose(link: Link) -> None:
        link.next[way] = fate

    return lose


def _silence(link: Link) -> None:
    link.silent = True


def _slow(link: Link) -> None:
    link.delay = DELAY


def _slice(link: Link) -> None:
    link.sliced = True


#: what may befall a connection, by name
TROUBLES: dict[str, Callable[[Link], None]] = {
    "cut": _cut,
    "request lost": _lose("up", "lost"),
    "request in part": _lose("up", "half"),
    "reply lost": _lose("down", "lost"),
    "reply in part": _lose("down", "half"),
    "silence": _silence,
    "slow": _slow,
    "sliced": _slice,
}


class Troubles:
    """Troubles of the kinds *names* at random, one at a time; none without a *relay*."""

    def __init__(self, relay: Relay | None, chance: Random, names: Sequence[str]) -> None:
        #: troubles that befell a connection, by name
        self.struck: Counter[str] = Counter()
        self._relay = relay
        self._chance = chance
        self._names = names

    def strike(self) -> None:
        """Let one befall some connection."""
        if self._relay is None:
            return
        name = self._chance.choice(self._names)
        if self._relay.befall(TROUBLES[name], self._chance):
            self.struck[name] += 1
