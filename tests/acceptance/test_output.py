"""What commands print on poor terminals, into full disks, and to readers who have seen enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from tests.acceptance.command import ROOT, Start

#: a queue whose name ASCII cannot show
QUEUE = "ünï"
#: few characters to show, in the ways this can be said
POOR = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1", "TERM": "dumb"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
COMMANDS = ["status", "tasks", "health", "purge", "stages", "status --json"]


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in which ``$P`` stands for the command and its server."""
    program = f"{sys.executable} -m pysplash"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "P": program, **environment},
        capture_output=True,
        timeout=60,
    )


def test_no_terminal_and_no_reader_makes_a_command_break(
    pool: Start, redis: Redis, url: str, tmp_path: Path
) -> None:
    """Characters are replaced, a closed pipe ends quietly, a full disk in one line."""
    command = pool(QUEUE, "-n", "1")
    command.await_idle(1)
    for environment in POOR:
        for words in COMMANDS if environment is POOR[0] else COMMANDS[:1]:
            done = shell(f"$P {words} -u {url}", tmp_path, **environment)
            assert (done.returncode, done.stderr) == (0, b""), (words, environment, done.stderr)
    done = shell(f"$P status -u {url}", tmp_path, **POOR[0])
    assert b"?n?" in done.stdout
    for words in COMMANDS:
        closed = shell(f"$P {words} -u {url} | true", tmp_path)
        assert closed.stderr == b"", words
    for words in COMMANDS[:2]:
        none = shell(f"$P {words} -u {url} >&-", tmp_path)
        assert (none.returncode, none.stderr) == (0, b""), words


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_in_one_line(url: str, redis: Redis, tmp_path: Path) -> None:
    """What cannot be written is an error with its reason, not a traceback."""
    for words in COMMANDS[:2]:
        done = shell(f"$P {words} -u {url} >/dev/full", tmp_path)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            b"pysplash: output cannot be written: No space left on device"
        ]
