"""Footprints: the bytes a process is charged with, by the best figure its kernel gives.

That is the proportional set size. Kernels without ``smaps`` (hardened and small ones, some
sandboxes) do not tell it, macOS has the unique set size instead, and either may be denied: then the
resident set size stands in, which counts shared pages in full in each process.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import psutil

from pysplash.log import logger

#: errors by which psutil says that a file of /proc is not there, not readable, or not understood
UNREADABLE = (psutil.Error, OSError, ValueError)

_log = logger("footprint")


class MemoryReader(Protocol):
    """What is asked of a process: a part of :class:`psutil.Process`."""

    def memory_info(self) -> Any:
        """Resident set size, in bytes."""

    def memory_full_info(self) -> Any:
        """Proportional (Linux) or unique set size, in bytes; slow."""


def footprint(process: MemoryReader) -> tuple[int, str]:
    """Return the bytes of *process*, and which figure that is: ``"pss"``, ``"uss"`` or ``"rss"``.

    Raise one of :data:`UNREADABLE` for a process that is gone, or of which nothing is told.
    """
    try:
        full = process.memory_full_info()
    except psutil.NoSuchProcess:
        raise
    except UNREADABLE:
        full = None
    for kind in ("pss", "uss"):
        size = getattr(full, kind, 0)
        if size:  # a kernel that leaves the lines out of smaps has psutil add up nothing
            return int(size), kind
    return int(process.memory_info().rss), "rss"


def own_footprint() -> int:
    """Return the bytes of this process; 0 where nothing is told."""
    try:
        return footprint(psutil.Process(os.getpid()))[0]
    except UNREADABLE:
        return 0


class Remark:
    """Says once, at INFO, that memory is measured by the resident set size."""

    def __init__(self) -> None:
        self._said = False

    def hear(self, kind: str) -> None:
        """Take note of the figure that :func:`footprint` returned."""
        if kind == "rss" and not self._said:
            self._said = True
            _log.info(
                "memory of workers is measured by their resident set size, which counts shared "
                "pages in full in each: this kernel does not tell their proportional set size",
                extra={"action": "footprint"},
            )
