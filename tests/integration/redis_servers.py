"""Debian's redis-server, started with what a managed service or an administrator forbids."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from tests.waiting import wait_until

#: seconds for anything that has to happen, on a machine that does much else
BOUND = 20.0
#: the options of a server that is one of a cluster; the port of its bus is any that is free
CLUSTER = ("--cluster-enabled", "yes", "--cluster-port", "PORT")


def free_port() -> str:
    """Return the number of a port that nobody uses."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as place:
        return place.connect_ex(str(path)) == 0


def without(*commands: str) -> tuple[str, ...]:
    """Return the options of a server that does not have these commands."""
    return tuple(word for name in commands for word in ("--rename-command", name, ""))


@contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """Run a redis-server of the test's own, on a Unix socket; yield its URL.

    The test is skipped where none is installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        settings = ("--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder)
        given = [free_port() if word == "PORT" else word for word in options]
        process = subprocess.Popen([program, *settings, *given], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: _is_listening(path), BOUND, "the server")
            yield f"unix://{path}?db=0"
        finally:
            process.terminate()
            process.wait(BOUND)


@contextmanager
def plain_client(url: str) -> Iterator[Redis]:
    """Yield a client that needs nothing but the oldest protocol."""
    with Redis.from_url(url, protocol=2) as client:
        yield client


@contextmanager
def whole_client(url: str) -> Iterator[Redis]:
    """Yield a client with all rights at a server where *url* may be that of a restricted user."""
    with plain_client(url.replace("limited:word@", "")) as client:
        yield client


@contextmanager
def restricted_user(url: str, *rights: str) -> Iterator[str]:
    """Yield the URL for a user who has all rights but for these."""
    with plain_client(url) as client:
        client.execute_command(
            "ACL", "SETUSER", "limited", "on", ">word", "~*", "&*", "+@all", *rights
        )
        yield url.replace("unix://", "unix://limited:word@")
