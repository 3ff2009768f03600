"""The terms on which a client calls: how long, and what then. No I/O."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

from pysplash.errors import CallTimeout

#: seconds an answer is kept, and seconds a failure is
RESULT_TTL, FAILURE_TTL = 60, 24 * 3600
ON_TIMEOUT = ("cancel", "leave")


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a client calls; times in seconds."""

    timeout: float | None = None
    overflow: float = 0.0
    overflows: int = 0
    on_timeout: str = "cancel"
    patience: float = 0.0
    result_ttl: int = RESULT_TTL
    failure_ttl: int = FAILURE_TTL
    serializer: Any = None
    #: results travel as JSON and are never unpickled
    plain: bool = False


def check_terms(terms: Terms) -> Terms:
    """Return *terms* if they make sense; raise ValueError, naming the value, if not."""
    check_timeout(terms.timeout)
    check_on_timeout(terms.on_timeout)
    for name in ("overflow", "overflows", "patience"):
        if not 0 <= getattr(terms, name) < math.inf:
            raise ValueError(f"{name} must be 0 or more, not {getattr(terms, name)!r}")
    for name in ("result_ttl", "failure_ttl"):
        if not (isinstance(getattr(terms, name), int) and getattr(terms, name) > 0):
            raise ValueError(f"{name} must be whole seconds of at least 1")
    return terms


def check_timeout(timeout: float | None) -> float | None:
    """Return *timeout* if it can be meant; raise ValueError if not."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be 0 seconds or more, not {timeout!r}")
    return timeout


def check_on_timeout(choice: str) -> str:
    """Return *choice* if it is one; raise ValueError if not."""
    if choice not in ON_TIMEOUT:
        raise ValueError(f"on_timeout must be 'cancel' or 'leave', not {choice!r}")
    return choice


class Allowance:
    """How long calls may take: a soft limit, which a few in a row may overflow.

    The idea is that of timeouts that count against a worker only when they become a habit.
    Thread-safe.
    """

    def __init__(self, overflow: float, overflows: int) -> None:
        self._overflow = overflow
        self._overflows = overflows
        self._in_a_row: dict[str, int] = {}
        self._lock = threading.Lock()

    def limit(self, task: str, timeout: float | None) -> float | None:
        """Return the seconds the next call of *task* may take; None: no limit."""
        if timeout is None or not self._overflow:
            return timeout
        with self._lock:
            left = self._overflows - self._in_a_row.get(task, 0)
        return timeout + self._overflow if left > 0 else timeout

    def took(self, task: str, seconds: float, timeout: float | None) -> None:
        """Take note of a call: one in time forgives all before it."""
        if timeout is None or not self._overflow:
            return
        with self._lock:
            if seconds <= timeout:
                self._in_a_row.pop(task, None)
            else:
                self._in_a_row[task] = self._in_a_row.get(task, 0) + 1


class Timing:
    """How long one call may take, and what happens then; times are monotonic seconds.

    *timeout* and *on_timeout* are those of *terms* if they are None. Raises ValueError for others
    that make no sense.
    """

    def __init__(
        self,
        task: str,
        terms: Terms,
        allowance: Allowance,
        timeout: float | None,
        on_timeout: str | None,
        now: float,
    ) -> None:
        self._task = task
        self._soft = terms.timeout if timeout is None else check_timeout(timeout)
        self.cancels = check_on_timeout(on_timeout or terms.on_timeout) == "cancel"
        self._limit = allowance.limit(task, self._soft)
        self._allowance = allowance
        self._started = now

    @property
    def ttl(self) -> float | None:
        """Seconds for which the job may wait to be begun: one more than anybody waits for it."""
        return None if self._limit is None or not self.cancels else self._limit + 1

    def left(self, now: float) -> float | None:
        """Return the seconds that are left for the answer; None: no limit."""
        return None if self._limit is None else self._limit - (now - self._started)

    def ended(self, now: float) -> None:
        """Count the call for or against the next ones."""
        self._allowance.took(self._task, now - self._started, self._soft)

    def error(self) -> CallTimeout:
        """Return what to raise for a call that took too long."""
        done = "cancelled" if self.cancels else "left to run"
        return CallTimeout(
            f"task {self._task} did not answer within {self._limit:g} s and was {done}"
        )
