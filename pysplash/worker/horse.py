"""Patched methods of RQ's forking worker, called around a run in the worker's own process.

Some tools patch ``rq.Worker``, which forks a process for each job, the work horse. Ours takes its
place and does not fork, so its methods are borrowed, and those that fork are replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from rq.worker import Worker as ForkingWorker

#: the method in which a work horse runs its job
ENTRY = "main_work_horse"


class HorseDone(SystemExit):
    """Leaves RQ's ``main_work_horse``, which would end the process."""


def borrow(worker: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the methods *names* of RQ's forking worker, bound to *worker*."""
    return {name: vars(ForkingWorker)[name].__get__(worker, type(worker)) for name in names}


def stand_ins(worker: Any, perform: Callable[[], None]) -> dict[str, Any]:
    """Return what takes the place of the methods of *worker* that fork, or prepare a process.

    *perform* runs the job.
    """

    def leave() -> None:
        perform()
        raise HorseDone(0)

    def fork(job: Any, queue: Any) -> None:
        with contextlib.suppress(HorseDone):
            worker.main_work_horse(job, queue)

    def monitor(*_: Any) -> None:
        """Do nothing: the job has ended."""

    return {
        "setup_work_horse_signals": leave,  # called by main_work_horse before anything else
        "fork_work_horse": fork,
        "monitor_work_horse": monitor,
    }
