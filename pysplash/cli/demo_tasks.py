"""Sample tasks to play with: ``pysplash demo --tasks`` serves them."""

from __future__ import annotations

import time
from typing import Any

from pysplash.application.registry import task


@task
def add(a: float, b: float) -> float:
    """Return the sum of two numbers."""
    return a + b


@task
def subtract(a: float, b: float) -> float:
    """Return the difference of two numbers."""
    return a - b


@task
def echo(value: Any) -> Any:
    """Return what is given."""
    return value


@task(name="prime.factors", timeout=60)
def factors(number: int) -> list[int]:
    """Return the prime factors of a number, by trial division: work for a CPU."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return [*found, number] if number > 1 else found


@task
def nap(seconds: float) -> float:
    """Sleep for some seconds, and return them."""
    time.sleep(seconds)
    return seconds
