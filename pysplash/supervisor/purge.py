"""Purging: the jobs and workers that killed pools have left in Redis.

A killed pool stops renewing its entry; its workers end some time after it. Their jobs are settled
as the pool would have, and their names are removed from RQ's lists.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from redis import Redis
from rq.worker_registration import REDIS_WORKER_KEYS

from pysplash.client.discovery import POOL_KEY, POOLS_KEY
from pysplash.client.pool_id import PoolId, pool_id
from pysplash.config import WorkerSettings
from pysplash.connections.clients import portable
from pysplash.jobs.abandoned import AbandonedJob
from pysplash.log import logger

from .forkserver.callbacks import run_apart
from .settlement import Loss, Settlement

WORKER_KEY = b"rq:worker:"

log = logger("purge")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A worker of a dead pool, or the pool itself (no name); *fate* says what was done with it."""

    pool: str
    worker: str
    fate: str


def dead_pools(client: Redis) -> dict[PoolId, float]:
    """Return the pools that were killed, with the server's time when their workers have ended."""
    known: Any = client.zrange(POOLS_KEY, 0, -1, withscores=True)
    entries = [(name.decode(errors="replace"), by) for name, by in known]
    with client.pipeline(transaction=False) as pipeline:
        for entry, _ in entries:
            pipeline.exists(POOL_KEY.format(entry))
        alive = pipeline.execute()
    return {
        pool_id(entry): by for (entry, by), here in zip(entries, alive, strict=True) if not here
    }


def purge(
    client: Redis, on_crash: str = "fail", exception_handlers: Sequence[str] = ()
) -> Iterator[Leftover]:
    """Settle the jobs of dead pools' workers and remove these; yield each.

    A worker is removed once it cannot be alive: its time is over, or its process, on this host,
    does not exist. *on_crash* is ``"fail"`` (RQ's ``Retry`` is honoured) or ``"requeue"``.
    Failure callbacks of the jobs, and *exception_handlers*, named by their import paths, are run in
    a process for each job that fails.
    """
    settings = WorkerSettings((), portable(client), exception_handlers=tuple(exception_handlers))
    settlement = Settlement(client, settings, on_crash)
    for pool, gone_by in sorted(dead_pools(client).items()):
        left = gone_by - int(client.time()[0])
        remaining = 0
        for worker in workers_of(client, pool):
            if left > 0 and may_live(client, pool, worker):
                remaining += 1
                yield Leftover(pool.name, worker, f"may be alive for {left:.0f} s more")
                continue
            loss = Loss(worker, "", "", "its pool died", suspect=False, seen=False)
            outcome = settlement.settle(loss)
            remove(client, worker)
            for one in settlement.take():
                if one.abandoned is not None:
                    _call_back(settings, one.abandoned)
            yield Leftover(pool.name, worker, f"purged, its job {outcome}" if outcome else "purged")
        if not remaining:
            strike_off(client, pool)
            yield Leftover(pool.name, "", "purged")


def _call_back(settings: WorkerSettings, job: AbandonedJob) -> None:
    if not job.callback and not job.handled:
        return
    wrong = run_apart(settings, job)
    if wrong:
        log.warning(
            "job %s: its failure callback and exception handlers may not have run to their end "
            "and are not run again: %s",
            job.id,
            wrong,
        )


def workers_of(client: Redis, pool: PoolId) -> list[str]:
    """Return the names of the pool's workers that RQ still lists."""
    found: Any = client.smembers(REDIS_WORKER_KEYS)
    names = [key.removeprefix(WORKER_KEY).decode(errors="replace") for key in found]
    return sorted(name for name in names if pool.has(name))


def may_live(client: Redis, pool: PoolId, worker: str) -> bool:
    """Return whether the process of a dead pool's worker may be there.

    Sure are only process ids of this host; another host, or container, may have its name.
    """
    found: Any = client.hmget(WORKER_KEY.decode() + worker, "hostname", "pid")
    host, pid = found
    if host is None or pid is None:
        return False
    here = pool.is_here if pool.run else host.decode() == socket.gethostname()
    return not here or psutil.pid_exists(int(pid))


def strike_off(client: Redis, pool: PoolId) -> None:
    """Remove a dead pool from the list of pools."""
    client.zrem(POOLS_KEY, pool.entry)


def remove(client: Redis, worker: str) -> None:
    """Remove a worker from RQ's lists; it may be there though its own key has expired."""
    key = WORKER_KEY + worker.encode()
    listed: Any = client.smembers("rq:queues")
    with client.pipeline() as pipeline:
        pipeline.srem(REDIS_WORKER_KEYS, key)
        for queue in listed:
            pipeline.srem("rq:workers:" + queue.decode().removeprefix("rq:queue:"), key)
        pipeline.delete(key)
        pipeline.execute()
