"""Timeouts do not count the time for which a process was held, and count all other time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from rq.timeouts import JobTimeoutException

from pysplash.waiting.offer import attach
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.timeouts import StackingDeathPenalty


class HeldSlot(Slot):
    """The slot of a process that was held for as long as a test says."""

    def __init__(self, board: Scoreboard, held: Callable[[], float]) -> None:
        super().__init__(board, 0, "w")
        self._test_says = held

    def held(self) -> float:
        return self._test_says()


@pytest.fixture
def hold() -> Iterator[Callable[[Callable[[], float]], None]]:
    """Say for how long this process was held."""
    with contextlib.closing(Scoreboard(1)) as board:
        yield lambda held: attach(HeldSlot(board, held))
        attach(None)


def run(timeout: float, seconds: float) -> None:
    """Run for *seconds* under a timeout."""
    end = time.monotonic() + seconds
    with StackingDeathPenalty(timeout, JobTimeoutException, job_id="job"):
        while time.monotonic() < end:
            sum(range(1000))


def test_what_was_held_is_granted(hold: Callable[[Callable[[], float]], None]) -> None:
    """A job that is held all the time but for an instant runs four times as long as it may."""
    began = time.monotonic()
    hold(lambda: 0.999 * (time.monotonic() - began))

    run(0.2, 0.8)


def test_what_was_held_before_is_not(hold: Callable[[Callable[[], float]], None]) -> None:
    """An earlier job's held time is no gift to this one."""
    hold(lambda: 100.0)

    with pytest.raises(JobTimeoutException):
        run(0.2, 60.0)


def test_nested_timeouts_are_each_granted(hold: Callable[[Callable[[], float]], None]) -> None:
    """The outer timeout and the inner one both wait for what was held while both were in force."""
    began = time.monotonic()
    hold(lambda: 0.999 * (time.monotonic() - began))

    with StackingDeathPenalty(0.3, JobTimeoutException, job_id="outer"):
        run(0.2, 0.8)
