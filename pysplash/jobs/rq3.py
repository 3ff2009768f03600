"""RQ 3: how its worker is called, and how it keeps in Redis what a worker runs.

It hands the execution to each of the worker's methods, and keeps a set of a worker's executions.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from typing import Any

import rq.job
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.executions import Execution
from rq.job import Job, Retry
from rq.queue import Queue
from rq.utils import as_text

from pysplash.connections.outage import AWAY
from pysplash.connections.transactions import raising_outages
from pysplash.log import logger

from .dependents import releasing_once

#: as in rq2
PRESENT = ""
ABSENT = ""
RECORDS = """
local held = worker_key .. ':executions'
local function open(job, execution, lease)
  local entry = job .. ':' .. execution
  local key = 'rq:execution:' .. entry
  call('HSET', key, 'id', execution, 'job_id', job, 'created_at', ARGV[2],
    'last_heartbeat', ARGV[2], 'worker_name', worker)
  call('EXPIRE', key, lease)
  pcall_('SADD', held, entry)
  pcall_('EXPIRE', held, math.max(lease, idle_ttl))
end
local function close(job, execution) pcall_('SREM', held, job .. ':' .. execution) end
"""
PROLONGED = "prolong(worker .. ':executions', ttl)"

TAKEN = {
    "handle_job_success": "job queue started_job_registry execution",
    "handle_job_failure": "job queue started_job_registry exc_string execution",
    "handle_job_retry": "job queue retry started_job_registry execution",
    "handle_execution_ended": "job queue heartbeat_ttl",
    "handle_exception": "job exc_info",
    "cleanup_execution": "job pipeline execution",
    "prepare_execution": "job",
    "prepare_job_execution": "job remove_from_intermediate_queue",
    "perform_job": "job queue execution",
    "execute_job": "job queue",
    "get_current_job_id": "",
}
STATUSES = frozenset(["rate_limited", "ready_to_enqueue"])

#: times a ready job is tried to be enqueued; each costs three round trips
MOST_TRIES = 50

_callbacks: Any = import_module("rq.callbacks")  # types are checked with RQ 2 as well
_current: Any = vars(rq.job).get("_current_job")

log = logger("worker")


def enter(job: Job) -> Any:
    """Make *job* the current one; return what :func:`leave` takes."""
    return _current.set(job)


def leave(entered: Any) -> None:
    """Make the job before the current one again."""
    _current.reset(entered)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run an asynchronous job's function to its end."""
    return asyncio.run(coroutine)


def held(worker: Any) -> Execution | None:
    """Return the worker's current execution, as the worker has it."""
    return next(iter(worker.executions.values()), None)


def hold(worker: Any, execution: Execution | None) -> None:
    """Make *execution* the worker's current one."""
    worker.executions = {} if execution is None else {execution.id: execution}


def recover(queue: Any) -> None:
    """Enqueue jobs left in the ready registry, as by a worker that was killed."""
    ready: Any = queue.connection.zrange(queue.ready_job_registry.key, 0, -1)
    _enqueue_ready(queue, _once, {queue.name: [as_text(job_id) for job_id in ready]})


def _once(call: Callable[[], Any]) -> Any:
    return call()


def _enqueue_ready(queue: Any, insist: Callable[..., Any], ready: dict[str, list[str]]) -> None:
    """Enqueue jobs that are ready, by queue; RQ leaves some behind where others do the same.

    *insist* calls each try, until Redis is there for it.
    """

    def enqueue(registry: Any, left: list[str]) -> list[str]:
        registry.enqueue_jobs(left)
        scores = queue.connection.zmscore(registry.key, left)
        return [it for it, score in zip(left, scores, strict=True) if score is not None]

    for name, job_ids in ready.items():
        target = type(queue)(
            name,
            connection=queue.connection,
            job_class=queue.job_class,
            serializer=queue.serializer,
        )
        registry, left, tries = target.ready_job_registry, job_ids, 0
        try:
            while left and tries < MOST_TRIES:
                left = insist(partial(enqueue, registry, left))
                tries += 1
        except AWAY:
            raise
        except Exception:  # as RQ does: what began all this is stored
            log.exception(
                "queue %s: ready jobs are left until its registries are cleaned",
                name,
            )


