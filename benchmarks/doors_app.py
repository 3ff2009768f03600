"""What the doors' benchmark calls: an echo as a task and as a handler."""

from __future__ import annotations

import pysplash


@pysplash.task
def echo(text: str) -> str:
    """Return a text."""
    return text


def echo_bytes(data: bytes) -> bytes:
    """Return bytes."""
    return data
