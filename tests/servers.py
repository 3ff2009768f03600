"""The server that tests run on: the embedded one, or the program PYSPLASH_TEST_SERVER names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

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


def refuses_scripts(redis: Redis) -> bool:
    """Return whether scripts may not write now; Redis 6.2 lets them, with too few replicas."""
    try:
        redis.eval("return redis.call('SET', KEYS[1], '', 'PX', 1)", 1, "refused")
    except ResponseError:
        return True
    return False


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
