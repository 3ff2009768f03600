"""How a worker process comes to be: import what its settings name, connect, build, work."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from functools import partial
from types import MappingProxyType
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.utils import import_attribute, now
from rq.worker import BaseWorker, DequeueStrategy

from pysplash.application.registry import REGISTRY
from pysplash.config import WorkerSettings
from pysplash.connections.abilities import introduce
from pysplash.connections.clients import reach
from pysplash.connections.outage import patiently, pause
from pysplash.errors import ImportFailed
from pysplash.waiting.offer import attach
from pysplash.worker.scoreboard import Slot
from pysplash.worker.supervised import Supervised

#: longest time in seconds for which setup hooks count as alive, whatever they do
SETUP = 300.0
#: seconds between two signs of life of a worker that is being set up
BEAT = 1.0


def resolve(path: str, what: str) -> Any:
    """Import *path*; raise :class:`ImportFailed`, naming *what* it was to be, if that fails."""
    try:
        return import_attribute(path)
    except Exception as error:
        raise ImportFailed(
            f"{what} {path!r} cannot be imported ({type(error).__name__}: {error}): "
            "check the name and --path"
        ) from error


def worker_class(path: str) -> type[Supervised]:
    """Return the worker class at *path*, supervised if it is not yet.

    Raises :class:`ImportFailed` for what is absent or is no RQ worker class.
    """
    found = resolve(path, "worker class")
    if not (isinstance(found, type) and issubclass(found, BaseWorker)):
        raise ImportFailed(f"worker class {path!r} is no RQ worker class: derive it from rq.Worker")
    if issubclass(found, Supervised):
        return found
    return type(found.__name__, (Supervised, found), {"__module__": found.__module__})


def connect(settings: WorkerSettings, name: str | None = None) -> Redis:
    """Return a connection of this process's own, on which no command is ever sent twice.

    A client that repeats a pop after a lost reply takes a second job and loses the first. The
    server knows it by *name*, if it knows names, so that it can be cut off when its process is
    dead.
    """
    naming = {} if name is None else {"redis_connect_func": partial(introduce, name=name)}
    return reach(settings.address, retry=Retry(NoBackoff(), 0), client_name=None, **naming)


def build_worker(settings: WorkerSettings, name: str, connection: Redis) -> Supervised:
    """Make the worker that *settings* describe; it has registered nothing yet."""
    queue_class = resolve(settings.queue_class, "queue class")
    job_class = resolve(settings.job_class, "job class")
    queues = [
        queue_class(
            queue, connection=connection, job_class=job_class, serializer=settings.serializer
        )
        for queue in settings.queues
    ]
    worker = worker_class(settings.worker_class)(
        queues,
        name=name,
        connection=connection,
        default_result_ttl=settings.results_ttl,
        worker_ttl=settings.worker_ttl,
        maintenance_interval=settings.maintenance_interval,
        job_monitoring_interval=settings.job_monitoring_interval,
        job_class=job_class,
        queue_class=queue_class,
        serializer=settings.serializer,
        exception_handlers=[
            resolve(path, "exception handler") for path in settings.exception_handlers
        ],
        disable_default_exception_handler=settings.disable_default_exception_handler,
        log_job_description=settings.log_job_description,
    )
    if settings.max_age is not None:
        worker.max_age = settings.max_age + random.uniform(0, settings.max_age_delta)
    worker.max_job_memory = settings.max_job_memory
    worker.max_nesting = settings.max_nesting
    worker.on_crash = settings.on_crash
    return worker


def run_worker(settings: WorkerSettings, name: str, slot: Slot, maintain: bool) -> None:
    """Be one worker of a pool until stopped; *maintain*: clean RQ's registries at start."""
    attach(slot)
    os.environ["RQ_WORKER_ID"] = name
    os.environ["PYSPLASH_POOL"] = settings.pool
    connection = connect(settings, name)
    worker = _build_patiently(settings, name, connection, slot)
    worker.slot = slot
    worker.parent_pid = os.getppid()
    if not maintain:
        worker.last_cleaned_at = now()  # type: ignore[assignment]
    params = MappingProxyType(dict(settings.params))
    with showing_life(slot):
        REGISTRY.set_up(params)
    try:
        worker.work(
            logging_level=settings.logging_level,
            date_format=settings.date_format,
            log_format=settings.log_format,
            max_jobs=settings.max_jobs,
            dequeue_strategy=DequeueStrategy(settings.dequeue_strategy),
        )
    finally:
        REGISTRY.tear_down(params)


@contextlib.contextmanager
def showing_life(slot: Slot) -> Iterator[None]:
    """Beat while the block runs, for SETUP seconds at most: loading a model is no hang."""
    if not REGISTRY.has_setup:
        yield
        return
    done = threading.Event()
    until = time.monotonic() + SETUP

    def beat() -> None:
        while not done.wait(BEAT) and time.monotonic() < until:
            slot.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _build_patiently(
    settings: WorkerSettings, name: str, connection: Redis, slot: Slot
) -> Supervised:
    def between(error: Exception, seconds: float) -> None:
        slot.beat()
        pause(error, seconds)

    return patiently(lambda: build_worker(settings, name, connection), between)
