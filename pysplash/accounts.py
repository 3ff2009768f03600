"""Accounts: who has shown wrong tokens, and how often, for all doors of a gateway.

A table in memory that is shared by whoever is forked after it was made. It is read without a lock
and written under one, which the system takes away from a process that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator

#: bytes of what stands for an account, and of a number
NAME, WORD = 16, 8
_NOBODY = bytes(NAME)


class Accounts:
    """Of *most* accounts: a number, and until when it counts, in monotonic seconds."""

    def __init__(self, most: int) -> None:
        with tempfile.TemporaryFile() as file:
            self._lock = os.dup(file.fileno())
        self._names = mmap.mmap(-1, most * NAME)
        numbers = memoryview(mmap.mmap(-1, 2 * most * WORD))
        self._counts, self._untils = numbers.cast("q")[:most], numbers.cast("d")[most:]

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._lock)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from writing for the length of the block."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def get(self, account: str) -> tuple[int, float]:
        """Return an account's number, and until when it counts; 0 if there is none."""
        row = self._find(_name(account))
        return (0, 0.0) if row is None else (self._counts[row], self._untils[row])

    def put(self, account: str, count: int, until: float) -> None:
        """Write it down, where there is no more room in place of the oldest."""
        name = _name(account)
        row = self._find(name)
        if row is None:
            row = self._find(_NOBODY)
        if row is None:
            row = min(range(len(self._untils)), key=self._untils.__getitem__)
        self._counts[row], self._untils[row] = count, until
        self._names[row * NAME : (row + 1) * NAME] = name

    def drop(self, account: str) -> None:
        """Forget an account."""
        row = self._find(_name(account))
        if row is not None:
            self._names[row * NAME : (row + 1) * NAME] = _NOBODY

    def _find(self, name: bytes) -> int | None:
        place = self._names.find(name)
        while place % NAME:  # also of -1, which ends the search
            if place < 0:
                return None
            place = self._names.find(name, place + 1)
        return place // NAME


def _name(account: str) -> bytes:
    return hashlib.blake2b(account.encode(errors="replace"), digest_size=NAME).digest()
