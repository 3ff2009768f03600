"""Quarantine for jobs that cannot be read, and the cleaning of RQ's registries.

The id of an unreadable job goes to a list of its queue. A job whose record exists also fails, with
the reason as its result, so whoever waits for it is told. RQ's failed registry does not get it: who
lists that registry reads each job in it, and would fail on this one.

RQ's own cleaning reads each overdue job of a queue first. One that cannot be read ends the worker
and leaves the lock behind, so nobody cleans for a quarter of an hour. Ours sets such jobs aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.defaults import DEFAULT_FAILURE_TTL
from rq.job import Job, JobStatus, validate_job_id
from rq.queue import Queue
from rq.registry import clean_registries
from rq.results import Result
from rq.utils import current_timestamp
from rq.worker import BaseWorker
from rq.worker_registration import clean_worker_registry

from pysplash.connections.outage import AWAY
from pysplash.log import logger

from .abandoned import announce_cleaned
from .rq import unclaimed

KEY = "pysplash:quarantine:{}"
#: characters of a strange value, and ids of jobs that are gone, that are shown in one line
SHOWN, NAMED = 80, 5
Command = tuple[str | bytes | int, ...]

log = logger("worker")


def brief(value: object) -> str:
    """Return *value* on one line, cut where it gets long."""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:SHOWN])
    return shown if len(text) <= SHOWN else f"{shown}... ({len(text)} characters)"


def described(error: BaseException) -> str:
    """Return an error's class and text on one line."""
    return f"{type(error).__name__}: {brief(error)}"


def reason(
    restore: Callable[[Mapping[bytes, bytes]], object],
    fields: Mapping[bytes, bytes],
    error: Exception,
) -> str:
    """Say why *restore* fails on *fields*, naming the faulty field if there is exactly one."""
    if b"data" not in fields:
        return "it has no data"
    for name in fields:
        try:
            restore({other: value for other, value in fields.items() if other != name})
        except Exception:  # the fault is not in this field, or not in this one alone
            continue
        return f"its field {brief(name)} holds {brief(fields[name])!r} ({described(error)})"
    return described(error)


def diagnosis(
    client: Redis, job_class: type[Job], serializer: Any, job_id: bytes, error: Exception
) -> str:
    """Say why fetching a job raised *error*; "" if the job does not exist."""
    try:
        fields: Any = client.hgetall(b"rq:job:" + job_id)
    except ResponseError:
        return described(error)
    if not fields:
        return "" if is_job_id(job_id) else described(error)

    def restore(some: Mapping[bytes, bytes]) -> None:
        job_class(job_id.decode(), connection=client, serializer=serializer).restore(dict(some))

    return reason(restore, fields, error)


def is_job_id(raw: bytes) -> bool:
    """Return whether RQ could have given a job this id."""
    try:
        validate_job_id(raw.decode())
    except ValueError:
        return False
    return True


def set_aside(
    client: Redis, queue: str, job_id: bytes, why: str, *removals: Command, worker: str = ""
) -> None:
    """Move a job id of *queue* to its quarantine list, and log it.

    In the same step *removals* remove it from other keys, and the job, if there is one, fails, in
    the name of *worker*. Of redis's errors it raises those of a server that is away, and may
    then be called again.
    """
    key = b"rq:job:" + job_id
    there = client.type(key) == b"hash"
    with client.pipeline() as pipeline:
        for removal in removals:
            pipeline.execute_command(*removal)
        pipeline.lrem(KEY.format(queue), 0, job_id)  # type: ignore[arg-type]
        pipeline.rpush(KEY.format(queue), job_id)
        if there:
            text = job_id.decode(errors="backslashreplace")
            pipeline.hset(key, "status", JobStatus.FAILED.value)
            failure = Result(text, Result.Type.FAILED, client, exc_string=why, worker_name=worker)
            failure.save(DEFAULT_FAILURE_TTL, pipeline)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
    refused = next((reply for reply in replies if isinstance(reply, RedisError)), None)
    log.error(
        "job %s of queue %s is set aside in %s: %s%s",
        brief(job_id),
        brief(queue),
        brief(KEY.format(queue)),
        why,
        f" (Redis refused part of this: {refused})" if refused else "",
        extra={"action": "quarantine"},
    )


def is_kept(client: Redis, origin: str, job_id: str) -> bool:
    """Return whether a job that does not run is in a registry of *origin*, or on that queue."""
    with client.pipeline(transaction=False) as pipeline:
        for name in ("finished", "failed", "scheduled", "deferred", "ready", "canceled"):
            pipeline.zscore(f"rq:{name}:{origin}", job_id)
        pipeline.lpos(f"rq:queue:{origin}", job_id)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
    return any(reply is not None and not isinstance(reply, RedisError) for reply in replies)


