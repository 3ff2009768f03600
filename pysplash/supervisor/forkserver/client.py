"""The fork server's client: the pool asks for workers and receives their exits as events.

The pool never forks and never signals a process by a number it remembers: it asks the fork
server, which is the parent of every worker and so cannot hit a stranger.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import Any

from pysplash.application.registry import TaskSpec
from pysplash.config import WorkerSettings
from pysplash.control.model import Limits
from pysplash.jobs.abandoned import AbandonedJob

#: run by the fork server's interpreter; everything secret comes over the socket afterwards
_MAIN = """\
import sys
sys.path[:] = {path!r}
from pysplash.supervisor.forkserver.server import main
main({fd}, {pid})
"""
#: seconds a fork server may take to end once it has been told to
_END = 5.0


@dataclass(frozen=True, slots=True)
class ForkServerPlan:
    """The first message to the fork server: all it needs to know."""

    settings: WorkerSettings
    board_fd: int
    notices_fd: int
    slots: int
    preload: tuple[str, ...]
    #: seconds its workers get, should the pool die, before they are killed
    terminate: float
    #: the throttler's limits; None: workers are not throttled
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The fork server has preloaded everything; *threads* are running in it (1 is right)."""

    pid: int
    threads: int
    #: what its modules registered
    tasks: tuple[TaskSpec, ...] = ()
    #: what they listen to: each event with the place of the function
    listeners: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PreloadFailed:
    """The fork server could not preload *module*."""

    module: str
    text: str


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process exists."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A process is gone. *status* as from waitpid; *text* what it said if it could not start."""

    name: str
    status: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class ServerDied:
    """A fork server is gone, and with it every process it was the parent of."""

    names: tuple[str, ...]
    status: int


Event = Ready | PreloadFailed | Spawned | Exited | ServerDied


class _Server:
    """One fork server: its process, its socket, and the workers it is the parent of."""

    def __init__(self, plan: ForkServerPlan) -> None:
        self.control, theirs = Pipe()
        self.names: set[str] = set()
        self.ready = False
        code = _MAIN.format(path=sys.path, fd=theirs.fileno(), pid=os.getpid())
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), plan.board_fd, plan.notices_fd),
                start_new_session=True,
            )
        self.send(plan)

    def send(self, message: Any) -> None:
        try:
            self.control.send(message)
        except OSError:
            return  # the fork server is gone; its death comes as an event

    def events(self) -> Iterator[Event]:
        try:
            while self.control.poll():
                event: Event = self.control.recv()
                self.ready |= isinstance(event, Ready)
                if isinstance(event, Exited):
                    self.names.discard(event.name)
                yield event
                if isinstance(event, PreloadFailed):
                    self.end()
                    return
        except (EOFError, OSError):
            yield ServerDied(tuple(self.names), self.end())

    def end(self) -> int:
        self.control.close()
        try:
            return self.process.wait(_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Processes:
    """The workers of one pool, and the fork servers they come from.

    Usually there is one. After :meth:`renew` a fresh one, once it is ready, serves all further
    spawns, and the old one goes when its last worker has gone.
    """

    def __init__(self, plan: ForkServerPlan) -> None:
        self._plan = plan
        self._servers: list[_Server] = []
        self._current: _Server | None = None

    def renew(self) -> None:
        """Start a fork server; its :class:`Ready` or :class:`PreloadFailed` comes as an event."""
        self._servers.append(_Server(self._plan))

    @property
    def server_pids(self) -> tuple[int, ...]:
        """The process ids of the fork servers."""
        return tuple(server.process.pid for server in self._servers)

    def able(self) -> bool:
        """Return whether a fork server is ready to spawn."""
        return self._current is not None

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors that are readable when there are events."""
        return tuple(server.control.fileno() for server in self._servers)

    def spawn(
        self,
        name: str,
        slot: int,
        *,
        maintain: bool = False,
        role: str = "worker",
        job: AbandonedJob | None = None,
    ) -> None:
        """Ask for one process; its :class:`Spawned` comes as an event."""
        if self._current is None:
            raise RuntimeError("no fork server is ready: call renew() and wait for Ready")
        self._current.names.add(name)
        self._current.send(("spawn", name, slot, role, maintain, job))

    def _parent(self, name: str) -> _Server | None:
        return next((server for server in self._servers if name in server.names), None)

    def send_memory(self, pool_mem: float, reserve: float) -> None:
        """Send the throttler the pool's memory and the bytes to keep free for the oldest job."""
        for server in self._servers:
            server.send(("memory", "", pool_mem, reserve))

    def stop(self, name: str) -> None:
        """Ask one worker to finish its job and leave."""
        if parent := self._parent(name):
            parent.send(("signal", name, signal.SIGTERM))

    def interrupt(self, name: str) -> None:
        """Have one worker read what it was asked on the scoreboard."""
        if parent := self._parent(name):
            parent.send(("signal", name, signal.SIGUSR1))

    def kill(self, name: str) -> None:
        """End one worker and all of its session."""
        if parent := self._parent(name):
            parent.send(("kill", name))

    def events(self) -> Iterator[Event]:
        """Yield what has happened since the last call, in order; never waits."""
        for server in tuple(self._servers):
            for event in server.events():
                if isinstance(event, Ready):
                    self._current = server
                elif isinstance(event, ServerDied | PreloadFailed):
                    self._forget(server)
                yield event
            retired = server in self._servers and self._current in self._servers
            if retired and server is not self._current and server.ready and not server.names:
                self._forget(server)
                server.end()

    def _forget(self, server: _Server) -> None:
        if server in self._servers:
            self._servers.remove(server)
        if self._current is server:
            self._current = next((s for s in self._servers if s.ready), None)

    def close(self) -> None:
        """End the fork servers once their workers have ended."""
        while self._servers:
            self._servers.pop().end()
