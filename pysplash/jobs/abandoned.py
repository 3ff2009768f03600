"""Abandoned jobs: what runs for a job that failed because its worker died.

RQ calls the job's failure callback, then the exception handlers, with ``AbandonedJobError`` and no
traceback, as there is none. So does this. It is done after the failure, or the retry that follows
from it, is stored: then neither can be held up or changed by the user's code. The job that code is
given is the one from before, as RQ would give it, but saving it leaves alone what a run changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis import Redis
from rq.defaults import CALLBACK_TIMEOUT
from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.utils import now
from rq.worker import BaseWorker

from pysplash.events import JOB_FAILED, JobEvent, class_of, tell, text_of
from pysplash.log import logger

from .rq import call_back_failure

#: fields of a job that settling it may have changed meanwhile, and that saving it must not
OF_A_RUN = (
    "status",
    "result",
    "exc_info",
    "started_at",
    "ended_at",
    "enqueued_at",
    "last_heartbeat",
    "worker_name",
    "retries_left",
    "number_of_retries",
)

#: what RQ says in the result of a job that somebody stopped
STOPPED = "Job stopped by user, work-horse terminated."

log = logger("worker")


@dataclass(frozen=True, slots=True)
class AbandonedJob:
    """A job that failed because its worker died; it crosses processes."""

    id: str
    #: its hash in Redis as it was before the failure was stored
    fields: Mapping[bytes, bytes]
    #: what its result says of the failure
    text: str
    #: whether it is retried
    retried: bool
    #: the name of the worker that died
    worker: str
    #: seconds from its start until it was settled
    seconds: float = 0.0
    #: whether there are exception handlers
    handled: bool = False
    #: whether somebody had it stopped
    stopped: bool = False

    @property
    def callback(self) -> str:
        """The import path of its failure callback, or for a stop; "" if it has none."""
        name = b"stopped_callback_name" if self.stopped else b"failure_callback_name"
        return self.fields.get(name, b"").decode(errors="replace")

    @property
    def callback_timeout(self) -> int:
        """Seconds that callback may take."""
        name = b"stopped_callback_timeout" if self.stopped else b"failure_callback_timeout"
        given = self.fields.get(name, b"")
        return int(given) if given.isdigit() else CALLBACK_TIMEOUT


def abandoned(job: Job, worker: BaseWorker, text: str, *, handled: bool) -> AbandonedJob:
    """Return what callbacks are told of a job that is about to fail in the name of *worker*.

    *handled* says whether there are exception handlers.
    """
    fields: Any = worker.connection.hgetall(job.key)
    if not job.should_retry and b"retries_left" in fields:
        fields[b"retries_left"] = b"0"  # it failed too often, whatever is left
    stopped = worker._stopped_job_id == job.id
    retried, ran = job.should_retry and not stopped, seconds_since(job)
    return AbandonedJob(job.id, fields, text, retried, worker.name, ran, handled, stopped)


def restored(abandoned: AbandonedJob, job_class: type[Job], client: Redis, serializer: Any) -> Job:
    """Return the job as it was when its worker died."""
    job = job_class(abandoned.id, connection=client, serializer=serializer)
    job.restore(abandoned.fields)
    vars(job)["to_dict"] = partial(_lasting, job.to_dict)
    return job


def _lasting(to_dict: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {name: value for name, value in to_dict(*args, **kwargs).items() if name not in OF_A_RUN}


def call_back(
    job: Job, handlers: Sequence[Callable[..., Any]], penalty: type[Any], why: str
) -> None:
    """Call what is to be called when *job* fails: its callback, then exception handlers.

    *why* it failed is a note on the exception. A handler that returns False ends the chain. What
    breaks is logged; a callback is ended after its timeout.
    """
    error = AbandonedJobError()
    error.add_note(why)
    facts = (AbandonedJobError, error, None)
    _attempt(job, "failure callback", partial(call_back_failure, job, penalty, *facts))
    _attempt(job, "exception handlers", partial(_call_handlers, handlers, job, facts))


def _call_handlers(
    handlers: Sequence[Callable[..., Any]], job: Job, facts: tuple[Any, ...]
) -> None:
    for handler in handlers:
        goes_on = handler(job, *facts)
        if goes_on is not None and not goes_on:
            break


def _attempt(job: Job, what: str, call: Callable[[], None]) -> None:
    try:
        call()
    except (Exception, SystemExit) as error:
        log.error(
            "job %s: its %s failed, its outcome stands: %s: %s",
            job.id,
            what,
            class_of(error),
            text_of(error),
            exc_info=error,
            extra={"action": "handler", "job": job.id},
        )


def announce_abandoned(
    job: Job, why: str, worker: str, seconds: float, *, retried: bool, stopped: bool = False
) -> None:
    """Tell that *job* has failed, or was stopped, after so many *seconds* as *worker* died."""
    if not JOB_FAILED:
        return
    try:
        function = job.func_name or ""
    except Exception:  # it cannot be read
        function = ""
    kind = "" if stopped else class_of(AbandonedJobError())
    facts: dict[str, Any] = {"error": kind, "text": why, "retried": retried, "stopped": stopped}
    event = JobEvent("job_failed", job.id, function, job.origin, worker, seconds, **facts)
    tell(JOB_FAILED, event)


def announce_cleaned(job: Job, *_exc_info: Any) -> None:
    """Be an exception handler while RQ cleans up jobs whose workers died: tell their failures."""
    why = "its worker is gone, and so is its lease"
    retried = bool(job.retries_left and job.retries_left > 0)
    announce_abandoned(job, why, job.worker_name or "", seconds_since(job), retried=retried)


def seconds_since(job: Job) -> float:
    """Return the seconds since a job was started, 0.0 if it was not."""
    began = job.started_at
    return max(0.0, (now() - began).total_seconds()) if began is not None else 0.0
