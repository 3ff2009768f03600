"""A tree of jobs as data, and the job that plays one node of it and writes down what it saw."""

from __future__ import annotations

import functools
import json
import os
import pickle
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis
from rq import Queue, Retry, get_current_job
from rq.job import Dependency, Job, JobStatus

from pysplash import JobFailed, JobsError, map_jobs, wait_jobs

FOREST = "test:forest:{}"
LOG = "test:log:{}"
RUNS = "test:runs:{}"
#: seconds: no job's timeout but that of one that dozes; that one's, and how long it dozes
LONG, SHORT, DOZE = 600, 1, 5.0

Trouble = Literal["", "raise", "exit", "again", "lapse", "doze"]


@dataclass(frozen=True)
class Wait:
    """One call of wait_jobs, for nodes; or one of map_jobs, for a small job an item."""

    children: tuple[int, ...] = ()
    #: whether each of the small jobs ends well
    items: tuple[bool, ...] = ()
    on_failure: str = "raise"
    max_wait: float | None = None
    help: bool = True


@dataclass(frozen=True)
class Node:
    """One job: what it needs lies further on in the tuple of nodes, so there is no circle."""

    waits: tuple[Wait, ...] = ()
    #: the node that enqueues it; None: all of these are enqueued beforehand
    owner: int | None = None
    #: nodes it depends on, in RQ's sense
    after: tuple[int, ...] = ()
    allow_failure: bool = False
    #: what goes wrong in each of its first runs: how, before its waits or after them, how often
    trouble: Trouble = ""
    early: bool = False
    times: int = 1
    retries: int = 0
    queue: str = "a"
    at_front: bool = True
    nap: float = 0.0


Forest = tuple[Node, ...]


def name_of(forest: str, index: int) -> str:
    """Return the id of a node's job."""
    return f"{forest}-{index}"


def plant(redis: Redis, forest: str, nodes: Forest, index: int) -> None:
    """Enqueue one node."""
    node = nodes[index]
    names = [name_of(forest, other) for other in node.after]
    retry = Retry(max=node.retries) if node.retries and node.trouble != "again" else None
    Queue(node.queue, connection=redis).enqueue(
        grow,
        forest,
        index,
        job_id=name_of(forest, index),
        job_timeout=SHORT if node.trouble == "doze" else LONG,
        at_front=node.at_front,
        retry=retry,
        depends_on=Dependency(names, allow_failure=node.allow_failure) if names else None,
    )


def digest(index: int, seen: Sequence[object]) -> int:
    """Return what a node returns that has *seen* this of its waits."""
    return zlib.crc32(repr((index, list(seen))).encode())


def leaf(item: tuple[str, int, int, int, int, bool]) -> int:
    """Be one of the small jobs of a wait: of which node's, which run's, which wait's, which."""
    job = get_current_job()
    assert job is not None
    forest, index, run, place, number, well = item
    job.connection.rpush(LOG.format(forest), json.dumps([index, run, "leaf", [place, number]]))
    if not well:
        raise LookupError("no luck")
    return number


def grow(forest: str, index: int) -> int | Retry:
    """Be the job of one node."""
    job = get_current_job()
    assert job is not None
    redis = job.connection
    run = redis.incr(RUNS.format(job.id))

    def say(*words: object) -> None:
        redis.rpush(LOG.format(forest), json.dumps([index, run, *words]))

    say("start", os.getpid())
    try:
        result = _Life(redis, forest, index, run, say).live()
    except BaseException as error:
        say("end", type(error).__name__)
        raise
    say("end", type(result).__name__)
    return result


class _Life:
    """One run of a node."""

    def __init__(self, redis: Redis, forest: str, index: int, run: int, say: Any) -> None:
        self._redis, self._forest, self._index, self._run = redis, forest, index, run
        self._say = say
        self._nodes = _nodes(redis, forest)
        self._node = self._nodes[index]

    def live(self) -> int | Retry:
        node = self._node
        troubled = self._run <= node.times
        nap(node.nap)
        if troubled and node.early and (end := self._trouble()):
            return end
        for other in reversed(range(len(self._nodes))):
            if self._nodes[other].owner == self._index and not self._exists(other):
                plant(self._redis, self._forest, self._nodes, other)
        seen = [self._see(place, wait) for place, wait in enumerate(node.waits)]
        if troubled and not node.early and (end := self._trouble()):
            return end
        return digest(self._index, seen)

    def _exists(self, index: int) -> bool:
        return bool(Job.exists(name_of(self._forest, index), connection=self._redis))

    def _trouble(self) -> Retry | None:
        kind = self._node.trouble
        if kind == "raise":
            raise LookupError("no luck")
        if kind == "exit":
            raise SystemExit(3)
        if kind == "doze":
            nap(DOZE)
            raise AssertionError("slept through its timeout")
        if kind == "lapse":
            _lapse(name_of(self._forest, self._index), self._redis)
        return Retry(max=self._node.retries or 1) if kind == "again" else None

    def _see(self, place: int, wait: Wait) -> object:
        try:
            results = self._map(place, wait) if wait.items else self._wait(wait)
        except JobFailed:
            self._say("wait", "failed")
            raise
        self._say("wait", "gave up" if results is None else "done")
        if results is None:
            return "gave up"
        return ["failed" if isinstance(each, JobFailed) else each for each in results]

    def _wait(self, wait: Wait) -> list[Any] | None:
        names = [name_of(self._forest, child) for child in wait.children]
        jobs = [Job.fetch(name, connection=self._redis) for name in names]
        options: Any = {"on_failure": wait.on_failure, "help": wait.help}
        results = wait_jobs(jobs, wait.max_wait, collect_results=True, **options)
        return results if isinstance(results, list) else None

    def _map(self, place: int, wait: Wait) -> list[Any] | None:
        whose = (self._forest, self._index, self._run, place)
        items = [(*whose, number, well) for number, well in enumerate(wait.items)]
        options: Any = {"on_failure": wait.on_failure, "help": wait.help}
        try:
            return map_jobs(leaf, items, max_wait=wait.max_wait, **options)
        except JobFailed:
            raise
        except JobsError:
            return None


def _lapse(job_id: str, redis: Redis) -> None:
    """Settle a job that still runs, as RQ's cleaning does when nobody has renewed its lease."""
    job = Job.fetch(job_id, connection=redis)
    queue = Queue(job.origin, connection=redis)
    with redis.pipeline() as pipe:
        for name in _executions(redis, job_id):
            pipe.delete(f"rq:execution:{job_id}:{name}")
            pipe.zrem(f"rq:wip:{job.origin}", f"{job_id}:{name}")
            pipe.zrem(f"rq:executions:{job_id}", name)
        if job.should_retry:
            job.retry(queue, pipe)
        else:
            job.set_status(JobStatus.FAILED, pipeline=pipe)
            job._handle_failure("abandoned", pipe)
        pipe.execute()
    if job.get_status() is JobStatus.FAILED:
        queue.enqueue_dependents(job)


def _executions(redis: Redis, job_id: str) -> list[str]:
    names: Any = redis.zrange(f"rq:executions:{job_id}", 0, -1)
    return [name.decode() for name in names]


def nap(seconds: float) -> None:
    """Sleep: a job's work, not a test's wait."""
    if seconds:
        time.sleep(seconds)  # noqa: TID251 -- this is the job


@functools.lru_cache(maxsize=8)
def _pickled(data: bytes) -> Forest:
    nodes: Forest = pickle.loads(data)
    return nodes


def _nodes(redis: Redis, forest: str) -> Forest:
    data: Any = redis.get(FOREST.format(forest))
    return _pickled(data)
