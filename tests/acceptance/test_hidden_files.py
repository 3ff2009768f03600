"""A pool where /proc and /sys tell little: hardened kernels, sandboxes, containers."""

from __future__ import annotations

from pathlib import Path

import pytest
from rq import Queue

from tests.acceptance import jobs
from tests.acceptance.command import READY, ROOT, Start
from tests.waiting import wait_until

#: a file named so in a folder of PYTHONPATH is run before anything else in every process
HIDING = """
import io, os, pathlib, builtins
HIDDEN = {hidden!r}
ERROR = {error}
def hides(path):
    name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    return name.startswith(("/proc/", "/sys/")) and any(word in name for word in HIDDEN)
def shut(real):
    def function(path, *arguments, **settings):
        if hides(path):
            raise ERROR(2, "hidden by a test", path)
        return real(path, *arguments, **settings)
    return function
builtins.open = io.open = shut(io.open)
real_exists, real_isdir = os.path.exists, os.path.isdir
os.path.exists = lambda path: not hides(path) and real_exists(path)
os.path.isdir = lambda path: not hides(path) and real_isdir(path)
"""
#: a file each: what psutil, the control groups and the pool look at
OPTIONAL = ("smaps", "meminfo", "vmstat", "/proc/stat", "pressure", "cgroup", "oom_score_adj")


@pytest.mark.parametrize("error", ["FileNotFoundError", "PermissionError"])
@pytest.mark.parametrize("hidden", [("smaps",), OPTIONAL], ids=["smaps", "all"])
def test_a_pool_needs_no_optional_file(
    pool: Start, queue: Queue, tmp_path: Path, hidden: tuple[str, ...], error: str
) -> None:
    """Without them a pool measures, recycles by memory and runs jobs, and says what it does."""
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(hidden=hidden, error=error))
    options = ("-n", "1", "--max-job-memory", "1GB", "--mem-budget", "4GB")
    command = pool(*options, PYTHONPATH=f"{tmp_path}:{ROOT}")
    job = queue.enqueue(jobs.pid)
    wait_until(lambda: job.get_status() == "finished" or command.process.poll(), READY, "the job")
    command.await_ticks(8)
    assert command.process.poll() is None
    assert command.err.count("resident set size") == 1
    assert command.record()[-1]["mem_bytes"] > 0
