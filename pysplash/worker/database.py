"""Django's database connections in a process that runs one job after another.

Django closes a connection that is too old, or broken, around each request of a web server. A job
is such a request here. Where Django is not loaded this is a look into a dictionary.
"""

from __future__ import annotations

import sys
from typing import Any

from pysplash.log import logger

log = logger("worker")

_LOADED = sys.modules


def _database() -> Any:
    """Return the module ``django.db`` if Django's settings are known; else None."""
    settings = getattr(_LOADED.get("django.conf"), "settings", None)
    return _LOADED["django.db"] if settings is not None and settings.configured else None


def close_stale() -> None:
    """Close connections that are broken, or older than CONN_MAX_AGE: before and after each job.

    One that has had an error is closed at once: not every driver can tell whether it is usable.
    One in a transaction is left alone. An error in this is logged, and costs the job nothing.
    """
    if "django.db" in _LOADED and (database := _database()) is not None:
        try:
            database.reset_queries()
            for connection in _open(database):
                if connection.errors_occurred and not connection.in_atomic_block:
                    connection.close()
            database.close_old_connections()
        except Exception as error:
            log.warning("database connections cannot be looked after: %s", error)


def _open(database: Any) -> list[Any]:
    try:
        return list(database.connections.all(initialized_only=True))
    except TypeError:  # before Django 4.1
        return [each for each in database.connections.all() if each.connection is not None]


def close_all() -> None:
    """Close every connection of this thread, before a fork: workers must not share one."""
    if "django.db" in _LOADED and (database := _database()) is not None:
        try:
            database.connections.close_all()
        except Exception as error:
            log.warning("database connections cannot be closed: %s", error)
