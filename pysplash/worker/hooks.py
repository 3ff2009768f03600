"""Hooks: whether methods of RQ around the run of a job were patched or overridden, and which.

Tracing tools replace methods of RQ's classes by their own, at any time and in their own ways. A
method counts as patched where what the class has is no plain function of RQ's or ours: so it does
not matter who came first, nor how the tool wraps. A subclass that has its own counts the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from rq.job import Job
from rq.queue import Queue
from rq.worker import Worker as ForkingWorker

from pysplash.jobs.own_methods import is_own

from .horse import ENTRY

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
#: methods by which RQ stores what is no success; called however a job is run
FAILING = ("handle_job_failure", "handle_job_retry", "handle_exception")
#: of RQ's workers that fork alone; ours runs jobs in its own process, as SimpleWorker does
NEVER_CALLED = ("fork_work_horse", "monitor_work_horse")


class Hooks(NamedTuple):
    """The patched methods of one worker's class, of jobs and of queues."""

    #: those around the run of a job, and those by which RQ stores a success
    around: tuple[str, ...] = ()
    storing: tuple[str, ...] = ()
    #: those that a worker which does not fork never calls
    never_called: tuple[str, ...] = ()
    #: those of the first that are patched in RQ's forking worker alone; names without the class
    borrowed: tuple[str, ...] = ()

    @property
    def called(self) -> tuple[str, ...]:
        """Those that are called."""
        return (*self.around, *self.storing)


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
    names = (*AROUND, ENTRY)
    given = [f"{kind.__name__}.{name}" for name in names if name in vars(worker)]
    borrowed = tuple(_borrowed(worker))
    lent = [f"{ForkingWorker.__name__}.{name}" for name in borrowed]
    return Hooks(
        (*given, *lent, *_patched(kind, names), *_patched(Job, AROUND_JOB)),
        (
            *_patched(kind, STORING),
            *_patched(Job, STORING_JOB),
            *_patched(Queue, STORING_QUEUE),
        ),
        tuple(_patched(ForkingWorker, NEVER_CALLED)),
        borrowed,
    )


def _borrowed(worker: Any) -> Iterator[str]:
    """Yield which methods are patched in RQ's forking worker, and not in *worker*'s own class."""
    kind, own = type(worker), vars(ForkingWorker)
    if issubclass(kind, ForkingWorker):
        return
    for name in (*AROUND, ENTRY, *STORING, *FAILING):
        lent = name in own and not is_own(own[name]) and name not in vars(worker)
        if lent and not any(_patched(kind, [name])):
            yield name


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
        forking = ForkingWorker.perform_job
        seen = (len(sys.modules), kind.perform_job, kind.execute_job, Job.perform, forking)
        if seen == self._seen:
            return
        self._seen = seen
        hooks = find_hooks(self._worker)
        if hooks != self.hooks:
            self.hooks = hooks
            self._found(hooks)
