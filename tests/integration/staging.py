"""Staging a scenario: jobs are enqueued, a worker empties the queues, all that is left is read.

The same scenario can be played by RQ's own worker, by ours, and by ours as a pool runs it; each
play yields one flat snapshot of everything that was seen during and after its runs.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.utils import import_attribute
from rq.worker import BaseWorker, DequeueStrategy, SimpleWorker

from pysplash import Worker
from pysplash.config import WorkerSettings
from pysplash.connections.clients import portable
from pysplash.supervisor.forkserver.boot import build_worker, connect
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.supervised import Supervised

from . import scenario_jobs as jobs
from .snapshot import Snapshot, take

#: jobs after which a play is broken off, so that one without an end is a difference, not a hang
RUNAWAY = 500
Build = Callable[[WorkerSettings, str, Redis, ExitStack], BaseWorker]


class Stage:
    """What a scenario acts on: a database, and queues as its worker knows them."""

    def __init__(self, client: Redis, settings: WorkerSettings) -> None:
        queue_class = import_attribute(settings.queue_class)
        self.client = client
        self.queues: dict[str, Queue] = {
            name: queue_class(
                name,
                connection=client,
                job_class=import_attribute(settings.job_class),
                serializer=settings.serializer,
            )
            for name in settings.queues
        }
        self.queue = next(iter(self.queues.values()))

    def put(self, job_id: str, function: Any, *args: Any, queue: str = "", **options: Any) -> Job:
        """Enqueue *function* as the job *job_id*, on *queue* or the first there is."""
        target = self.queues[queue] if queue else self.queue
        return target.enqueue(function, *args, job_id=job_id, **options)

    def job(self, job_id: str) -> Job:
        """Return a job as it is stored now."""
        found = self.queue.fetch_job(job_id)
        assert found is not None
        return found


#: a generator has a run of a worker at each of its yields, anything else has one when it is done
Script = Callable[[Stage], object]


@dataclass(frozen=True)
class Scenario:
    """A script, and the worker that plays in it."""

    name: str
    script: Script
    #: differs from the defaults of :class:`WorkerSettings`
    settings: dict[str, Any] = field(default_factory=dict)
    burst: bool = True
    with_scheduler: bool = False
    #: whether a pool's worker can play it: not where the worker itself must hear commands
    pool: bool = True


class Reference(SimpleWorker):
    """RQ's worker, but for leaving the command channel: in RQ's order of calls it takes seconds."""

    unsubscribe = Supervised.unsubscribe


def build_reference(
    settings: WorkerSettings, name: str, connection: Redis, stack: ExitStack
) -> BaseWorker:
    """Make RQ's own worker."""
    return build_alone(settings, name, connection, stack, Reference)


def build_alone(
    settings: WorkerSettings,
    name: str,
    connection: Redis,
    stack: ExitStack,
    worker_class: type[BaseWorker] = Worker,
) -> BaseWorker:
    """Make our worker as a user would, without a pool."""
    return worker_class(
        list(settings.queues),
        name=name,
        connection=connection,
        default_result_ttl=settings.results_ttl,
        worker_ttl=settings.worker_ttl,
        job_class=settings.job_class,
        queue_class=settings.queue_class,
        serializer=settings.serializer,
        exception_handlers=[import_attribute(path) for path in settings.exception_handlers],
        disable_default_exception_handler=settings.disable_default_exception_handler,
    )


def build_in_pool(
    settings: WorkerSettings, name: str, connection: Redis, stack: ExitStack
) -> BaseWorker:
    """Make our worker as a pool would, with a row on a scoreboard and the pool's connection."""
    worker = build_worker(settings, name, stack.enter_context(connect(settings)))
    board = Scoreboard(1)
    stack.callback(board.close)
    worker.slot = Slot(board, 0, name)
    return worker


def build_prefetching(
    settings: WorkerSettings, name: str, connection: Redis, stack: ExitStack
) -> BaseWorker:
    """Make our worker as a pool would; it takes every job for a brief one."""
    worker = build_in_pool(settings, name, connection, stack)
    if isinstance(worker, Worker):
        turns = worker._turns
        turns.brevity.streak, turns.assume_many, turns.share, turns.least = 0, True, 1, 8
    return worker


def build_hasty(
    settings: WorkerSettings, name: str, connection: Redis, stack: ExitStack
) -> BaseWorker:
    """Make our worker as a pool would; it takes every job for a brief one that comes alone."""
    worker = build_in_pool(settings, name, connection, stack)
    if isinstance(worker, Worker):
        worker._turns.brevity.streak = 0
    return worker


def play(scenario: Scenario, build: Build, url: str) -> Snapshot:
    """Play *scenario* in an empty database; return all that was seen, path by path."""
    seen: Snapshot = {}
    with Redis.from_url(url) as client:
        client.flushall()
        basis: dict[str, Any] = {"queues": ("default",), "address": portable(client)}
        settings = WorkerSettings(**basis | scenario.settings)
        for number, _ in enumerate(_runs(scenario.script, Stage(client, settings)), start=1):
            for key, leaf in _one_run(scenario, build, url, settings, f"w{number}").items():
                seen[f"run {number}: {key}"] = leaf
            for key, leaf in take(client).items():
                seen[f"after run {number}: {key}"] = leaf
    return seen


def _runs(script: Script, stage: Stage) -> Iterator[None]:
    scripted = script(stage)
    if isinstance(scripted, Generator):
        yield from scripted
    else:
        yield


def _one_run(
    scenario: Scenario, build: Build, url: str, settings: WorkerSettings, name: str
) -> Snapshot:
    """Run one worker; return how it ended and what its jobs and webhooks showed."""
    random.seed(name)
    jobs.SEEN.clear()
    with ExitStack() as stack:
        connection = stack.enter_context(Redis.from_url(url))
        worker = build(settings, name, connection, stack)
        jobs.WORKERS.append(worker)
        messages = stack.enter_context(_listening("rq.webhook"))
        try:
            ending = repr(
                worker.work(
                    burst=scenario.burst,
                    logging_level="CRITICAL",
                    max_jobs=settings.max_jobs or RUNAWAY,
                    with_scheduler=scenario.with_scheduler,
                    dequeue_strategy=DequeueStrategy(settings.dequeue_strategy),
                )
            )
        except (Exception, SystemExit) as error:
            ending = f"raises {error!r}"
    while jobs.LOOPS:
        jobs.LOOPS.pop().close()
    seen: Snapshot = {"work()": ending, "webhooks": repr(messages)}
    for number, snapshot in enumerate(jobs.SEEN, start=1):
        seen |= {f"look {number}: {key}": leaf for key, leaf in snapshot.items()}
    return seen


@contextmanager
def _listening(name: str) -> Iterator[list[str]]:
    """Collect what the logger *name* says."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger(name).removeHandler(handler)
