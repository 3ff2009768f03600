"""Every example runs from anywhere with nothing but the package, and prints what is documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

import psutil
import pytest

from tests.acceptance.command import ROOT

#: seconds for one example, on a busy machine
BOUND = 60.0
EXAMPLES = ROOT / "examples"

WORDS = """\
147 words, 87 different
 10 is
  8 better
  8 than
  6 the
  5 to
"""
ECHO = """\
hello
1000000 bytes
no answer: the handler's process died
still here
"""
SHOUT = """\
HELLO FROM C
1 answer to 100 calls
"""
RPC = """\
add(5, 6) = 11
text.count: {'be': 2, 'not': 1, 'or': 1, 'to': 2}
sums: [0, 2, 4, 6, 8]
divide(1, 0): ZeroDivisionError
os.system: no such task
1000 calls at once, together: 999000
"""
CRYPTO = """\
100 signatures, each of 64 digits
/document/0: 77a9bd5b0926bdea
/document/99: 388d1c6f43c7ac8c
"""
#: by example: what it is told, and all that it prints; every file of the folder is here
OUTPUTS: dict[str, tuple[Sequence[str], str]] = {
    "crypto_client.py": ((), CRYPTO),
    "echo_daemon.py": ((), ECHO),
    "fib.py": (("-n", "6"), "fib(6) = 8\n"),
    "flaky.py": (("--jobs", "10"), "10 jobs"),
    "overload.py": (("--jobs", "2", "--sleep", "0.1", "--burn", "0.1"), ""),
    "rpc.py": ((), RPC),
    "shout.py": ((), SHOUT),
    "words.py": ((), WORDS),
}
#: those that say on standard error what their pool does
TALKING = ("echo_daemon.py", "fib.py", "flaky.py", "overload.py")


def test_each_example_is_run() -> None:
    """Nobody adds an example of which nobody knows what it prints."""
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(OUTPUTS)


def counted(text: str) -> str:
    """Return what counts come to of jobs that have good or bad luck."""
    assert re.fullmatch(r"(failed: \d+\n)?(finished: \d+\n)?", text)
    return f"{sum(map(int, re.findall(r'[0-9]+', text)))} jobs"


@pytest.mark.parametrize("name", OUTPUTS)
def test_examples_say_what_they_should(name: str) -> None:
    """An example ends with status 0, has said what it should and leaves no process."""
    words, output = OUTPUTS[name]
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        capture_output=True,
        text=True,
        timeout=BOUND,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    said = counted(ran.stdout) if name == "flaky.py" else ran.stdout
    assert (ran.returncode, said) == (0, output), ran.stderr
    if name not in TALKING:
        assert ran.stderr == ""
    assert not [p for p in psutil.Process().children(recursive=True) if name in str(p.cmdline())]
