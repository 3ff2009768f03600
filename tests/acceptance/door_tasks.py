"""Tasks and hooks that pools under test preload."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pysplash
from tests.acceptance.jobs import mark

#: what the setup hook has been told
TOLD: dict[str, str] = {}


@pysplash.setup
def open_all(parameters: Mapping[str, str]) -> None:
    """Take note of the parameters, and leave a line for the start."""
    TOLD.update(parameters)
    if "marks" in parameters:
        mark(parameters["marks"], f"up {os.getpid()}")
    if "fail" in parameters:
        raise RuntimeError(parameters["fail"])


@pysplash.teardown
def close_all() -> None:
    """Leave a line for the end."""
    if "marks" in TOLD:
        mark(TOLD["marks"], f"down {os.getpid()}")


@pysplash.task
def add(a: Any, b: Any = 1) -> Any:
    """Return a sum."""
    return a + b


@pysplash.task(name="door.told", queue="fast", timeout=7)
def told() -> dict[str, str]:
    """Return what the worker was told."""
    return dict(TOLD)


@pysplash.task(name="door.nap")
def nap(seconds: float) -> float:
    """Sleep: a job's work, not a test's wait."""
    time.sleep(seconds)  # noqa: TID251 -- this is the job
    return seconds


@pysplash.task(name="door.hold")
def hold(path: str, gate: str) -> int:
    """Leave a line, then run until the file *gate* exists."""
    mark(path)
    while not Path(gate).exists():
        nap(0.02)
    return os.getpid()


@pysplash.task(name="door.odd")
def odd() -> complex:
    """Return what JSON has no form for."""
    return 1 + 2j


@pysplash.task(name="door.slow_limit", timeout=1)
def too_slow() -> None:
    """Run longer than it may."""
    nap(30)


@pysplash.task(name="door.nested")
def nested(url: str, seconds: float) -> float:
    """Call another task and wait for it, from inside a task."""
    with pysplash.Client(url) as client:
        return float(client.door.nap(seconds))


@pysplash.task(name="door.later")
async def later(value: Any) -> Any:
    """Be a coroutine."""
    return value
