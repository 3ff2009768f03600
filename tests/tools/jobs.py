"""What the jobs of these tests call."""

from __future__ import annotations


def fine(number: int) -> int:
    """Return what is given."""
    return number


def broken(number: int) -> int:
    """Fail."""
    raise ValueError(f"number {number}")
