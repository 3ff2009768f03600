"""What a fork hands down to every worker: nothing shared unseen, nothing written twice.

Before the first fork the fork server closes what it may close for its workers, and names the rest:
connections they would share, threads they would not have. Before each fork it writes out buffers.
In the child, generators of random numbers begin anew, and logging gets sockets and threads of its
own.
"""

from __future__ import annotations

import gc
import io
import logging
import logging.handlers
import os
import queue
import random
import socket
import stat
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from redis import ConnectionPool

from pysplash.host.processes import flush_output
from pysplash.worker.database import close_all

#: where the system lists a process's descriptors
FOLDERS = ("/proc/self/fd", "/dev/fd")
#: objects that buffer what is written to them
_WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def connections() -> dict[tuple[int, int], str]:
    """Return the peers of this process's connections, by descriptor and inode.

    Datagrams do not mix, so their sockets do not count; nor do pairs of nameless sockets.
    """
    folder = next((path for path in FOLDERS if os.path.isdir(path)), None)
    found = {}
    for fd in [int(name) for name in os.listdir(folder)] if folder else ():
        with suppress(OSError):
            about = os.fstat(fd)
            if stat.S_ISSOCK(about.st_mode) and (peer := _peer(fd)):
                found[fd, about.st_ino] = peer
    return found


def _peer(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as one:
        if one.type == socket.SOCK_DGRAM:
            return ""
        peer = one.getpeername()
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}"
    return peer.decode(errors="replace") if isinstance(peer, bytes) else str(peer)


class Inheritance:
    """What the modules loaded in this process would hand down to its children."""

    def __init__(self) -> None:
        self._known = connections()
        #: descriptor, inode, peer and module of each connection opened since
        self._opened: list[tuple[int, int, str, str]] = []
        self._writers: list[weakref.ref[Any]] = []
        self._listeners: list[logging.handlers.QueueListener] = []
        parent = os.getpid()
        # Before any hook of the modules', so that theirs have the last word.
        os.register_at_fork(after_in_child=lambda: reseed() if os.getppid() == parent else None)

    def note(self, module: str) -> None:
        """Note which connections have been opened since the last call, by *module*."""
        now = connections()
        new = now.keys() - self._known.keys()
        self._opened.extend((fd, inode, now[fd, inode], module) for fd, inode in sorted(new))
        self._known |= now

    def prepare(self) -> None:
        """Find what is to be written out before a fork; close what its owners open again."""
        close_all()
        for found in gc.get_objects():
            kind = type(found)
            if issubclass(kind, _WRITERS):
                self._writers.append(weakref.ref(found))
            elif issubclass(kind, logging.handlers.QueueListener):
                self._listeners.append(found)
            elif issubclass(kind, ConnectionPool):
                with suppress(Exception):
                    found.disconnect(inuse_connections=False)

    def warnings(self) -> tuple[str, ...]:
        """Return a line for each thing that workers share, or lack, and its module did not mean."""
        open_now = connections()
        lines = [
            f"workers share a connection to {peer} (descriptor {fd}), opened while {module} was "
            "imported, and may read each other's answers: open it in a @setup hook"
            for fd, inode, peer, module in self._opened
            if (fd, inode) in open_now
        ]
        main = threading.main_thread()
        restarted = {getattr(each, "_thread", None) for each in self._listeners}
        names = [t.name for t in threading.enumerate() if t is not main and t not in restarted]
        if names:
            lines.append(
                f"{len(names)} threads run after --preload ({', '.join(sorted(names))}): workers "
                "have none of them, and a lock one of them holds stays locked there; start them "
                "in a @setup hook"
            )
        return tuple(lines)

    def write_out(self) -> None:
        """Write out all buffers: what is in one would be written once more by each child."""
        flush_output()
        for reference in self._writers:
            writer = reference()
            if writer is not None:
                with suppress(OSError, ValueError):
                    writer.flush()
        for handler in _handlers():
            with suppress(Exception):
                handler.flush()

    def begin_child(self) -> None:
        """Give logging in a new child sockets and threads of its own."""
        for handler in _handlers():
            if isinstance(handler, logging.handlers.SocketHandler) and handler.sock is not None:
                handler.sock.close()
                handler.sock = None
        for listener in self._listeners:
            _restart(listener)


def _handlers() -> Iterator[logging.Handler]:
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if handler is not None:
            yield handler


def _restart(listener: logging.handlers.QueueListener) -> None:
    """Start a listener that ran at the fork: its thread is gone, its queue may be locked.

    What waits in the queue is written by the fork server's own thread.
    """
    if getattr(listener, "_thread", None) is None:
        return
    if isinstance(listener.queue, queue.Queue):
        queue.Queue.__init__(listener.queue, listener.queue.maxsize)
    elif isinstance(listener.queue, queue.SimpleQueue):
        with suppress(queue.Empty):
            while True:
                listener.queue.get_nowait()
    else:
        return  # of several processes: one listener serves them all
    listener._thread = None
    listener.start()


def reseed() -> None:
    """Begin the shared generators of random numbers anew, of libraries that are loaded."""
    random.seed()
    with suppress(Exception):
        if numbers := sys.modules.get("numpy.random"):
            numbers.seed()
    with suppress(Exception):
        if torch := sys.modules.get("torch"):
            torch.default_generator.seed()
