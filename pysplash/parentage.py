"""Parentage: a process that ends with the one it came of, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_the_parent() -> None:
    """Be killed when the thread that forked this process is gone; only Linux can do that.

    Made for the time between a fork and an exec too: nothing is looked up in it.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_without(parent: int) -> None:
    """The same; and end at once if the process *parent* has gone before that could be asked."""
    die_with_the_parent()
    if os.getppid() != parent:
        os._exit(1)