def _persistent(worker: Any, queue: Any) -> Any:
    """Return *queue*, made to enqueue dependents even while others do the same.

    A worker of ours waits for a Redis that is away meanwhile.
    """
    if type(queue).enqueue_ready_jobs_by_queue is not vars(Queue)["enqueue_ready_jobs_by_queue"]:
        return queue
    persistent = copy.copy(queue)
    vars(persistent)["enqueue_ready_jobs_by_queue"] = partial(
        _enqueue_ready, queue, getattr(worker, "_insist", _once)
    )
    return persistent


def perform(worker: Any, job: Job, queue: Queue) -> None:
    """Let RQ run a job and store its outcome."""
    worker.perform_job(job, queue, held(worker))


def succeed(worker: Any, job: Job, queue: Queue) -> None:
    """Store a success with all that follows from it."""
    worker.handle_job_success(
        job=job,
        queue=_persistent(worker, queue),
        started_job_registry=queue.started_job_registry,
        execution=held(worker),
    )


def fail(worker: Any, job: Job, queue: Queue, text: str) -> bool:
    """Store a failure, or the retry that follows from it; False if Redis refuses a part.

    RQ only logs what goes wrong there. Raise redis's error where that is away, or nothing was
    stored.
    """
    execution, release = held(worker), worker._release_slot_safely
    stored = []

    def follow(job: Job) -> None:
        stored.append(job)
        release(job)

    worker._release_slot_safely = follow  # the last that RQ does, if it could store the failure
    try:
        with raising_outages(worker):
            worker.handle_job_failure(
                job=job,
                queue=releasing_once(_persistent(worker, queue)),
                started_job_registry=queue.started_job_registry,
                exc_string=text,
                execution=execution,
            )
    finally:
        del worker._release_slot_safely
    if not stored and execution is not None and worker.connection.exists(execution.key):
        raise RedisConnectionError(
            f"the failure of job {job.id} was not stored: the line of the log before says why"
        )
    return bool(stored)


def retry(worker: Any, job: Job, queue: Queue, wish: Retry) -> None:
    """Store that a job returned a Retry."""
    worker.handle_job_retry(
        job=job,
        queue=releasing_once(_persistent(worker, queue)),
        retry=wish,
        started_job_registry=queue.started_job_registry,
        execution=held(worker),
    )


def close_execution(worker: Any, job: Job, pipeline: Pipeline) -> None:
    """Close the worker's execution of a job."""
    worker.cleanup_execution(job, pipeline=pipeline, execution=held(worker))


def call_back_success(job: Job, penalty: type[Any], value: Any) -> None:
    """Call the job's callback for a success, under its timeout."""
    _callbacks.execute_success_callback(job, penalty, value)


def call_back_failure(job: Job, penalty: type[Any], *exc_info: Any) -> None:
    """Call the job's callback for a failure, under its timeout."""
    _callbacks.execute_failure_callback(job, penalty, *exc_info)


def call_back_stop(job: Job, penalty: type[Any]) -> None:
    """Call the job's callback for a stop, under its timeout; one that breaks changes nothing."""
    try:
        _callbacks.execute_stopped_callback(job, penalty)
    except Exception:
        log.exception("job %s: its on_stopped callback failed", job.id)


def current_job_ids(worker: Any) -> list[str]:
    """Return the ids of the jobs the worker runs, as Redis has them."""
    entries = sorted(entry.decode() for entry in worker.connection.smembers(worker.executions_key))
    on_record = [entry for entry in entries if worker.connection.exists(f"rq:execution:{entry}")]
    return [entry.rpartition(":")[0] for entry in on_record]


def claimed(ask: Callable[..., Any], worker: str, execution: str) -> bytes | None:
    """Return the job that *worker* has claimed as *execution*; *ask* takes a command's words."""
    for entry in ask("SMEMBERS", f"rq:worker:{worker}:executions"):
        job_id, _, mine = entry.rpartition(b":")
        if mine == execution.encode() and ask("EXISTS", b"rq:execution:" + entry):
            return bytes(job_id)
    return None


def unclaimed(worker: str, job_id: bytes, execution: bytes) -> tuple[str | bytes, ...]:
    """Return the command that removes a job from those *worker* runs."""
    return ("SREM", f"rq:worker:{worker}:executions", job_id + b":" + execution)
