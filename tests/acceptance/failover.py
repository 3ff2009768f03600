"""A primary, its replica and a sentinel that watches them: real servers, gone with the test."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from redis.sentinel import Sentinel

from tests.servers import program_path
from tests.waiting import wait_until

#: seconds for what servers do, on a machine that does much else
BOUND = 20.0
#: ports tried, of which others may take one before a server has it
TRIES = 5
#: seconds for a fail-over: a sentinel that was stalled watches for 30 s before it acts
MOVE = 60.0
#: what the service is called
MAIN = "main"
#: ms without an answer after which a primary counts as gone, a killed one's and any other's
DOWN, NEVER = 200, 10**7


class Server:
    """One server on a port of its own; *arguments* are what its command line has besides."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        for _ in range(TRIES):
            self.port = _free_port()
            self.client = Redis(port=self.port)
            with (folder / "servers.log").open("ab") as log:
                self.process = subprocess.Popen(
                    [
                        program_path(),
                        *arguments,
                        *("--port", str(self.port), "--bind", "127.0.0.1"),
                    ],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                )
            wait_until(lambda: self.process.poll() is not None or self._answers(), BOUND)
            if self.process.poll() is None:
                return
        raise AssertionError(f"no port could be had: {(folder / 'servers.log').read_text()}")

    def _answers(self) -> bool:
        """Return whether it is this server that answers, and not one that has taken its port."""
        with contextlib.suppress(RedisError):
            return bool(self.client.info("server")["process_id"] == self.process.pid)
        return False

    def hang(self) -> None:
        """Let it answer nobody any more, its connections staying open, until it is killed."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(BOUND)
        self.client.close()


class Group:
    """Three servers: of two, one is the primary, and the third says which."""

    def __init__(self, primary: Server, replica: Server, sentinel: Server) -> None:
        self._primary = primary
        self._replica = replica
        self._sentinel = sentinel

    @property
    def place(self) -> tuple[str, int]:
        """Where the sentinel is."""
        return "127.0.0.1", self._sentinel.port

    @property
    def primary(self) -> Redis:
        """A client of the server that is the primary at first."""
        return self._primary.client

    def link(self) -> None:
        """Begin to copy and to watch; return when a fail-over could be made."""
        self._replica.client.replicaof("127.0.0.1", self._primary.port)
        copying = self._replica.client.role
        wait_until(lambda: copying()[3] == b"connected", BOUND, "the replica's copy")
        self._tell("MONITOR", MAIN, "127.0.0.1", self._primary.port, 1)
        self._tell("SET", MAIN, "down-after-milliseconds", NEVER, "failover-timeout", 2000)
        known: Any = Sentinel([self.place])
        wait_until(lambda: known.discover_slaves(MAIN), BOUND, "a replica the sentinel knows")

    def fail_over(self, how: str) -> None:
        """Make a primary of the replica, once it has all; the other is killed, hung or demoted."""
        self.primary.set("after", "all else")
        self.primary.wait(1, round(1000 * BOUND))
        if how == "demoted":
            wait_until(lambda: self._tell("FAILOVER", MAIN), BOUND, "a replica that is good enough")
        else:
            {"killed": self._primary.kill, "hung": self._primary.hang}[how]()
            self._tell("SET", MAIN, "down-after-milliseconds", DOWN)
        leading = self._replica.client.role
        wait_until(lambda: leading()[0] == b"master", MOVE, "the fail-over")
        self._tell("SET", MAIN, "down-after-milliseconds", NEVER)

    def _tell(self, *words: str | int) -> bool:
        """Tell the sentinel; return whether it does so."""
        try:
            return bool(self._sentinel.client.execute_command("SENTINEL", *words))
        except ResponseError as error:
            if "NOGOODSLAVE" in str(error):
                return False
            raise


@contextlib.contextmanager
def group(folder: Path) -> Iterator[Group]:
    """Start a group for the length of the block, ready for a fail-over."""
    (folder / "sentinel.conf").touch()
    plain = ("--save", "", "--repl-diskless-sync-delay", "0", "--dbfilename")
    with contextlib.ExitStack() as stack:
        servers = []
        for arguments in (
            (*plain, "primary.rdb"),
            (*plain, "replica.rdb"),
            ("sentinel.conf", "--sentinel"),
        ):
            servers.append(Server(folder, *arguments))
            stack.callback(servers[-1].kill)
        together = Group(*servers)
        together.link()
        yield together


@contextlib.contextmanager
def deaf_places(count: int) -> Iterator[list[tuple[str, int]]]:
    """Yield so many places at which nobody listens for the length of the block."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname() for each in taken]


def _free_port() -> int:
    with deaf_places(1) as places:
        return places[0][1]
