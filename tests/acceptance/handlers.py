"""Handlers and stages that daemons and pools under test serve."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from pysplash import Stage


def echo(data: bytes) -> bytes:
    """Return it; of some words, something else."""
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if data.startswith(b"nap"):
        time.sleep(float(data[3:]))  # noqa: TID251 -- this is the job
    if data == b"pid":
        return str(os.getpid()).encode()
    return data


def split(stage: Stage, data: bytes) -> list[tuple[str, bytes]]:
    """Forward two parts of an item, in one step."""
    return [("flow.middle", data + b".a"), ("flow.middle", data + b".b")]


def mark(stage: Stage, data: bytes) -> dict[str, bytes]:
    """Forward an item, marked."""
    return {"flow.last": data + b"!"}


def last(stage: Stage, data: bytes) -> dict[str, bytes]:
    """Forward an item to where nobody takes it."""
    return {"flow.done": data}


def refuse(stage: Stage, data: bytes) -> Any:
    """Be no use."""
    raise ValueError("no use")


FIRST = Stage("flow.first", split)
MIDDLE = Stage("flow.middle", mark)
LAST = Stage("flow.last", last)
BAD = Stage("flow.bad", refuse, max_attempts=2)
