"""wait_jobs and map_jobs: woken by Redis, not by polling; inside a job, helping first."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rq import Queue, get_current_job
from rq.job import Job

from pysplash.connections.environment import from_environment
from pysplash.errors import JobsError, WouldDeadlock
from pysplash.jobs.own_methods import has_patched

from .clients import Clients
from .helping import HelpingWaiter
from .offer import Helper, at_hand, attached
from .outcomes import SYNC, collect
from .progress import bar
from .waiter import BLOCK_DRAWING, Waiter

ON_FAILURE = ("raise", "none", "return")


def wait_jobs(
    jobs: Iterable[Job],
    max_wait: float | None = None,
    collect_results: bool = False,
    *,
    on_failure: str = "raise",
    help: bool = True,
    progress: bool | None = None,
) -> bool | list[Any]:
    """Wait until all *jobs* have ended, inside a job or outside.

    Return True; with *collect_results* the list of results in the order of *jobs*. Return False
    if *max_wait* seconds passed before (None: no limit; 0: look once, do not wait). A job may be
    named more than once. While Redis does not answer, the wait goes on.

    *on_failure* says what becomes of a job that failed, was stopped or cancelled, or vanished:
    ``"raise"`` its JobFailed as soon as it is seen; ``"none"`` makes its result None;
    ``"return"`` puts the JobFailed in the list. A job with ``result_ttl=0`` is gone once it
    succeeded: that counts as finished, its result is None.

    Inside a job of a PySplash worker, what is waited for, and what that waits for in turn, is run
    there and then if it is queued where the worker serves, unless *help* is False; so a tree of
    jobs ends with any number of workers. *max_wait* is looked at between such jobs. In a thread of
    the job's own and in a coroutine there is no help.

    *progress* off (False) draws no bar; otherwise one is drawn on standard error if that is a
    terminal, never inside a worker. A queue that no worker serves is named in the log.

    Raise JobFailed as said; WouldDeadlock if the running job is among *jobs*, or one of them
    waits for it, directly or through others; NestedTooDeeply if too many jobs would run inside
    one another; ValueError for a *max_wait* that is negative or NaN and for an unknown
    *on_failure*.

    The blocking read of a result stream is RQ's own ``job.latest_result(timeout)``, made to serve
    many jobs; the waits-for graph is that of databases, which break the same circles; helping is
    Wagner and Calder's leapfrogging.
    """
    check(max_wait, on_failure)
    jobs = list(jobs)
    me = get_current_job()
    if me is not None and any(job.id == me.id for job in jobs):
        raise WouldDeadlock(f"job {me.id} waits for itself")
    slot = attached()
    outside = me is None and slot is None
    drawing = outside and progress is not False and bool(jobs) and sys.stderr.isatty()
    parked = slot.parked() if slot else contextlib.nullcontext()
    helper = _helper_of(me) if help else None
    with parked, _clients(helper, me) as clients, bar(drawing) as report:
        what = (jobs, max_wait, clients, collect_results, on_failure == "raise")
        waiter = HelpingWaiter(*what, helper=helper, me=me) if helper and me else Waiter(*what)
        if drawing:
            waiter.block = BLOCK_DRAWING
        if not waiter.run(me, report):
            return False
    return collect(waiter.in_order(), on_failure) if collect_results else True


def check(max_wait: float | None, on_failure: str) -> None:
    """Raise ValueError, naming the value, for an argument of wait_jobs that cannot be meant."""
    if max_wait is not None and not max_wait >= 0:
        raise ValueError(f"max_wait must be 0 seconds or more, not {max_wait!r}")
    if on_failure not in ON_FAILURE:
        raise ValueError(f"on_failure must be 'raise', 'none' or 'return', not {on_failure!r}")


def _helper_of(me: Job | None) -> Helper | None:
    """Return the worker that may run jobs inside *me*, if there is one."""
    helper = at_hand()
    return helper if helper is not None and me is not None and helper.runs(me) else None


def _clients(helper: Helper | None, me: Job | None) -> Clients:
    if helper is None or me is None:
        return Clients()
    return Clients(own=me.connection, kept=helper.waiting_client())


#: jobs enqueued in one transaction; it holds the server up for a few milliseconds
CHUNK = 1000


def map_jobs(
    func: Callable[..., Any] | str,
    iterable: Iterable[Any],
    *,
    queue: Queue | str | None = None,
    max_wait: float | None = None,
    on_failure: str = "raise",
    help: bool = True,
    progress: bool | None = None,
) -> list[Any]:
    """Call *func* with each item of *iterable*, as jobs; return the results in that order.

    *func* is a function at the top level of a module, or its import path. *queue* is one of RQ's
    queues, or a name; inside a job the default is the job's own queue, and a name is looked for
    on the job's server; outside, the default is ``"default"``, and a name is looked for on the
    server that the environment names (``REDIS_URL``), as RQ's command line does. Inside a job the
    new jobs go to the front of the queue, so that a tree is worked depth first; outside, to its
    end.

    The other arguments, and what is raised, are those of :func:`~pysplash.wait_jobs`; besides,
    JobsError if *max_wait* seconds passed first. When one job has failed the others stay enqueued.
    On a queue with ``is_async=False`` the jobs are run here, one after the other; so are those of a
    job that such a queue runs.

    The name and the order of results are those of ``concurrent.futures.Executor.map``.
    """
    check(max_wait, on_failure)
    me = get_current_job()
    jobs = _enqueue(_queue(queue, me), func, list(iterable), at_front=me is not None)
    results = wait_jobs(jobs, max_wait, True, on_failure=on_failure, help=help, progress=progress)
    if isinstance(results, list):
        return results
    raise JobsError(f"{len(jobs)} jobs did not all end within {max_wait} s: raise max_wait")


def _queue(queue: Queue | str | None, me: Job | None) -> Queue:
    if isinstance(queue, Queue):
        return queue
    if me is None:
        return Queue(queue or "default", connection=from_environment())
    return Queue(
        queue or me.origin,
        connection=me.connection,
        serializer=me.serializer,
        is_async=me.worker_name != SYNC,
    )


def _enqueue(
    queue: Queue, func: Callable[..., Any] | str, items: list[Any], *, at_front: bool
) -> list[Job]:
    """Enqueue a job for each of *items*; the first is the first to be taken."""
    if not queue.is_async:  # RQ's enqueue_many would say of those it has run that they are queued
        return [queue.enqueue_call(func, (item,)) for item in items]  # type: ignore[type-var]
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    step = -1 if at_front else 1  # what is pushed to the front last is taken first
    enqueued: list[list[Job]] = []
    for chunk in chunks[::step]:
        calls = [
            queue.prepare_data(func, (item,), at_front=at_front)  # type: ignore[type-var]
            for item in chunk[::step]
        ]
        enqueued.append(_enqueue_calls(queue, calls)[::step])
    return [job for jobs in enqueued[::step] for job in jobs]


def _enqueue_calls(queue: Queue, calls: list[Any]) -> list[Job]:
    """Enqueue what RQ prepared, one by one where ``enqueue_job`` is patched or overridden."""
    kind = type(queue)
    if has_patched(kind, "enqueue_many") or not has_patched(kind, "enqueue_job"):
        return queue.enqueue_many(calls)
    with queue.connection.pipeline() as pipeline:
        jobs = [
            queue.enqueue_job(
                queue.create_job(call.func, call.args, timeout=call.timeout),
                pipeline=pipeline,
                at_front=call.at_front,
            )
            for call in calls
        ]
        pipeline.execute()
    return jobs
