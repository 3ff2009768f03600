"""Coprocesses: real programs, in C and in Python, that answer, crash, hang and babble."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis
from rq import Queue

from pysplash import Coprocess, CoprocessDied, NotBytes, Worker
from pysplash.application.handlers import Handler, decode, encode
from pysplash.errors import ConfigError, FrameError
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
#: seconds for anything that has to happen, on a machine that does much else
BOUND = 20.0
#: a program that does what its input says
ODD = """
import os, struct, sys, time
while len(head := sys.stdin.buffer.read(4)) == 4:
    data = sys.stdin.buffer.read(struct.unpack("!I", head)[0])
    if data == b"die": os.abort()
    if data == b"leave": sys.exit(0)
    if data == b"hang": time.sleep(3600)
    if data == b"babble": data, head = b"", b"\\xff" * 4
    if data == b"half":
        sys.stdout.buffer.write(struct.pack("!I", 9) + b"x")
        continue
    if data == b"where": data = os.getcwd().encode() + os.environ["ODD"].encode()
    sys.stdout.buffer.write((head if not data else struct.pack("!I", len(data))) + data)
    sys.stdout.buffer.flush()
"""


#: a program that answers four times what it is given, while it is given it
FOURFOLD = """
import os, struct
left, = struct.unpack("!I", os.read(0, 4))
os.write(1, struct.pack("!I", 4 * left))
while left:
    data = os.read(0, 4096)
    left -= len(data)
    rest = 4 * data
    while rest:
        rest = rest[os.write(1, rest):]
"""


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Coprocess]:
    """A coprocess that misbehaves when it is asked to."""
    (tmp_path / "odd.py").write_text(ODD)
    coprocess = Coprocess([sys.executable, "odd.py"], cwd=tmp_path, env={"ODD": "!"}, limit=2**22)
    yield coprocess
    coprocess.close()


def gone(pid: int | None) -> bool:
    """Return whether a process has ended."""
    assert pid is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


@pytest.fixture(params=["c", "python"])
def upper(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The example's program, in one language or the other."""
    source = ROOT / "examples" / "coprocess"
    if request.param == "python":
        return [sys.executable, str(source / "upper.py")]
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = str(tmp_path / "upper")
    subprocess.run([compiler, "-Wall", "-Werror", "-o", program, source / "upper.c"], check=True)
    return [program]


def test_a_program_in_any_language(upper: list[str]) -> None:
    """The same child answers one request after the other, of any size, and leaves when let go."""
    coprocess = Coprocess(upper)
    assert coprocess.pid is None
    assert coprocess(b"abc") == b"ABC"
    child = coprocess.pid
    assert coprocess(b"") == b""
    assert coprocess(b"x" * 1_000_000) == b"X" * 1_000_000
    assert coprocess.pid == child
    coprocess.close()
    assert gone(child)
    assert coprocess(b"again") == b"AGAIN"
    assert coprocess.pid != child
    coprocess.close()


def test_a_program_that_answers_while_it_reads() -> None:
    """Bytes go both ways at once, so neither side waits for the other for ever."""
    coprocess = Coprocess([sys.executable, "-c", FOURFOLD], limit=2**22)
    assert coprocess(b"x" * 2**20) == b"x" * 2**22
    coprocess.close()


@pytest.mark.parametrize("word", [b"die", b"leave", b"babble"])
def test_a_child_that_dies_is_started_anew(odd: Coprocess, word: bytes) -> None:
    """Whoever asked hears of it; the next request has a new child, after a pause."""
    assert odd(b"fine") == b"fine"
    first = odd.pid
    with pytest.raises(CoprocessDied, match=r"ended instead of answering|announces"):
        odd(word)
    assert gone(first)
    before = time.monotonic()
    assert odd(b"fine again") == b"fine again"
    assert time.monotonic() - before >= 0.05
    assert odd.pid != first


def test_a_child_that_died_meanwhile_is_not_noticed(odd: Coprocess) -> None:
    """A child that died between requests costs no request."""
    odd(b"fine")
    child = odd.pid
    assert child is not None
    psutil.Process(child).kill()
    wait_until(lambda: odd.pid is None, BOUND)
    assert odd(b"fine") == b"fine"


def test_pauses_grow_while_requests_fail(odd: Coprocess) -> None:
    """A program that dies at once is not started ten times a second; success forgives."""
    before = time.monotonic()
    for _ in range(4):
        with pytest.raises(CoprocessDied):
            odd(b"die")
    assert time.monotonic() - before >= 0.1 + 0.2 + 0.4
    assert odd(b"fine") == b"fine"
    assert odd._pause == 0


@pytest.mark.parametrize("word", [b"hang", b"half"])
def test_a_child_that_hangs_is_killed(tmp_path: Path, word: bytes) -> None:
    """A request has an end, and its child goes with it, for it would answer too late."""
    (tmp_path / "odd.py").write_text(ODD)
    odd = Coprocess([sys.executable, "odd.py"], cwd=tmp_path, timeout=0.5)
    with pytest.raises(CoprocessDied, match=r"did not answer within 0\.5 s"):
        odd(word)
    assert odd.pid is None
    odd.close()


def test_where_and_with_what_it_runs(odd: Coprocess, tmp_path: Path) -> None:
    """Its folder and its environment are as told."""
    assert odd(b"where") == os.fsencode(tmp_path.resolve()) + b"!"


def test_what_cannot_be_asked(odd: Coprocess) -> None:
    """Only bytes go in; a program that is not there is named."""
    with pytest.raises(FrameError, match="encode it first"):
        odd("text")  # type: ignore[arg-type]
    with pytest.raises(CoprocessDied, match="/no/such cannot be started"):
        Coprocess("/no/such program")(b"x")
    with pytest.raises(ConfigError, match="timeout"):
        Coprocess("cat", timeout=0)


def test_each_process_has_a_child_of_its_own(odd: Coprocess) -> None:
    """A fork starts its own child and leaves its parent's alone."""
    assert odd(b"fine") == b"fine"
    mine = odd.pid
    pid = os.fork()
    if pid == 0:
        ok = odd.pid is None and odd(b"theirs") == b"theirs" and odd.pid != mine
        odd.close()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert odd.pid == mine
    assert odd(b"fine") == b"fine"


def test_a_coprocess_is_a_handler(odd: Coprocess) -> None:
    """It stands where a function from bytes to bytes may."""
    assert decode(Handler(odd)(encode(b"abc"))) == b"abc"
    with pytest.raises(NotBytes):
        Handler(odd)("no base64!")


HUNG: list[Coprocess] = []


def hang(word: str) -> str:
    """Ask the test's coprocess: a job's work."""
    return HUNG[0](word.encode()).decode()


def test_a_hung_child_goes_with_its_job(odd: Coprocess, redis: Redis, queue: Queue) -> None:
    """When a job's time is over, so is that of the child it waits for; the next has another."""
    HUNG[:] = [odd]
    hung = queue.enqueue(hang, "hang", job_timeout=1)
    fine = queue.enqueue(hang, "fine")
    Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")
    assert hung.get_status(refresh=True) == "failed"
    assert fine.return_value(refresh=True) == "fine"
