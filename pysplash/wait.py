"""Waiting for jobs: woken by Redis, not by polling; inside a job, helping first."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from rq import get_current_job
from rq.job import Job

from .clients import Clients
from .errors import WouldDeadlock
from .helping import Helper, at_hand
from .leapfrog import HelpingWaiter
from .outcome import collect
from .progress import bar
from .scoreboard import attached
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
