"""The standard streams: their files are kept aside, so that they can be put back."""

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
_DESCRIPTORS = (0, 1, 2)


class StandardStreams:
    """Descriptors 0, 1 and 2 as they were at first, and the streams of ``sys`` over them."""

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}
        self._streams = _streams()
        for fd in (0, 1, 2):
            with contextlib.suppress(OSError):
                self._kept[fd] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ASIDE)

    def trait(self) -> Trait:
        """Return how they are read and put back."""
        return Trait("a standard stream", self._read, self._put_back, needed=True)

    def adopt(self) -> None:
        """Keep the streams that a module has set as it was imported."""
        self._streams = tuple(
            before if _is_closed(now) else now
            for before, now in zip(self._streams, _streams(), strict=True)
        )

    def _read(self) -> tuple[Any, ...]:
        """Return the files, and whether each stream is there and open."""
        streams = zip(self._streams, _streams(), strict=True)
        usable = tuple(first is now and not _is_closed(now) for first, now in streams)
        return tuple(map(_file, _DESCRIPTORS)), usable

    def _put_back(self, _first: Any, _now: Any) -> None:
        for fd, kept in self._kept.items():
            if _file(fd) != _file(kept):
                os.dup2(kept, fd)
        before = self._streams
        self._streams = tuple(
            _reopened(fd, stream) if _is_closed(stream) else stream
            for fd, stream in zip(_DESCRIPTORS, before, strict=True)
        )
        sys.stdin, sys.stdout, sys.stderr = self._streams
        for closed, stream in zip(before, self._streams, strict=True):
            if stream is not closed:
                _hand_to_logging(closed, stream)

    def close(self) -> None:
        """Close those kept aside."""
        for fd in self._kept.values():
            os.close(fd)
        self._kept.clear()


def _hand_to_logging(closed: Any, stream: TextIO) -> None:
    """Let handlers that wrote to a stream that was closed write to its successor."""
    for reference in tuple(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if isinstance(handler, logging.StreamHandler) and vars(handler).get("stream") is closed:
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


def _reopened(fd: int, stream: Any) -> TextIO:
    """Return a stream like the one over *fd* that was closed."""
    return open(
        fd,
        "w" if fd else "r",
        buffering=1,
        encoding=getattr(stream, "encoding", None),
        errors=getattr(stream, "errors", None),
        closefd=False,
    )
