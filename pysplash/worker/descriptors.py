"""The standard descriptors 0, 1 and 2: kept aside, so that they can be put back."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
from typing import Any, TextIO

from .traits import Trait

#: the lowest number of a descriptor kept aside
_ASIDE = 10


class StandardDescriptors:
    """What descriptors 0, 1 and 2 were open to at first, and the streams over them."""

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}
        for fd in (0, 1, 2):
            with contextlib.suppress(OSError):
                self._kept[fd] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ASIDE)

    def trait(self) -> Trait:
        """Return how they are read and put back."""
        return Trait("a standard descriptor", self._read, self._put_back, needed=True)

    def _read(self) -> tuple[Any, ...]:
        return tuple(_file(fd) for fd in (0, 1, 2)), tuple(map(_is_closed, _streams()))

    def _put_back(self, _first: Any, now: Any) -> None:
        for fd, kept in self._kept.items():
            if _file(fd) != _file(kept):
                os.dup2(kept, fd)
        for name, is_closed in zip(("stdin", "stdout", "stderr"), now[1], strict=True):
            if is_closed:
                closed = getattr(sys, name)
                setattr(sys, name, _reopened(closed))
                _hand_to_logging(closed, getattr(sys, name))

    def close(self) -> None:
        """Close those kept aside."""
        for fd in self._kept.values():
            os.close(fd)
        self._kept.clear()


def _hand_to_logging(closed: Any, stream: TextIO) -> None:
    """Let handlers that wrote to a stream that was closed write to its successor."""
    for reference in tuple(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if isinstance(handler, logging.StreamHandler) and handler.stream is closed:
            handler.stream = stream


def _streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _file(fd: int) -> tuple[int, int] | None:
    """Return what identifies the file that a descriptor is open to; None: it is closed."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_closed(stream: Any) -> bool:
    return bool(getattr(stream, "closed", False))


def _reopened(stream: Any) -> TextIO:
    """Return a stream like one of the standard ones that was closed."""
    number = {"<stdin>": 0, "<stdout>": 1, "<stderr>": 2}[stream.name]
    return open(
        number,
        "r" if number == 0 else "w",
        buffering=1,
        encoding=stream.encoding,
        errors=stream.errors,
        closefd=False,
    )
