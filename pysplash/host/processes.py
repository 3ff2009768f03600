"""Processes: ending with the parent, adopting orphans, and exit statuses in words."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

import psutil

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    """Set a process attribute, where there are any (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends; only Linux can do that."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_the_parent() -> None:
    """Be killed when the thread that forked this process is gone; only Linux can do that.

    Made for the time between a fork and an exec too: nothing is looked up in it.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_without(parent: int) -> None:
    """Be killed when *parent* ends; exit at once if it has ended already."""
    die_with_the_parent()
    if os.getppid() != parent:
        os._exit(1)


def describe(status: int) -> str:
    """Return in words how a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def flush_output() -> None:
    """Write out what is buffered: a fork would write it twice, ``os._exit`` would lose it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def thread_count(threads: Callable[[], int] | None = None) -> int:
    """Return how many threads this process has; those of C libraries only where that is told."""
    try:
        return (threads or psutil.Process().num_threads)()
    except (psutil.Error, OSError, ValueError):
        return threading.active_count()


def kill_session(leader: int, listed: Callable[[], list[int]] = psutil.pids) -> None:
    """Kill all processes of the session that *leader*, a child not yet reaped, began."""
    try:
        pids = listed()
    except OSError:  # where /proc is hidden, its own process group is what can be reached
        pids = []
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(OSError):
            if pid != leader and os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGKILL)


def own_memory() -> int:
    """Bytes this process is charged with: its proportional set, where the system knows it."""
    full = psutil.Process().memory_full_info()
    return int(getattr(full, "pss", full.uss))
