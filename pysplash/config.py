"""The settings of a pool and its workers, checked once.

Every message names the setting, the value it had and a value it may have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .connections.address import Address
from .control.model import Limits
from .errors import ConfigError

MAX_PROCS = 10_000
#: the most `max_nesting` may be: ten times as many levels must fit on the stack of a process
MAX_NESTING = 500
MAX_QUEUE_NAME = 255
#: bytes below which a budget leaves no room for one worker and its fork server
LEAST_BUDGET = 32 * 2**20
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)
ON_CRASH = ("fail", "requeue")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything a worker process needs to know; sent once to the fork server.

    Classes and functions travel as import paths, so that a worker imports them itself and an
    error there is the worker's to report.
    """

    queues: tuple[str, ...]
    address: Address
    pool: str = ""
    #: what tells this life of the pool from all others
    run: str = ""
    worker_class: str = "pysplash.worker.Worker"
    job_class: str = "rq.job.Job"
    queue_class: str = "rq.queue.Queue"
    serializer: str | None = None
    exception_handlers: tuple[str, ...] = ()
    disable_default_exception_handler: bool = False
    log_job_description: bool = True
    #: None: the levels that are set up hold
    logging_level: str | None = "WARNING"
    log_format: str = "%(asctime)s %(message)s"
    date_format: str = "%H:%M:%S"
    results_ttl: int = 500
    worker_ttl: int = 420
    maintenance_interval: int = 600
    job_monitoring_interval: int = 30
    dequeue_strategy: str = "default"
    #: recycling, between jobs: after so many jobs, bytes of growth, seconds of age
    max_jobs: int | None = None
    max_job_memory: int | None = None
    max_age: float | None = None
    max_age_delta: float = 0.0
    #: jobs nested in one another from which a waiting one first looks for another worker
    max_nesting: int = 100
    on_crash: str = "fail"
    #: seconds between two signs of life of an idle worker
    idle_beat: float = 1.0
    #: what setup hooks are told
    params: tuple[tuple[str, str], ...] = ()


def parse_size(value: int | float | str, name: str = "size") -> int:
    """Return the bytes meant by *value*: a number, or text such as ``"2GB"`` or ``"512 MiB"``.

    Units are powers of 1024. Raises :class:`ConfigError` for anything else, and for sizes below
    one byte.
    """
    text = str(value) if isinstance(value, int | float) else value
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    size = float(match[1]) * _UNITS[match[2].lower()] if match else 0
    if not 1 <= size < 2**63:
        raise ConfigError(f"{name} is {value!r}: give a size such as 512MB or 2GB")
    return int(size)


def check_number(
    name: str, value: Any, least: float, most: float = math.inf, *, whole: bool = False
) -> None:
    """Raise :class:`ConfigError` unless *value* is a number from *least* to *most*."""
    kind = "a whole number" if whole else "a number"
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if right and least <= value <= most and not math.isinf(value):
        return
    bounds = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
    raise ConfigError(f"{name} is {value!r}: give {kind} {bounds}")


def check_limits(limits: Limits) -> Limits:
    """Return *limits* if they make sense together; raise :class:`ConfigError` if not."""
    check_number("max_procs", limits.max_procs, 1, MAX_PROCS, whole=True)
    check_number("min_procs", limits.min_procs, 0, MAX_PROCS, whole=True)
    if limits.min_procs > limits.max_procs:
        raise ConfigError(
            f"min_procs is {limits.min_procs} but max_procs is {limits.max_procs}: "
            "lower min_procs or raise max_procs"
        )
    check_number("max_per_scale", limits.max_per_scale, 1, MAX_PROCS, whole=True)
    check_number("scale_frequency", limits.scale_frequency, 0.05, 3600)
    check_number("quiet_period_seconds", limits.quiet_period, 0, 3600)
    check_number("terminate_seconds", limits.terminate, 0, 86400)
    check_number("zombie_timeout", limits.zombie_timeout, 3, 10**7)
    check_number("max_cpu", limits.max_cpu, 1, 100)
    check_number("max_mem", limits.max_mem, 1, 100)
    if limits.mem_budget is not None and limits.mem_budget < LEAST_BUDGET:
        raise ConfigError(
            f"mem_budget is {limits.mem_budget} bytes, less than one worker needs: "
            "give at least 32MB, and more than your largest job"
        )
    check_number("idle_seconds", limits.idle_seconds, 0, 10**7)
    return limits


def check_queues(names: Iterable[str]) -> tuple[str, ...]:
    """Return the queue names, in order of priority; raise :class:`ConfigError` for a bad one."""
    checked: list[str] = []
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"queue name {name!r} is empty: give a name such as default")
        if len(name) > MAX_QUEUE_NAME or not name.isprintable():
            shown = name if len(name) <= 40 else name[:37] + "..."
            raise ConfigError(
                f"queue name {shown!r} is not usable: give at most {MAX_QUEUE_NAME} "
                "printable characters"
            )
        if name in checked:
            raise ConfigError(f"queue {name!r} is named twice: name each queue once")
        checked.append(name)
    if not checked:
        raise ConfigError("no queue is named: give at least one, such as default")
    return tuple(checked)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise :class:`ConfigError` unless *value* is one of *choices*."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: give one of {', '.join(choices)}")


def check_worker(settings: WorkerSettings) -> WorkerSettings:
    """Return *settings* if its numbers make sense; raise :class:`ConfigError` if not."""
    optional: tuple[tuple[str, Any, float, bool], ...] = (
        ("max_jobs", settings.max_jobs, 1, True),
        ("max_job_memory", settings.max_job_memory, 1, True),
        ("max_age", settings.max_age, 0.1, False),
    )
    for name, value, least, whole in optional:
        if value is not None:
            check_number(name, value, least, whole=whole)
    check_number("max_age_delta", settings.max_age_delta, 0)
    check_number("max_nesting", settings.max_nesting, 1, MAX_NESTING, whole=True)
    check_choice("on_crash", settings.on_crash, ON_CRASH)
    check_number("worker_ttl", settings.worker_ttl, 20, whole=True)
    check_number("results_ttl", settings.results_ttl, -1, whole=True)
    check_number("maintenance_interval", settings.maintenance_interval, 1, whole=True)
    check_number("job_monitoring_interval", settings.job_monitoring_interval, 1, whole=True)
    check_choice(
        "dequeue_strategy", settings.dequeue_strategy, ("default", "round_robin", "random")
    )
    return settings


def import_path(thing: str | Callable[..., Any] | type[Any], what: str) -> str:
    """Return the dotted path under which a worker can import *thing*.

    Raises :class:`ConfigError` for what lives in ``__main__`` or inside a function, because
    another process cannot import it.
    """
    if isinstance(thing, str):
        return thing
    module, name = thing.__module__, thing.__qualname__
    if module == "__main__" or "<" in name:
        raise ConfigError(
            f"{what} {name} is defined in {module}, where no worker can import it: "
            "move it to the top level of a module"
        )
    return f"{module}.{name}"
