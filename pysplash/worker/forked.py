"""Processes that a job forks from its worker: what they must not take along, and where they end.

Such a process is a copy of the worker, with its claims, its row and its connections. As it is
born, what makes it a worker is taken from it: the handlers of stops, so that
``multiprocessing.Process.terminate`` ends it, the slot, and the offer to run other jobs. If it
comes back from the job's function, it ends there: it must not go on as a second worker.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

from pysplash.log import logger
from pysplash.waiting.offer import attach, offer

_raw: Any = import_module("_signal")
#: what RQ gives the process of a job, and so to those that the job forks
_CHILD = ((signal.SIGTERM, _raw.SIG_DFL), (signal.SIGINT, _raw.SIG_IGN))
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

log = logger("worker")


class _Process:
    """Whether this process runs jobs in itself, or was forked from one that does."""

    handlers: tuple[Any, ...] = ()
    is_forked = False
    #: the signals that were blocked before a fork; None: nothing forks
    blocked: Any = None


def note_worker() -> None:
    """Say that this process runs jobs in itself, with the handlers that it has now."""
    numbers = (*(number for number, _ in _CHILD), signal.SIGUSR1)
    _Process.handlers = tuple(_raw.getsignal(number) for number in numbers)


def forget_worker() -> None:
    """Say that this process runs no more jobs."""
    _Process.handlers = ()


def _before_fork() -> None:
    """Keep stops from the child until it has no handler of the worker's that would swallow them."""
    if _Process.handlers:
        _Process.blocked = _raw.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


def _after_fork() -> None:
    if _Process.blocked is not None:
        before, _Process.blocked = _Process.blocked, None
        _raw.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_child() -> None:
    try:
        if _Process.handlers:
            _drop_worker()
    finally:
        _after_fork()


def _drop_worker() -> None:
    _Process.is_forked = True
    attach(None)
    offer(None)
    _raw.set_wakeup_fd(-1)
    numbers = (*_CHILD, (signal.SIGUSR1, _raw.SIG_DFL))
    for (number, action), worker in zip(numbers, _Process.handlers, strict=True):
        if _raw.getsignal(number) == worker:  # else it is the job's own
            _raw.signal(number, action)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_become_child)


def end_if_forked(function: str) -> None:
    """End this process if a job of *function* forked it, and it has come back from the job."""
    if _Process.is_forked:
        _end(function, sys.exc_info()[1])


def _end(function: str, error: BaseException | None) -> None:
    status = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit):
            code = error.code
            status = code & 0xFF if isinstance(code, int) else int(code is not None)
            return  # the usual way to end such a process
        log.error(
            "process %d, forked by a job of %s, came back from it: it ends here, "
            "end such a process with os._exit",
            os.getpid(),
            function,
            extra={"action": "forked", "function": function},
        )
        if error is not None:
            log.error("it raised\n%s", "".join(traceback.format_exception(error)))
    finally:
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(status)
