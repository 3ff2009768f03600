"""How a worker process ends: what is registered with atexit is run, for so many seconds at most.

A fork server's child must not return into the fork server's code, so it ends by ``os._exit``, which
runs nothing. What a worker of ``rq worker`` runs when it leaves is run here first: threads that are
no daemons are waited for, then functions registered with atexit are called, those registered in
the fork server before the fork among them.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.process
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from pysplash.host.processes import flush_output
from pysplash.log import logger

log = logger("worker")

#: most seconds that exit functions have
LONGEST = 10.0


def disown() -> None:
    """Leave to the fork server what it has to clear away: its temporary folders and children.

    Called in a new child. A folder that the first worker to leave removed would be missing in
    all others.
    """
    registry: dict[Any, Any] = getattr(weakref.finalize, "_registry", {})
    for finalizer in list(registry):
        finalizer.atexit = False
    getattr(multiprocessing.process, "_children", set()).clear()


def leave(name: str, status: int, terminate: float) -> NoReturn:
    """End the process *name* with *status* once its exit functions are done.

    They have at most half of the *terminate* seconds between a stop and the kill.
    """
    seconds = min(LONGEST, terminate / 2)
    cut_short = threading.Thread(target=_cut_short, args=(name, status, seconds), daemon=True)
    steps: tuple[Callable[[], object], ...] = (
        cut_short.start,
        threading._shutdown,  # type: ignore[attr-defined]
        atexit._run_exitfuncs,
    )
    try:
        for step in steps:
            with contextlib.suppress(BaseException):
                step()
    finally:
        _end(status)


def _cut_short(name: str, status: int, seconds: float) -> None:
    time.sleep(seconds)
    with contextlib.suppress(Exception):
        log.warning(
            "%s ends before its exit functions are done: they took longer than %g s (%s)",
            name,
            seconds,
            ", ".join(_waited_for()) or "a function registered with atexit",
            extra={"action": "leave"},
        )
    _end(status)


def _waited_for() -> list[str]:
    """Return the names of the threads whose end the process waits for."""
    main = threading.main_thread()
    return [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread is not main and not thread.daemon
    ]


def _end(status: int) -> NoReturn:
    try:
        flush_output()
    finally:
        os._exit(status)
