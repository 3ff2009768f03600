"""PySplash: as many RQ workers as this machine can bear, and not one more."""

from .embedded import EmbeddedServer, open_server
from .errors import (
    BacklogUnavailable,
    ConfigError,
    ConnectionFailed,
    CrashLoop,
    EmbeddedUnavailable,
    ImportFailed,
    JobFailed,
    JobsError,
    NestedTooDeeply,
    SplashError,
    WorkerBootError,
    WouldDeadlock,
)
from .log import set_debug
from .mapping import map_jobs
from .pool import Pool
from .version import __version__
from .wait import wait_jobs
from .worker import Worker

__all__ = [
    # Pool
    "Pool",
    "Worker",
    # Jobs that wait for jobs
    "map_jobs",
    "wait_jobs",
    # Embedded server
    "EmbeddedServer",
    "open_server",
    # Logging
    "set_debug",
    # Errors
    "BacklogUnavailable",
    "ConfigError",
    "ConnectionFailed",
    "CrashLoop",
    "EmbeddedUnavailable",
    "ImportFailed",
    "JobFailed",
    "JobsError",
    "NestedTooDeeply",
    "SplashError",
    "WorkerBootError",
    "WouldDeadlock",
    # About
    "__version__",
]
