"""Many calls of one function, as jobs: enqueue them together, wait, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rq import Queue, get_current_job
from rq.job import Job

from .environment import from_environment
from .errors import JobsError
from .wait import check, wait_jobs

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

    The other arguments, and what is raised, are those of :func:`~pysplash.wait.wait_jobs`; besides,
    JobsError if *max_wait* seconds passed first. When one job has failed the others stay enqueued.

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
    return Queue(queue or me.origin, connection=me.connection, serializer=me.serializer)


def _enqueue(
    queue: Queue, func: Callable[..., Any] | str, items: list[Any], *, at_front: bool
) -> list[Job]:
    """Enqueue a job for each of *items*; the first is the first to be taken."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    step = -1 if at_front else 1  # what is pushed to the front last is taken first
    enqueued: list[list[Job]] = []
    for chunk in chunks[::step]:
        calls = [
            queue.prepare_data(func, (item,), at_front=at_front)  # type: ignore[type-var]
            for item in chunk[::step]
        ]
        enqueued.append(queue.enqueue_many(calls)[::step])
    return [job for jobs in enqueued[::step] for job in jobs]
