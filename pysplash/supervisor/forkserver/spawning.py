"""RQ's SpawnWorker in a pool: its jobs' processes are new interpreters, told all by text.

Such a process is given the class of its worker as a pickle and the options of its connection as
literals. A class made for a pool can be neither imported nor pickled by name, and options of
PySplash's own connections are classes; so it gets the class as its user wrote it, and those options
that are literals.
"""

from __future__ import annotations

import ast
import copyreg
from typing import Any

from redis import ConnectionPool, Redis, SSLConnection
from rq.job import Job
from rq.queue import Queue
from rq.utils import import_attribute

from pysplash.worker.supervised import Supervised


class Spawning(Supervised):
    """What makes a worker class that starts its jobs' processes by spawning fit for a pool."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Spawn as RQ does, with the options of the connection that can be written as text."""
        connection = self.connection
        self.connection = literal(connection)
        try:
            super().fork_work_horse(job, queue)  # type: ignore[misc]
        finally:
            self.connection = connection


def literal(connection: Redis) -> Redis:
    """Return a stand-in for a client that has no options but literals, as Redis() takes them.

    RQ 3 names a socket's path and TLS so itself, RQ 2 does not.
    """
    pool = connection.connection_pool
    options = {name: value for name, value in pool.connection_kwargs.items() if _is_literal(value)}
    if "path" in options:
        options["unix_socket_path"] = options.pop("path")
    if issubclass(pool.connection_class, SSLConnection):
        options["ssl"] = True
    copy = ConnectionPool(connection_class=pool.connection_class)
    copy.connection_kwargs = options
    return Redis(connection_pool=copy)


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError):
        return False


def spawning(found: type[Any]) -> type[Supervised]:
    """Return *found*, a SpawnWorker, supervised; it is pickled as *found*."""
    kind: Any = type("Spawned", (type(found),), {})
    path = f"{found.__module__}.{found.__qualname__}"
    copyreg.pickle(kind, lambda _: (import_attribute, (path,)))
    made: type[Supervised] = kind(
        found.__name__, (Spawning, found), {"__module__": found.__module__}
    )
    return made
