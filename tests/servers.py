"""The server that tests run on: the embedded one, or the program PYSPLASH_TEST_SERVER names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from benchmarks import servers
from pysplash.embedded import EmbeddedServer, ServerProcess

#: the program of the server that tests are to run on; None: the embedded one
PROGRAM = os.environ.get("PYSPLASH_TEST_SERVER") or None


def own_server() -> EmbeddedServer:
    """Return a server of the test's own, not started; it ends with the process that starts it."""
    return EmbeddedServer(program=PROGRAM)


def program_path() -> str:
    """Return the path of the program that servers of tests are run from."""
    return servers.program_path(PROGRAM)


def version() -> str:
    """Return what the program says of its version."""
    said = subprocess.run([program_path(), "--version"], capture_output=True, text=True, check=True)
    return " ".join(said.stdout.split()[:3])


def need_scripts_held_back(redis: Redis) -> None:
    """Skip the test where a server with too few replicas lets scripts write: Redis 6.2 does."""
    redis.config_set("min-replicas-to-write", 1)
    try:
        redis.eval("return redis.call('SET', KEYS[1], '')", 1, "held-back")
    except ResponseError:
        return
    finally:
        redis.config_set("min-replicas-to-write", 0)
        redis.delete("held-back")
    pytest.skip(f"{version()} lets scripts write though it has too few replicas")


class RestartedServer:
    """A server that can be stopped and started again at the same address; it keeps no data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: ServerProcess | None = None
        self.url = ""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = ServerProcess(program_path(), self._folder)
        self.url = self._process.url

    def stop(self) -> None:
        """End it; do nothing if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(timeout=5.0)
