"""Jobs whose worker dies, and what is called then: each leaves a line in the list ``called``."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any, NoReturn

from redis import Redis
from rq import Callback, Queue, get_current_job
from rq.job import Job
from rq.utils import as_text

import pysplash
from pysplash import wait_jobs
from pysplash.events import JobEvent

#: the key of the list
CALLED = "called"


def note(connection: Redis, who: str, job_id: str, **facts: Any) -> None:
    """Leave a line."""
    line = {"who": who, "job": job_id, "pid": os.getpid(), "parent": os.getppid(), **facts}
    connection.rpush(CALLED, json.dumps(line))


def die() -> None:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> NoReturn:
    """Raise."""
    raise ValueError("no luck")


def nap(seconds: float) -> None:
    """Sleep, deaf to the timeout."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(seconds)  # noqa: TID251 -- this is the job


def wait_for_death() -> None:
    """Wait for a job that kills the worker."""
    me = get_current_job()
    assert me is not None
    queue = Queue(me.origin, connection=me.connection)
    child = queue.enqueue(die, job_id="inner", on_failure=Callback(report))
    wait_jobs([child])


# --- callbacks ---


def report(
    job: Job, connection: Redis, kind: type[Exception], value: Exception, trace: Any
) -> None:
    """Say what a callback is told, and save the job as an application may."""
    note(
        connection,
        "callback",
        job.id,
        kind=kind.__name__,
        arguments=list(value.args),
        notes=getattr(value, "__notes__", []),
        trace=trace,
        status=str(job.get_status(refresh=False)),
        stored=as_text(connection.hget(job.key, "status") or b""),
        retries_left=job.retries_left,
        function=job.func_name,
        worker=job.worker_name,
    )
    job.meta["reported"] = True
    job.save()


def raise_(job: Job, connection: Redis, *_about: Any) -> None:
    """Fail."""
    note(connection, "callback", job.id)
    raise LookupError("nobody to tell")


def exit_(job: Job, connection: Redis, *_about: Any) -> None:
    """Leave the process."""
    note(connection, "callback", job.id)
    raise SystemExit(3)


def kill(job: Job, connection: Redis, *_about: Any) -> None:
    """Kill the process of the callback."""
    note(connection, "callback", job.id)
    die()


def hang(job: Job, connection: Redis, *_about: Any) -> None:
    """Never end; deaf to the callback's timeout."""
    note(connection, "callback", job.id)
    nap(3600)


def doze(job: Job, connection: Redis, *_about: Any) -> None:
    """Take longer than its timeout."""
    note(connection, "callback", job.id)
    time.sleep(3600)  # noqa: TID251 -- this is the callback


# --- exception handlers ---


def first(job: Job, kind: type[Exception], *_about: Any) -> None:
    """Let the next one go on."""
    note(job.connection, "first", job.id, kind=kind.__name__)


def last(job: Job, *_about: Any) -> bool:
    """End the chain."""
    note(job.connection, "last", job.id)
    return False


def never(job: Job, *_about: Any) -> None:
    """Come after the one that ended the chain."""
    note(job.connection, "never", job.id)


# --- listeners: this module is preloaded by some tests ---


@pysplash.on("job_failed")
def listen(event: JobEvent) -> None:
    """Say which job failed."""
    if "CALLED_URL" in os.environ:
        with Redis.from_url(os.environ["CALLED_URL"]) as connection:
            facts = {"error": event.error, "retried": event.retried, "text": event.text}
            note(connection, "listener", event.id, **facts)
