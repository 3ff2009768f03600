"""Hooks: whether methods of RQ around the run of a job were patched or overridden, and which.

Tracing tools replace methods of RQ's classes by their own, at any time and in their own ways. A
method counts as patched where what the class has is no plain function of RQ's or ours: so it does
not matter who came first, nor how the tool wraps. A subclass that has its own counts the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import rq
from rq.job import Job
from rq.queue import Queue

#: methods of workers around the run of a job: a patched one makes RQ's own code run the job
AROUND = ("execute_job", "perform_job", "prepare_job_execution")
#: the same of jobs
AROUND_JOB = ("perform", "_execute")
#: methods by which RQ stores a success: where one is patched RQ stores all of them
STORING = (
    "handle_execution_ended",
    "handle_job_success",
    "cleanup_execution",
    "increment_successful_job_count",
    "increment_total_working_time",
)
STORING_JOB = ("cleanup", "_handle_success")
STORING_QUEUE = ("enqueue_dependents",)
#: of RQ's workers that fork alone; ours runs jobs in its own process, as SimpleWorker does
NEVER_CALLED = ("main_work_horse", "fork_work_horse", "monitor_work_horse")

#: where the methods of RQ and ours are written
_HOMES = tuple(f"{folder}/" for folder in (Path(rq.__file__).parent, Path(__file__).parents[1]))


class Hooks(NamedTuple):
    """The patched methods of one worker's class, of jobs and of queues."""

    #: those around the run of a job, and those by which RQ stores a success
    around: tuple[str, ...] = ()
    storing: tuple[str, ...] = ()
    #: those that a worker which does not fork never calls
    never_called: tuple[str, ...] = ()

    @property
    def called(self) -> tuple[str, ...]:
        """Those that are called."""
        return (*self.around, *self.storing)


def is_own(found: Any) -> bool:
    """Return whether *found* is a method as RQ or PySplash has written it."""
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    return isinstance(found, FunctionType) and found.__code__.co_filename.startswith(_HOMES)


def _patched(owner: type, names: Iterable[str]) -> Iterator[str]:
    """Yield which of *names* is patched in *owner* or a class beneath it."""
    for name in names:
        for each in owner.__mro__:
            if name in vars(each) and not is_own(vars(each)[name]):
                yield f"{each.__name__}.{name}"
                break


def find_hooks(worker: Any) -> Hooks:
    """Return which methods that *worker* calls, or would call as one of RQ's, are patched."""
    kind = type(worker)
    given = [f"{kind.__name__}.{name}" for name in AROUND if name in vars(worker)]
    return Hooks(
        (*given, *_patched(kind, AROUND), *_patched(Job, AROUND_JOB)),
        (
            *_patched(kind, STORING),
            *_patched(Job, STORING_JOB),
            *_patched(Queue, STORING_QUEUE),
        ),
        tuple(_patched(kind, NEVER_CALLED)),
    )


class HookWatch:
    """Finds hooks anew once modules were imported, or a method that tools like was replaced."""

    def __init__(self, worker: Any, found: Callable[[Hooks], None]) -> None:
        self._worker = worker
        self._kind = type(worker)
        self._found = found
        self._seen: tuple[Any, ...] = ()
        self.hooks = Hooks()

    def look(self) -> None:
        """Look again, if there may be anything new; it costs a fraction of a microsecond if not."""
        kind = self._kind
        seen = (len(sys.modules), kind.perform_job, kind.execute_job, Job.perform)
        if seen == self._seen:
            return
        self._seen = seen
        hooks = find_hooks(self._worker)
        if hooks != self.hooks:
            self.hooks = hooks
            self._found(hooks)