class Quarantine:
    """Sets jobs aside for one worker; *insist* calls a function until Redis answers."""

    def __init__(
        self, client: Redis, worker: str, insist: Callable[[Callable[[], None]], None]
    ) -> None:
        self._client = client
        self._worker = worker
        self._insist = insist
        self._said: set[str] = set()

    def set_aside_claimed(
        self, queue: str, job_id: bytes, execution: str, fields: Mapping[bytes, bytes], why: str
    ) -> None:
        """Set aside a job that the worker has claimed from *queue* as *execution*."""
        claim = execution.encode()
        origin = fields.get(b"origin", b"")
        removals: tuple[Command, ...] = (
            ("ZREM", b"rq:wip:" + origin, job_id + b":" + claim),
            ("ZREM", b"rq:executions:" + job_id, claim),
            ("DEL", b"rq:execution:" + job_id + b":" + claim),
            unclaimed(self._worker, job_id, claim),
        )
        self._set_aside(queue, job_id, why, *removals)

    def report_skipped(self, skipped: Sequence[Sequence[bytes]]) -> None:
        """Log what the script skipped before it found a job; set aside invalid ids."""
        gone = []
        for kind, queue, what, *why in skipped:
            name = queue.decode(errors="replace")
            if kind == b"queue":
                self._log_once(f"queue {brief(queue)} cannot be served: {brief(what)}")
            elif kind == b"unreadable":
                self._set_aside(name, what, brief(why[0]))
            elif kind == b"surplus":
                log.warning(
                    "job %s was enqueued more than once in queue %s: skipped",
                    brief(what),
                    brief(queue),
                    extra={"action": "surplus", "job": what.decode(errors="replace")},
                )
            elif is_job_id(what):
                gone.append(f"{what.decode()} of {brief(queue)}")
            else:
                self._set_aside(name, what, "it is no valid job id")
        if gone:
            more = f" and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
            log.warning("skipped jobs that no longer exist: %s%s", ", ".join(gone[:NAMED]), more)

    def _set_aside(self, queue: str, job_id: bytes, why: str, *removals: Command) -> None:
        self._insist(
            lambda: set_aside(self._client, queue, job_id, why, *removals, worker=self._worker)
        )

    def _log_once(self, line: str) -> None:
        """Log *line*, once in this worker's life."""
        if line not in self._said:
            self._said.add(line)
            log.error("%s", line, extra={"action": "queue"})


def clean(queue: Queue, worker: BaseWorker) -> None:
    """Let RQ clean the registries of *queue* as *worker*, unless another worker is at it.

    Raises for a Redis that is away; anything else is logged, and other queues go on.
    """
    if not queue.acquire_maintenance_lock():
        return
    try:
        _check_all(queue, worker.job_class)
        # the first: any other may end the chain
        clean_registries(queue, [announce_cleaned, *worker._exc_handlers])
        clean_worker_registry(queue)
        queue.intermediate_queue.cleanup(worker, queue)
    except AWAY:
        raise
    except Exception as error:
        log.error("queue %s is not cleaned: %s", queue.name, described(error))
    finally:
        queue.release_maintenance_lock()


def _check_all(queue: Queue, job_class: type[Job]) -> None:
    """Set aside the jobs that RQ's own cleaning would fail on."""
    client: Any = queue.connection  # its types do not know that replies are bytes
    started, waiting = queue.started_job_registry.key, queue.intermediate_queue_key
    for member in client.zrangebyscore(started, 0, current_timestamp()):
        job_id, _, _ = member.rpartition(b":")
        _check(queue, job_class, job_id, ("ZREM", started, member))
    ready = f"rq:ready:{queue.name}"  # RQ 3 has there what nobody has enqueued yet
    for job_id in client.zrange(ready, 0, -1):
        _check(queue, job_class, job_id, ("ZREM", ready, job_id))
    for job_id in client.lrange(waiting, 0, -1):
        _check(queue, job_class, job_id, ("LREM", waiting, 0, job_id))


def _check(queue: Queue, job_class: type[Job], job_id: bytes, removal: Command) -> None:
    """Set the job of this id aside if it cannot be read; leave it if it can, or is gone."""
    try:
        job_class.fetch(job_id.decode(), queue.connection, queue.serializer)
    except AWAY:
        raise
    except Exception as error:
        why = diagnosis(queue.connection, job_class, queue.serializer, job_id, error)
        if why:
            set_aside(queue.connection, queue.name, job_id, why, removal)
