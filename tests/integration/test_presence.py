"""What a pool publishes on a real server, and what is purged when it was killed."""

from __future__ import annotations

import os
import socket

import pytest
from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.job import Job, JobStatus

from pysplash.client.discovery import POOL_KEY, POOLS_KEY, read_pools
from pysplash.client.pool_id import PoolId, new_run
from pysplash.embedded import EmbeddedServer
from pysplash.supervisor.presence import ALIVE, RENEW
from pysplash.supervisor.purge import dead_pools, purge
from tests.integration.door_pools import SPECS, HandPool
from tests.integration.rq_life import calls, square


@pytest.fixture
def pool(redis: Redis) -> HandPool:
    """A pool that has said that it is there."""
    pool = HandPool(redis)
    pool.tell()
    return pool


def test_a_pool_says_what_it_offers(redis: Redis, pool: HandPool) -> None:
    """Name, host, process, queues, tasks and the last tick are there for whoever asks."""
    (found,) = read_pools(redis)
    assert (found.name, found.host, found.pid) == ("hand", socket.gethostname(), os.getpid())
    assert [task.name for task in found.tasks] == [spec.name for spec in SPECS]
    assert found.open
    assert found.state is not None
    assert found.state["reason"] == "steady"


def test_it_is_believed_for_a_while_only(redis: Redis, pool: HandPool) -> None:
    """The word expires; the list knows by when the last worker must be gone."""
    assert 0 < redis.ttl(POOL_KEY.format("hand")) <= ALIVE
    by = redis.zscore(POOLS_KEY, "hand")
    assert isinstance(by, float)
    assert by - int(redis.time()[0]) > ALIVE + 25
    redis.delete(POOL_KEY.format("hand"))
    assert read_pools(redis) == []


def test_it_is_renewed_when_due_and_not_before(redis: Redis, pool: HandPool) -> None:
    """A tick costs Redis nothing, unless it is time or something has changed."""
    before = calls(redis, "evalsha")
    for _ in range(10):
        pool.tell(RENEW / 11)
    assert calls(redis, "evalsha") == before
    pool.tell(RENEW / 5)
    assert calls(redis, "evalsha") == before + 1
    pool.presence.set_tasks(SPECS[:1])
    pool.tell()
    (found,) = read_pools(redis)
    assert [task.name for task in found.tasks] == [SPECS[0].name]


def test_a_stopping_pool_is_there_but_closed(redis: Redis, pool: HandPool) -> None:
    """Stopping is told at once; the end takes the word back."""
    pool.drain()
    assert [found.open for found in read_pools(redis)] == [False]
    pool.presence.close()
    assert read_pools(redis) == []
    assert list(redis.keys("pysplash:*")) == []


def test_a_server_that_forgot_is_told_again(redis: Redis, pool: HandPool) -> None:
    """After an empty restart of Redis the next renewal says everything."""
    redis.flushall()
    pool.tell(RENEW)
    (found,) = read_pools(redis)
    assert len(found.tasks) == len(SPECS)


def test_an_absent_server_costs_the_word_alone(
    server: EmbeddedServer, redis: Redis, pool: HandPool
) -> None:
    """Without Redis nothing is told and nothing is raised."""
    server.stop()
    pool.tell(RENEW)
    pool.presence.close()


def register(redis: Redis, name: str, pid: int, host: str = "") -> SimpleWorker:
    """Register a worker of RQ's under a name, as a process of some host."""
    queue = Queue("default", connection=redis)
    worker = SimpleWorker([queue], connection=redis, name=name)
    worker.register_birth()
    redis.hset(worker.key, mapping={"pid": pid, "hostname": host or socket.gethostname()})
    return worker


def hold(redis: Redis, worker: SimpleWorker, **options: object) -> Job:
    """Let *worker* have begun a job."""
    queue = Queue("default", connection=redis)
    job = queue.enqueue(square, 3, **options)
    assert queue.pop_job_id() == job.id
    worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    return job


GONE = 2**22 - 1  # a process id that none has here: beyond the default most


def die(redis: Redis, pool: HandPool) -> None:
    """Let the pool's word expire."""
    redis.delete(POOL_KEY.format("hand"))


