"""Logging: plain standard library, one logger tree, nothing configured at import.

The command line and :func:`set_debug` are the only places that attach a handler.
"""

from __future__ import annotations

import contextlib
import logging
import re

NAME = "pysplash"
FORMAT = "%(asctime)s %(message)s"
DATE_FORMAT = "%H:%M:%S"

_SECRET_IN_URL = re.compile(r"(?P<scheme>[a-z+]+://)(?P<user>[^:/@\s]*):\S*@")
_SECRET_WORD = re.compile(
    r"(?i)\b(password|passwd|token|secret)(['\"]?\s*[=:]\s*)('[^']*'|\"[^\"]*\"|\S+)"
)


def redact(text: str) -> str:
    """Replace passwords in URLs, and values named password, token or secret, by ``***``."""
    text = _SECRET_IN_URL.sub(r"\g<scheme>\g<user>:***@", text)
    return _SECRET_WORD.sub(r"\1\2***", text)


class RedactingFormatter(logging.Formatter):
    """A formatter whose finished line holds no password and no control character but newline."""

    def format(self, record: logging.LogRecord) -> str:
        """Format *record*, then redact it."""
        text = redact(super().format(record))
        return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def _redacted(record: logging.LogRecord) -> bool:
    """Take secrets out of a record, whoever's handler writes it; keep the record."""
    with contextlib.suppress(Exception):  # arguments that do not fit: a handler says so
        text = record.getMessage()
        safe = redact(text)
        if safe != text:
            record.msg, record.args = safe, ()
    return True


def logger(name: str = NAME) -> logging.Logger:
    """Return PySplash's logger, or the child *name* of it (``"pool"`` is ``pysplash.pool``)."""
    if name != NAME and not name.startswith(NAME + "."):
        name = f"{NAME}.{name}"
    found = logging.getLogger(name)
    found.addFilter(_redacted)
    return found


class Seldom:
    """Limits how often a recurring condition is logged: once in *seconds*."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = float("-inf")

    def due(self, now: float) -> bool:
        """Return whether to log at *now* (monotonic seconds); if so, start the interval anew."""
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def configure(
    level: int | str | None = logging.INFO, fmt: str = FORMAT, datefmt: str = DATE_FORMAT
) -> None:
    """Send PySplash's log to standard error at *level*; calling it again only changes the level.

    As RQ does: a program that has handlers of its own gets each line through them, once; and
    with None as *level* its own levels hold.
    """
    root = logger()
    if level is not None:
        root.setLevel(level)
    if not root.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(RedactingFormatter(fmt, datefmt))
        root.addHandler(handler)
        root.propagate = False  # or a handler that comes later would write each line again


def set_debug(on: bool = True) -> None:
    """Log every decision and its reason (*on*), or lifecycle events only.

    Lines go to standard error, or to the handlers that the program has.
    """
    configure(logging.DEBUG if on else logging.INFO)
