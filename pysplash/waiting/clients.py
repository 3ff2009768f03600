"""Redis clients for blocking reads, apart from those that a job's own code uses."""

from __future__ import annotations

from redis import ConnectionPool, Redis
from rq.connections import parse_connection
from rq.job import Job

from pysplash.connections.clients import mended, native, over

#: seconds without a byte after which a connection is taken for dead; more than a read may block
SOCKET_TIMEOUT = 6.0


def waiting_client(client: Redis) -> Redis:
    """Return a client like *client* whose reads may block; it repeats nothing by itself."""
    kind, connection_class, settings = parse_connection(native(client))
    # No retries of redis-py's own: they know no max_wait. Results are bytes, always.
    settings |= {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
    settings |= {"decode_responses": False, "socket_timeout": SOCKET_TIMEOUT}
    return over(ConnectionPool(connection_class=mended(connection_class), **settings), kind)


class Clients:
    """One call's clients, by the jobs they are for: one for each connection pool.

    *own* and *kept*, if given, are a client of jobs and the one for waits that belongs to it; it
    outlives the call, so that many waits share a connection.
    """

    def __init__(self, own: Redis | None = None, kept: Redis | None = None) -> None:
        self._clients: dict[int, Redis] = {}
        self._kept = kept
        if own is not None and kept is not None:
            self._clients[id(own.connection_pool)] = kept

    def of(self, job: Job) -> tuple[int, Redis]:
        """Return the client for *job*'s Redis and its number."""
        number = id(job.connection.connection_pool)
        if number not in self._clients:
            self._clients[number] = waiting_client(job.connection)
        return number, self._clients[number]

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for client in self._clients.values():
            if client is not self._kept:
                client.close()
            if client is not self._kept or kind is not None:
                client.connection_pool.disconnect()  # it may be in the middle of a reply
