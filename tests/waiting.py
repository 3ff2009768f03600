"""The one way tests wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], bound: float, what: str = "") -> T:
    """Return *predicate*'s first truthy value; raise AssertionError after *bound* seconds."""
    deadline = time.monotonic() + bound
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what or predicate} did not come true within {bound:g} s")
        time.sleep(0.005)  # noqa: TID251 -- the one sleep all others are spared by
