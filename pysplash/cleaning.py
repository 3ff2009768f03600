"""Cleaning RQ's registries, so that nothing in them can end a worker or keep the rest uncleaned.

RQ reads each overdue job of a queue first. One that cannot be read ends the worker, and the next,
and leaves the lock behind under which a quarter of an hour nobody cleans.
"""

from __future__ import annotations

from typing import Any

from rq.job import Job
from rq.queue import Queue
from rq.registry import clean_registries
from rq.utils import current_timestamp
from rq.worker import BaseWorker
from rq.worker_registration import clean_worker_registry

from .log import logger
from .outage import AWAY
from .quarantine import Command, described, diagnosis, set_aside

log = logger("worker")


def clean(queue: Queue, worker: BaseWorker) -> None:
    """Let RQ clean the registries of *queue* in the name of *worker*, unless somebody does.

    Raises for a Redis that is away; anything else is said in the log, and other queues go on.
    """
    if not queue.acquire_maintenance_lock():
        return
    try:
        _sift(queue, worker.job_class)
        clean_registries(queue, worker._exc_handlers)
        clean_worker_registry(queue)
        queue.intermediate_queue.cleanup(worker, queue)
    except AWAY:
        raise
    except Exception as error:
        log.error("queue %s is not cleaned: %s", queue.name, described(error))
    finally:
        queue.release_maintenance_lock()


def _sift(queue: Queue, job_class: type[Job]) -> None:
    """Set aside what RQ's own cleaning would fail on."""
    client: Any = queue.connection  # its types do not know that replies are bytes
    started, waiting = queue.started_job_registry.key, queue.intermediate_queue_key
    for member in client.zrangebyscore(started, 0, current_timestamp()):
        job_id, _, _ = member.rpartition(b":")
        _sift_out(queue, job_class, job_id, ("ZREM", started, member))
    ready = f"rq:ready:{queue.name}"  # RQ 3 has there what nobody has enqueued yet
    for job_id in client.zrange(ready, 0, -1):
        _sift_out(queue, job_class, job_id, ("ZREM", ready, job_id))
    for job_id in client.lrange(waiting, 0, -1):
        _sift_out(queue, job_class, job_id, ("LREM", waiting, 0, job_id))


def _sift_out(queue: Queue, job_class: type[Job], job_id: bytes, removal: Command) -> None:
    """Set the job of this id aside if it cannot be read; leave it if it can, or is gone."""
    try:
        job_class.fetch(job_id.decode(), queue.connection, queue.serializer)
    except AWAY:
        raise
    except Exception as error:
        why = diagnosis(queue.connection, job_class, queue.serializer, job_id, error)
        if why:
            set_aside(queue.connection, queue.name, job_id, why, removal)
