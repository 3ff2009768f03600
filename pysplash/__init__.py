"""PySplash: as many RQ workers as this machine can bear, and not one more."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from . import errors, events, log
from .application.registry import setup, task, teardown
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
from .events import on
from .log import set_debug
from .supervisor.pool import Pool
from .version import __version__
from .waiting.wait import map_jobs, wait_jobs
from .worker.worker import Worker

if TYPE_CHECKING:
    from . import framed, testing
    from .application.coprocess import Coprocess
    from .application.stage import Stage
    from .client.async_client import AsyncClient
    from .client.client import Client
    from .control.simulation import workload as workload
    from .gateway.daemon import Daemon
    from .gateway.gateway import Gateway

#: loaded when they are first asked for, because a worker has no use for them
_LATER = {
    "AsyncClient": "client.async_client",
    "Client": "client.client",
    "Coprocess": "application.coprocess",
    "Daemon": "gateway.daemon",
    "Gateway": "gateway.gateway",
    "Stage": "application.stage",
}
#: modules that ``import pysplash`` offers, loaded when they are first asked for. ``workload`` is
#: now ``pysplash.testing.workload``; its old name goes with the next release.
_LATER_MODULES = {
    "framed": "framed",
    "testing": "testing",
    "workload": "control.simulation.workload",
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
    # Events: what happens, told to functions of the user's
    "on",
    "events",
    # Logging
    "log",
    "set_debug",
    # The caller's side of a framed door; doubles for tests
    "framed",
    "testing",
    # Errors
    "errors",
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
    if name in _LATER_MODULES:
        return _import_module(f".{_LATER_MODULES[name]}", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f".{_LATER[name]}", __name__), name)
