"""RQ's way: where a worker leaves everything to RQ's own code, as its turns cannot be had.

They take a server that runs scripts, and a socket. Fakeredis has no socket, and without lupa no
scripts; some proxies and access lists refuse scripts. RQ's ``SimpleWorker`` needs neither. Nor do
turns know the keys of a job class or queue class that has a prefix of its own.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterable

from redis import Redis
from rq.job import Job
from rq.queue import Queue
from rq.worker import BaseWorker

from pysplash.connections.abilities import check_abilities
from pysplash.connections.clients import native, refusal_of_scripts
from pysplash.errors import ConfigError


def hindrance(client: Redis) -> str:
    """Say why turns cannot be had over *client*; empty if they can. Raise if Redis is away."""
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        if not isinstance(getattr(connection, "_sock", None), socket.socket):
            return "its client has no socket"
    finally:
        pool.release(connection)
    refusal = refusal_of_scripts(client)
    return f"Redis runs no scripts ({refusal})" if refusal else ""


def own_keys(job_class: type[Job], queue_class: type[Queue]) -> str:
    """Say which class keeps its jobs or queues under keys of its own; empty if none does."""
    for kind, has, usual in (
        (job_class, job_class.redis_job_namespace_prefix, Job.redis_job_namespace_prefix),
        (queue_class, queue_class.redis_queue_namespace_prefix, Queue.redis_queue_namespace_prefix),
    ):
        if has != usual:
            return f"the keys of {kind.__name__} begin with {has!r}, not with {usual!r}"
    return ""


def way_of(worker: BaseWorker, *, in_pool: bool) -> str:
    """Say why *worker* leaves everything to RQ's own code; empty if it does not.

    Raises ConfigError in a pool, which knows RQ's usual keys alone, and where the server lacks
    what turns need.
    """
    named = own_keys(worker.job_class, worker.queue_class)
    if in_pool:
        if named:
            raise ConfigError(f"{named}: run its jobs with pysplash.Worker alone, outside a pool")
        return ""
    found = named or hindrance(worker.connection)
    if not found:
        check_abilities(worker.connection)
    return found


def over_redis_py(queues: Iterable[Queue]) -> list[Queue]:
    """Return *queues*, or where one has another library's client a copy that has redis-py's."""
    clients: dict[int, Redis] = {}
    found = list(queues)
    for number, queue in enumerate(found):
        client = clients.setdefault(id(queue.connection), native(queue.connection))
        if client is not queue.connection:
            found[number] = copy.copy(queue)
            found[number].connection = client
    return found
