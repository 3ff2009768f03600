"""Stages: pipelines of queues with a handler each, on the same workers as all other jobs.

An item is a job in the queue named for its stage. The idea of a handler that is given an item
and says where its results go, and knows nothing of queues beyond their names, is an old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, get_current_job
from rq.job import Job

from pysplash.config import check_number, check_queues
from pysplash.connections.clients import address, check, from_url, native
from pysplash.connections.environment import from_environment
from pysplash.connections.outage import UNREACHABLE
from pysplash.connections.refusals import refusal
from pysplash.errors import ConfigError, ConnectionFailed, StageError
from pysplash.jobs.results import SETTLED, SETTLES
from pysplash.worker.worker import Worker

from .forwarding import RETRIES, Item, Output, check_output, forward, push, stage_name

#: times a stage tries an item, and seconds one try may take, unless told otherwise
ATTEMPTS, TIMEOUT = 3, 180
#: items pushed in one step
CHUNK = 1000
Handler = Callable[["Stage", bytes], Any]


class Stage:
    """One stage of a pipeline: ``Stage("input", handler)`` serves the queue ``input``.

    ``handler(stage, data)`` is given bytes and says where what it made goes: a mapping of stages
    to bytes, a list of pairs ``(stage, bytes)``, a generator of such pairs, or something empty,
    which ends the item here. A mapping or a list is forwarded and the item acknowledged in one
    step: after a crash both have happened or neither. The pairs of a generator are forwarded as
    they come, before the item is acknowledged, so an item that is tried again forwards them
    again.

    What the handler raises puts the item back at the head of its queue, until *max_attempts*
    tries have failed; then it is in RQ's registry of failed jobs. So does a worker's death, three
    times at most. *timeout* is seconds one try may take, as whoever pushes knows it.

    A pool serves stages as any queue: ``pysplash input --preload module``, with the module that
    makes them; :meth:`run` serves one in this process. Without *handler* it is only pushed to.
    Where to find Redis: *connection*, or *url*, or RQ's variables in the environment. Raises
    :class:`~pysplash.errors.ConfigError` for a name that is taken or not usable.
    """

    def __init__(
        self,
        name: str,
        handler: Handler | None = None,
        *,
        url: str | None = None,
        connection: Redis | None = None,
        max_attempts: int = ATTEMPTS,
        timeout: int = TIMEOUT,
    ) -> None:
        (self.name,) = check_queues([name])
        check_number("max_attempts", max_attempts, 1, RETRIES + 1, whole=True)
        check_number("timeout", timeout, 1, whole=True)
        self.handler = handler
        self.max_attempts = max_attempts
        self.timeout = timeout
        self._url = url
        self._connection = connection if connection is None else native(connection)
        if handler is not None:
            _register(self)

    def push(self, *items: bytes) -> list[str]:
        """Enqueue *items*, in this order; return the ids of their jobs.

        In a handler this is done at once, whatever then becomes of the handler's own item. Raises
        :class:`~pysplash.errors.NotBytes` for anything but bytes, before any is enqueued;
        :class:`~pysplash.errors.ConnectionFailed`, when the last items may be enqueued or not.
        """
        for data in items:
            check_output(self.name, data)
        job = get_current_job()
        connection = self._redis() if job is None else job.connection
        ids: list[str] = []
        try:
            for start in range(0, len(items), CHUNK):
                some = items[start : start + CHUNK]
                ids += push(connection, [Output(self.name, data, self.timeout) for data in some])
        except UNREACHABLE as error:
            raise ConnectionFailed(
                f"Redis at {address(connection)} does not answer: {len(ids)} of {len(items)} "
                "items are known to be pushed"
            ) from error
        except RedisError as error:
            raise StageError(refusal(address(connection), error)) from error
        return ids

    def run(self, burst: bool = False) -> None:
        """Serve this stage in this process until TERM or INT; with *burst* until it is empty.

        As many processes as wanted may do so, on as many machines.
        """
        connection = self._redis()
        check(connection)
        queue = Queue(self.name, connection=connection)
        Worker([queue], connection=connection).work(burst=burst, logging_level="WARNING")

    def _redis(self) -> Redis:
        if self._connection is None:
            self._connection = from_url(self._url) if self._url else from_environment()
        return self._connection

    def __repr__(self) -> str:
        return f"Stage({self.name!r})"


#: the process's own, by name
STAGES: dict[str, Stage] = {}


def work(attribute: str, data: bytes) -> object:
    """Run the handler on an item in its worker; its outcome is stored when this returns."""
    job = get_current_job()
    if job is None:
        raise StageError("items are processed by workers only: push the item to its stage")
    stage = STAGES.get(stage_name(attribute))
    try:
        if stage is None:
            raise StageError(
                f"this worker knows no stage {job.origin!r}: name its module with --preload"
            )
        _handle(stage, job, data)
    except Exception:
        _count_attempt(job, stage.max_attempts if stage is not None else ATTEMPTS)
        raise
    return SETTLED


def _handle(stage: Stage, job: Job, data: bytes) -> None:
    assert stage.handler is not None
    began = job.started_at if SETTLES.get() else None
    item = Item(job.id, job.origin, job.worker_name or "", job.connection, began)
    made = stage.handler(stage, data)
    if isinstance(made, Iterator):
        for pair in made:
            forward(item, [_output(pair)], ends=False)
        made = None
    forward(item, _outputs(made), ends=True)


def _outputs(made: Any) -> list[Output]:
    if not made:
        return []
    if isinstance(made, Mapping):
        return [_output(pair) for pair in made.items()]
    if isinstance(made, list | tuple):
        return [_output(pair) for pair in made]
    raise StageError(
        f"a handler returned {type(made).__name__}: return a dict, a list of pairs (stage, bytes), "
        "a generator of such pairs, or None"
    )


def _output(pair: Any) -> Output:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise StageError(f"a handler gave {type(pair).__name__} for a pair: give (stage, bytes)")
    queue, data = pair
    check_output(queue, data)
    known = STAGES.get(queue)
    return Output(queue, data, known.timeout if known is not None else TIMEOUT)


def _count_attempt(job: Job, most: int) -> None:
    """End RQ's retries once the job has been tried *most* times."""
    left = job.retries_left or 0
    if RETRIES - left + 1 >= most:
        job.retries_left = 0


def _register(stage: Stage) -> None:
    known = STAGES.get(stage.name)
    if known is not None and _place(known) != _place(stage):
        raise ConfigError(
            f"stage {stage.name!r} is defined twice, with different handlers: give one another name"
        )
    STAGES[stage.name] = stage


def _place(stage: Stage) -> tuple[object, object]:
    return getattr(stage.handler, "__module__", ""), getattr(stage.handler, "__qualname__", "")
