"""RQ's way: where a worker leaves everything to RQ's own code, as its turns cannot be had.

They take a server that runs scripts, and a socket. Fakeredis has no socket, and without lupa no
scripts; some proxies and access lists refuse scripts. RQ's ``SimpleWorker`` needs neither.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterable

from redis import Redis
from rq.queue import Queue

from pysplash.connections.clients import native, refusal_of_scripts


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
