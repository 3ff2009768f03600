"""Signals as events: the handler only queues them; the loop handles them."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

HANDLED = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGQUIT")
)


class SignalQueue:
    """A queue of signal numbers that can be waited for together with file descriptors.

    :meth:`install` takes the process's handlers (only in the main thread; elsewhere it does
    nothing, and the queue is fed by :meth:`post` alone); :meth:`restore` gives them back.
    *numbers* are those that are taken over, by default the ones a pool answers to.
    """

    def __init__(self, numbers: Iterable[int] = HANDLED) -> None:
        self._numbers = tuple(numbers)
        self._pending: deque[int] = deque()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._handle) for number in self._numbers
            }

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def close(self) -> None:
        """Restore the handlers and free the file descriptors."""
        self.restore()
        os.close(self._read)
        os.close(self._write)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.post(number)

    def post(self, number: int) -> None:
        """Enqueue *number* and wake the waiter; safe in a handler and from any thread."""
        self._pending.append(number)
        try:
            os.write(self._write, b"\0")
        except (BlockingIOError, OSError):
            return  # the pipe is full, so the waiter is awake anyway; or the queue is closed

    def drain(self) -> list[int]:
        """Return what has come since the last call, oldest first."""
        numbers = []
        while self._pending:
            numbers.append(self._pending.popleft())
        return numbers

    def wait(self, seconds: float, also: Iterable[int] = ()) -> None:
        """Sleep until a signal comes, a descriptor of *also* is readable, or time is up."""
        if self._read in wait([self._read, *also], max(0.0, seconds)):
            os.read(self._read, 4096)