def test_what_a_dead_pool_held_is_settled(redis: Redis, pool: HandPool) -> None:
    """Its workers are struck off RQ's lists, their jobs failed or retried as RQ would."""
    lost = hold(redis, register(redis, "hand-0123abcd", GONE))
    retried = hold(redis, register(redis, "hand-00000001", GONE), retry=Retry(max=1))
    stranger = register(redis, "hand-made", GONE)
    die(redis, pool)
    assert [pool.name for pool in dead_pools(redis)] == ["hand"]
    fates = {leftover.worker: leftover.fate for leftover in purge(redis)}
    assert fates == {
        "hand-0123abcd": "purged, its job failed",
        "hand-00000001": "purged, its job retried",
        "": "purged",
    }
    assert lost.get_status() is JobStatus.FAILED
    assert retried.get_status() is JobStatus.QUEUED
    assert [worker.name for worker in SimpleWorker.all(connection=redis)] == [stranger.name]
    assert list(purge(redis)) == []


def test_the_living_are_let_be(redis: Redis, pool: HandPool) -> None:
    """Nothing is done to a pool that is alive, nor to a worker that may still run."""
    register(redis, "hand-0123abcd", os.getpid())
    register(redis, "hand-00000002", GONE, host="elsewhere")
    assert list(purge(redis)) == []
    die(redis, pool)
    fates = [leftover.fate for leftover in purge(redis)]
    assert len(fates) == 2
    assert all(fate.startswith("may be alive for ") for fate in fates)
    redis.zadd(POOLS_KEY, {"hand": 1.0})
    assert [leftover.fate for leftover in purge(redis)] == ["purged", "purged", "purged"]


def test_a_job_can_be_put_back_instead(redis: Redis, pool: HandPool) -> None:
    """With on_crash requeue a dead worker's job waits again."""
    job = hold(redis, register(redis, "hand-0123abcd", GONE))
    die(redis, pool)
    fates = [leftover.fate for leftover in purge(redis, "requeue")]
    assert fates == ["purged, its job requeued", "purged"]
    assert job.get_status() is JobStatus.QUEUED


def live(redis: Redis) -> tuple[HandPool, PoolId]:
    """Return a life of the pool ``hand`` that has said that it is there."""
    me = PoolId("hand", new_run())
    pool = HandPool(redis, run=me.run)
    pool.tell()
    return pool, me


def test_pools_of_one_name_are_told_apart(redis: Redis) -> None:
    """Both are listed; the end of one takes only its own word back."""
    (first, _), (_, other) = live(redis), live(redis)
    assert [found.name for found in read_pools(redis)] == ["hand", "hand"]
    assert len({found.key for found in read_pools(redis)}) == 2
    first.presence.close()
    assert [found.run for found in read_pools(redis)] == [other.run]


def test_a_name_in_use_again_hides_no_dead_pool(redis: Redis) -> None:
    """The job of the killed pool's worker is settled; the worker of the living one is let be."""
    _, dead = live(redis)
    lost = hold(redis, register(redis, dead.worker(1), GONE))
    redis.delete(POOL_KEY.format(dead.entry))
    _, alive = live(redis)
    held = hold(redis, register(redis, alive.worker(1), GONE))
    fates = {leftover.worker: leftover.fate for leftover in purge(redis)}
    assert fates == {dead.worker(1): "purged, its job failed", "": "purged"}
    assert lost.get_status() is JobStatus.FAILED
    assert held.get_status() is JobStatus.STARTED


def test_a_host_of_the_same_name_is_another_host(redis: Redis) -> None:
    """In a container that shares its name with others a process id says nothing of theirs."""
    dead = PoolId("hand", "fedc" + new_run()[4:])
    assert not dead.is_here
    HandPool(redis, run=dead.run).tell()
    register(redis, dead.worker(1), GONE, socket.gethostname())
    redis.delete(POOL_KEY.format(dead.entry))
    (fate,) = [leftover.fate for leftover in purge(redis)]
    assert fate.startswith("may be alive for ")


def test_a_pool_finds_what_earlier_ones_of_its_name_have_lost(redis: Redis) -> None:
    """Once, and not before the word of one killed just now has expired; others' are left alone."""
    _, dead = live(redis)
    register(redis, dead.worker(1), GONE)
    stranger = PoolId("other", new_run())
    HandPool(redis, "other", run=stranger.run).tell()
    register(redis, stranger.worker(1), GONE)
    for gone in (dead, stranger):
        redis.delete(POOL_KEY.format(gone.entry))
    pool, me = live(redis)
    register(redis, me.worker(1), os.getpid())
    found = pool.presence.predecessors
    assert found.lost_workers(0.0) == []
    assert found.lost_workers(60.0) == [dead.worker(1)]
    assert found.lost_workers(120.0) == []
    found.note_settled(dead.worker(1))
    found.lost_workers(180.0)
    assert [pool.name for pool in dead_pools(redis)] == ["other"]
