"""RQ 2: how its worker is called, and how it keeps in Redis what a worker runs.

It keeps one execution on the worker, where its methods find it, and one job in the worker's hash.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import rq.job
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.executions import Execution
from rq.job import Job, Retry
from rq.queue import Queue
from rq.worker import BaseWorker

from pysplash.connections.transactions import raising_lost_connections, raising_outages

from .dependents import releasing_once

#: in a script: fields of a worker's hash while it runs the job `next`; and what says it runs none
PRESENT = "'current_job', next, 'current_job_working_time', 0,"
ABSENT = "call('HDEL', worker_key, 'current_job')"
#: in a script: `open` writes the record of an execution, `close` whatever RQ 3 has besides
RECORDS = """
local function open(job, execution, lease)
  local key = 'rq:execution:' .. job .. ':' .. execution
  call('HSET', key, 'id', execution, 'created_at', ARGV[2], 'last_heartbeat', ARGV[2],
    'worker_name', worker)
  call('EXPIRE', key, lease)
end
local function close() end
"""
#: in a script: what lives on with the key of `worker` for `ttl` seconds
PROLONGED = ""

#: what RQ's methods take besides the worker; those that are not called are overridden
TAKEN = {
    "handle_job_success": "job queue started_job_registry",
    "handle_job_failure": "job queue started_job_registry exc_string",
    "handle_job_retry": "job queue retry started_job_registry execution",
    "handle_execution_ended": "job queue heartbeat_ttl",
    "handle_exception": "job exc_info",
    "cleanup_execution": "job pipeline",
    "prepare_execution": "job",
    "prepare_job_execution": "job remove_from_intermediate_queue",
    "perform_job": "job queue",
    "execute_job": "job queue",
    "get_current_job_id": "pipeline",
}
#: words for a job's status beyond those that every RQ has
STATUSES: frozenset[str] = frozenset()

_jobs: Any = vars(rq.job).get("_job_stack")


def enter(job: Job) -> Any:
    """Make *job* the current one; return what :func:`leave` takes."""
    return _jobs.push(job)


def leave(entered: Any) -> None:
    """Make the job before the current one again."""
    _jobs.pop()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run an asynchronous job's function to its end."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(coroutine)


def held(worker: BaseWorker) -> Execution | None:
    """Return the worker's current execution, as the worker has it."""
    execution: Execution | None = worker.execution
    return execution


def hold(worker: BaseWorker, execution: Execution | None) -> None:
    """Make *execution* the worker's current one."""
    worker.execution = execution


def recover(queue: Queue) -> None:
    """Do nothing: a job that is ready is on its queue."""


def perform(worker: Any, job: Job, queue: Queue) -> None:
    """Let RQ run a job and store its outcome."""
    worker.perform_job(job, queue)


def succeed(worker: Any, job: Job, queue: Queue) -> None:
    """Store a success with all that follows from it."""
    worker.handle_job_success(job=job, queue=queue, started_job_registry=queue.started_job_registry)


def fail(worker: Any, job: Job, queue: Queue, text: str) -> bool:
    """Store a failure, or the retry that follows from it; True.

    RQ only logs what goes wrong there, or not even that. Raise redis's error where that is away,
    or nothing was stored.
    """
    execution = held(worker)
    with raising_lost_connections(worker.connection), raising_outages(worker):
        worker.handle_job_failure(
            job=job,
            queue=releasing_once(queue),
            started_job_registry=queue.started_job_registry,
            exc_string=text,
        )
    if execution is not None and worker.connection.exists(execution.key):
        raise RedisConnectionError(f"the failure of job {job.id} was not stored")
    return True


def retry(worker: Any, job: Job, queue: Queue, wish: Retry) -> None:
    """Store that a job returned a Retry."""
    worker.handle_job_retry(
        job=job,
        queue=releasing_once(queue),
        retry=wish,
        started_job_registry=queue.started_job_registry,
        execution=worker.execution,
    )


def close_execution(worker: Any, job: Job, pipeline: Pipeline) -> None:
    """Close the worker's execution of a job."""
    worker.cleanup_execution(job, pipeline=pipeline)


def call_back_success(job: Any, penalty: type[Any], value: Any) -> None:
    """Call the job's callback for a success, under its timeout."""
    job.execute_success_callback(penalty, value)


def call_back_failure(job: Any, penalty: type[Any], *exc_info: Any) -> None:
    """Call the job's callback for a failure, under its timeout."""
    job.execute_failure_callback(penalty, *exc_info)


def call_back_stop(job: Any, penalty: type[Any]) -> None:
    """Call the job's callback for a stop, under its timeout."""
    job.execute_stopped_callback(penalty)


def current_job_ids(worker: BaseWorker) -> list[str]:
    """Return the ids of the jobs the worker runs, as Redis has them."""
    job_id: str | None = worker.get_current_job_id()
    return [job_id] if job_id else []


def claimed(ask: Callable[..., Any], worker: str, execution: str) -> bytes | None:
    """Return the job that *worker* has claimed as *execution*; *ask* takes a command's words."""
    job_id: bytes | None = ask("HGET", f"rq:worker:{worker}", "current_job")
    if not job_id or not ask("EXISTS", b"rq:execution:" + job_id + b":" + execution.encode()):
        return None
    return job_id


def unclaimed(worker: str, job_id: bytes, execution: bytes) -> tuple[str | bytes, ...]:
    """Return the command that removes a job from those *worker* runs."""
    return ("HDEL", f"rq:worker:{worker}", "current_job")
