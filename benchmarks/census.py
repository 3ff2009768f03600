"""The census after a storm: every place in Redis in which a job's id can be, and what is left over.

Nothing is changed: no cleaning, no counting by registries that clean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq.results import Result
from rq.utils import as_text

from benchmarks.ledger import Found

#: by place: its key for a queue, and whether it is a list
PLACES = {
    "queued": ("rq:queue:{}", True),
    "intermediate": ("rq:queue:{}:intermediate", True),
    "quarantine": ("pysplash:quarantine:{}", True),
    "started": ("rq:wip:{}", False),
    "finished": ("rq:finished:{}", False),
    "failed": ("rq:failed:{}", False),
    "scheduled": ("rq:scheduled:{}", False),
    "deferred": ("rq:deferred:{}", False),
    "ready": ("rq:ready:{}", False),
    "canceled": ("rq:canceled:{}", False),
}
#: places of jobs that are still to run, or run
MOVING = ("queued", "intermediate", "started")
#: commands in one round trip
BATCH = 2_000


def count(redis: Redis, queues: Sequence[str]) -> dict[str, int]:
    """Return how many ids are in each place, in one round trip."""
    with redis.pipeline(transaction=True) as pipeline:
        for key, is_list in PLACES.values():
            for queue in queues:
                (pipeline.llen if is_list else pipeline.zcard)(key.format(queue))
        sizes: list[int] = pipeline.execute()
    step = len(queues)
    return {place: sum(sizes[i * step : (i + 1) * step]) for i, place in enumerate(PLACES)}


def find(redis: Redis, queues: Sequence[str], job_ids: Sequence[str]) -> dict[str, Found]:
    """Return what Redis says of each of *job_ids*."""
    places: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for place, (key, is_list) in PLACES.items():
        for queue in queues:
            read: Callable[..., Any] = redis.lrange if is_list else redis.zrange
            for member in read(key.format(queue), 0, -1):
                job_id = member.decode().partition(":")[0]
                if job_id in places:
                    places[job_id].append(place)
    statuses = _ask(
        redis, places, lambda pipeline, job_id: pipeline.hget(f"rq:job:{job_id}", "status")
    )
    results = _ask(redis, places, lambda pipeline, job_id: pipeline.xrange(f"rq:results:{job_id}"))
    success = str(Result.Type.SUCCESSFUL.value).encode()
    return {
        job_id: Found(
            tuple(places[job_id]),
            (status or b"").decode(),
            sum(fields[b"type"] == success for _, fields in entries),
        )
        for job_id, status, entries in zip(places, statuses, results, strict=True)
    }


def _ask(redis: Redis, job_ids: Iterable[str], ask: Callable[[Any, str], object]) -> list[Any]:
    answers: list[Any] = []
    ids = list(job_ids)
    for start in range(0, len(ids), BATCH):
        with redis.pipeline(transaction=False) as pipeline:
            for job_id in ids[start : start + BATCH]:
                ask(pipeline, job_id)
            answers += pipeline.execute()
    return answers


def open_executions(redis: Redis) -> list[str]:
    """Return the keys that say a job is being run."""
    return [key.decode() for key in redis.scan_iter("rq:execution*", count=BATCH)]


@dataclass(frozen=True, slots=True)
class Known:
    """A worker that RQ takes for alive."""

    name: str
    pid: int
    #: whether it has done a job
    proven: bool


def workers(redis: Redis) -> list[Known]:
    """Return the workers that RQ takes for alive."""
    keys = sorted(as_text(key) for key in redis.smembers("rq:workers"))
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(key, "pid", "death", "successful_job_count", "failed_job_count")
        answers: list[Any] = pipeline.execute()
    return [
        Known(key.removeprefix("rq:worker:"), int(pid), bool(done or failed))
        for key, (pid, death, done, failed) in zip(keys, answers, strict=True)
        if pid and not death
    ]
