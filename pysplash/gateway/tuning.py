"""Settings of process, event loop and allocator for a process that is a gateway alone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
from concurrent.futures import ThreadPoolExecutor

#: bytes from which malloc maps a block by itself, and mallopt's number for that setting
BLOCK, _M_MMAP_THRESHOLD = 2**17, -3


def return_large_blocks() -> None:
    """Have freed large blocks go back to the system: glibc must not raise that threshold."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, BLOCK)


#: seconds after which a thread that works on something large yields to others
SWITCH = 0.0005


def tune_process() -> None:
    """Tune this process for a gateway: freeze the heap, return freed memory to the system."""
    return_large_blocks()
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # collecting it again and again would delay calls, and unshare memory after a fork


def tune_loop() -> None:
    """Tune the running event loop for a gateway: one thread for large conversions."""
    one = ThreadPoolExecutor(1, "large")  # several would keep the loop from its turn
    asyncio.get_running_loop().set_default_executor(one)
