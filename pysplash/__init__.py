"""PySplash: as many RQ workers as this machine can bear, and not one more."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from .embedded import EmbeddedServer, open_server
from .errors import (
    BacklogUnavailable,
    Busy,
    CallError,
    CallTimeout,
    ConfigError,
    ConnectionFailed,
    CoprocessDied,
    CrashLoop,
    DoorClosed,
    EmbeddedUnavailable,
    ExecutionError,
    FrameError,
    ImportFailed,
    ItemLost,
    JobFailed,
    JobsError,
    LessonsUnavailable,
    NestedTooDeeply,
    NotBytes,
    NoWorkerError,
    SplashError,
    StageError,
    UnknownTask,
    UnsafeBind,
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
    from .coprocess import Coprocess
    from .daemon import Daemon
    from .gateway import Gateway
    from .stage import Stage

#: loaded when they are first asked for: a worker has no use for them
_LATER = {
    "AsyncClient": "async_client",
    "Client": "client",
    "Coprocess": "coprocess",
    "Daemon": "daemon",
    "Gateway": "gateway",
    "Stage": "stage",
}

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
    # Doors for what does not speak RQ, pipelines, workers in other languages
    "Gateway",
    "Daemon",
    "Stage",
    "Coprocess",
    # Embedded server
    "EmbeddedServer",
    "open_server",
    # Logging
    "set_debug",
    # Errors
    "BacklogUnavailable",
    "Busy",
    "CallError",
    "CallTimeout",
    "ConfigError",
    "ConnectionFailed",
    "CoprocessDied",
    "CrashLoop",
    "DoorClosed",
    "EmbeddedUnavailable",
    "ExecutionError",
    "FrameError",
    "ImportFailed",
    "ItemLost",
    "JobFailed",
    "JobsError",
    "NestedTooDeeply",
    "NotBytes",
    "NoWorkerError",
    "LessonsUnavailable",
    "SplashError",
    "StageError",
    "UnknownTask",
    "UnsafeBind",
    "WorkerBootError",
    "WouldDeadlock",
    # About
    "__version__",
]


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f".{_LATER[name]}", __name__), name)
