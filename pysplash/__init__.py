"""PySplash: as many RQ workers as this machine can bear, and not one more."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from .embedded import EmbeddedServer, open_server
from .errors import (
    BacklogUnavailable,
    CallError,
    CallTimeout,
    ConfigError,
    ConnectionFailed,
    CrashLoop,
    EmbeddedUnavailable,
    ExecutionError,
    ImportFailed,
    JobFailed,
    JobsError,
    LessonsUnavailable,
    NestedTooDeeply,
    NoWorkerError,
    SplashError,
    UnknownTask,
    WorkerBootError,
    WouldDeadlock,
)
from .log import set_debug
from .mapping import map_jobs
from .pool import Pool
from .registry import setup, task, teardown
from .version import __version__
from .wait import wait_jobs
from .worker import Worker

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .client import Client

#: loaded when they are first asked for: a worker has no use for them
_LATER = {"AsyncClient": "async_client", "Client": "client"}

__all__ = [
    # Pool
    "Pool",
    "Worker",
    # Jobs that wait for jobs
    "map_jobs",
    "wait_jobs",
    # Tasks that can be called by name
    "task",
    "setup",
    "teardown",
    "Client",
    "AsyncClient",
    # Embedded server
    "EmbeddedServer",
    "open_server",
    # Logging
    "set_debug",
    # Errors
    "BacklogUnavailable",
    "CallError",
    "CallTimeout",
    "ConfigError",
    "ConnectionFailed",
    "CrashLoop",
    "EmbeddedUnavailable",
    "ExecutionError",
    "ImportFailed",
    "JobFailed",
    "JobsError",
    "NestedTooDeeply",
    "NoWorkerError",
    "LessonsUnavailable",
    "SplashError",
    "UnknownTask",
    "WorkerBootError",
    "WouldDeadlock",
    # About
    "__version__",
]


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f".{_LATER[name]}", __name__), name)
