"""Handlers and stages that daemons and pools under test serve."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
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


def refuse(stage: Stage, data: bytes) -> Any:
    """Be no use."""
    raise ValueError("no use")


BAD = Stage("flow.bad", refuse, max_attempts=2)


def note(data: bytes) -> bytes:
    """Write down that it was called, and return it; what begins with a known word goes wrong."""
    with Path("called").open("ab") as called:
        called.write(data + b"\n")
    if data.startswith(b"nap"):
        time.sleep(float(data[3:]))  # noqa: TID251 -- this is the job
    if data == b"boom":
        raise LookupError("boom")
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"once" and not Path("crashed").exists():
        Path("crashed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return data
