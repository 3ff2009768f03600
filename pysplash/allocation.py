"""Memory that large requests took goes back to the system as soon as it is free (with glibc)."""

from __future__ import annotations

import contextlib
import ctypes

#: bytes from which on a block is one of its own, and mallopt's name for that
BLOCK, _M_MMAP_THRESHOLD = 2**17, -3


def return_large_blocks() -> None:
    """Keep the C library from raising that limit by itself, as it does after the first block."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, BLOCK)
