"""Handlers and stages that daemons and pools under test serve."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from rq import get_current_job

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
    job = get_current_job()
    assert job is not None
    job.connection.rpush("called", data)
    if data.startswith(b"nap"):
        time.sleep(float(data[3:]))  # noqa: TID251 -- this is the job
    if data == b"boom":
        raise LookupError("boom")
    if data == b"crash" or (data == b"once" and job.connection.set("crashed", 1, nx=True)):
        os.kill(os.getpid(), signal.SIGKILL)
    return data
