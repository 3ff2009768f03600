"""What goes on after the job that started it: threads, and child processes.

They are the job's, and are left alone, as ``rq worker`` leaves child processes. Threads end with
the worker, as it leaves without waiting for them. Child processes that have ended and that nobody
waits for each keep a process id taken: a worker that has too many of them is to be replaced.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import threading
import time

import psutil

from pysplash.log import logger

#: ended child processes from which the worker is replaced, and seconds between two counts
MOST_ENDED, COUNT = 100, 5.0

log = logger("worker")


class LeftRunning:
    """Looks at what jobs leave running; says so once for each function."""

    def __init__(self) -> None:
        self._threads = threading.active_count()
        self._counted_at = time.monotonic()
        self._told: set[str] = set()

    def look(self, function: str) -> str:
        """Look at what a job of *function* left; return why the worker is to be replaced, or ""."""
        threads = threading.active_count()
        if threads > self._threads:
            self._tell(function, f"{threads - self._threads} threads")
        self._threads = threads
        if not _has_ended_child() or time.monotonic() - self._counted_at < COUNT:
            return ""
        self._counted_at = time.monotonic()
        ended = _count_ended()
        if ended < MOST_ENDED:
            return ""
        return f"{ended} child processes have ended that no job waits for"

    def _tell(self, function: str, what: str) -> None:
        if function not in self._told:
            self._told.add(function)
            log.info(
                "%s left %s running: they go on beside later jobs, and end with the worker",
                function,
                what,
                extra={"action": "left-running", "function": function},
            )


def _has_ended_child() -> bool:
    """Return whether any child process has ended and was not waited for; it still is not then."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _count_ended() -> int:
    """Have those waited for that Python knows how to, and count the others."""
    multiprocessing.active_children()
    subprocess._cleanup()  # type: ignore[attr-defined]
    ended = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            ended += child.status() == psutil.STATUS_ZOMBIE
    return ended
