"""Settings of process, event loop and allocator for a process that is a gateway alone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
from concurrent.futures import ThreadPoolExecutor

#: bytes from which on a block is one of its own, and mallopt's name for that
BLOCK, _M_MMAP_THRESHOLD = 2**17, -3


def return_large_blocks() -> None:
    """Keep the C library from raising that limit by itself, as it does after the first block."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, BLOCK)


#: seconds after which a thread that packs something large lets those who wait go on
SWITCH = 0.0005


def have_the_process() -> None:
    """Take this process for a gateway alone: what is there stays, what was large goes back."""
    return_large_blocks()
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # looking through it again and again would hold calls up; and it is to be shared


def have_the_loop() -> None:
    """Take the loop that runs for a gateway alone."""
    one = ThreadPoolExecutor(1, "large")  # several would keep the loop from its turn
    asyncio.get_running_loop().set_default_executor(one)
