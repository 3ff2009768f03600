"""Settling on a real server: each way a worker can leave a job, and where the job must be then."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import pytest
import rq
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry as Again
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.worker import SimpleWorker, Worker

from benchmarks.network import Relay
from pysplash.config import WorkerSettings
from pysplash.connections.clients import portable
from pysplash.connections.outage import AWAY
from pysplash.control.model import WorkerState
from pysplash.embedded import EmbeddedServer
from pysplash.jobs.rq import fail, perform
from pysplash.jobs.store_and_claim import Finish
from pysplash.jobs.store_and_claim_batch import HAND
from pysplash.supervisor.accounting import Accounting
from pysplash.supervisor.callbacks import CallbackProcesses
from pysplash.supervisor.exits import Exits
from pysplash.supervisor.listeners import ListenerThread
from pysplash.supervisor.settlement import MOST_DEATHS, Loss, Settlement
from pysplash.supervisor.workers import Entry, WorkerTable
from pysplash.testing import World
from pysplash.worker.row import Row
from tests.generation import since_3

CAUSE = "killed by SIGKILL"
#: a moment as RQ writes it
AT = "2026-11-21T10:10:10.000000Z"


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """Return the queue all jobs here are on."""
    return Queue("default", connection=redis)


def settlement(redis: Redis, on_crash: str = "fail") -> Settlement:
    """Return a settlement for a pool that watches two queues."""
    settings = WorkerSettings(("default", "other"), portable(redis))
    return Settlement(redis, settings, on_crash)


def exits_of(redis: Redis) -> Exits:
    """Return the exits of a pool that settles so."""
    callbacks = CallbackProcesses("p", World().devices())
    table, accounting = WorkerTable(2), Accounting(0.0)
    return Exits(settlement(redis), table, accounting, callbacks, ListenerThread())


def claim(queue: Queue, worker: SimpleWorker | None = None) -> tuple[SimpleWorker, Job]:
    """Take the next job as a worker does, up to the point where it starts it."""
    if worker is None:
        worker = SimpleWorker([queue], connection=queue.connection)
        worker.register_birth()
    found = worker.queue_class.dequeue_any([queue], None, connection=queue.connection)
    assert found is not None
    return worker, found[0]


def run(queue: Queue, worker: SimpleWorker | None = None, *, prepared: bool = True) -> Loss:
    """Take and start the next job, then die; *prepared*: RQ has marked the job as started."""
    worker, job = claim(queue, worker)
    execution = worker.prepare_execution(job)
    if prepared:
        worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
    return Loss(worker.name, job.id, execution.id, CAUSE)


def left_behind(redis: Redis) -> list[bytes | str]:
    """Return what no settled job may leave: executions, started and intermediate entries."""
    patterns = ("rq:execution:*", "rq:wip:*", "rq:queue:*:intermediate")
    return [key for pattern in patterns for key in redis.keys(pattern)]


@pytest.mark.parametrize("same", [False, True])
def test_the_job_that_redis_knows_of_is_settled_too(redis: Redis, queue: Queue, same: bool) -> None:
    """A worker's last words may be of a run it was done with; what it then held is settled."""
    before = queue.enqueue("time.sleep", 9, retry=Retry(max=2))
    worker = SimpleWorker([queue], connection=redis)
    worker.register_birth()
    last_words = run(queue, worker)
    fail(worker, before, queue, "no luck")
    job = before if same else queue.enqueue("time.sleep", 9, at_front=True)
    assert run(queue, worker).job_id == job.id

    outcome = settlement(redis).settle(last_words)

    assert outcome == ("retried" if same else "failed")
    assert queue.job_ids == [before.id]
    assert left_behind(redis) == []


def test_a_hand_of_old_hides_nothing(redis: Redis, queue: Queue) -> None:
    """A worker killed before it could write its row runs what it has had in a batch before."""
    job = queue.enqueue("time.sleep", 9)
    loss = run(queue)
    redis.hset(f"rq:worker:{loss.worker}", HAND, f"{job.id}:earlier")

    assert settlement(redis).settle(Loss(loss.worker, "", "", CAUSE)) == "failed"
    assert left_behind(redis) == []


def test_what_a_dead_worker_has_sent_is_not_done_afterwards(
    redis: Redis, url: str, queue: Queue
) -> None:
    """Its connections are closed before its job is looked for, and no others."""
    queue.enqueue("time.sleep", 9)
    loss = run(queue)
    with (
        Redis.from_url(url, client_name=loss.worker) as dead,
        Redis.from_url(url, client_name=f"{loss.worker}-other") as other,
    ):
        gone, stays = str(dead.client_id()), str(other.client_id())

        assert settlement(redis).settle(loss) == "failed"

        open_ones = [client["id"] for client in redis.client_list()]
        assert (gone in open_ones, stays in open_ones) == (False, True)


def test_a_server_that_lists_no_clients_will_do(redis: Redis, queue: Queue) -> None:
    """Where the user may not see or close connections the job is settled all the same."""
    queue.enqueue("time.sleep", 9)
    loss = run(queue)
    rights = ["-client", "+client|id", "+client|setname", "+client|tracking"]
    redis.acl_setuser("default", enabled=True, nopass=True, commands=rights)

    assert settlement(redis).settle(loss) == "failed"


def test_a_started_job_fails_with_the_cause(redis: Redis, queue: Queue) -> None:
    """Without Retry a started job is failed, once, and its result says why."""
    job = queue.enqueue("time.sleep", 9)
    loss = run(queue)

    assert settlement(redis).settle(loss) == "failed"

    result = job.latest_result()
    assert result is not None
    assert job.get_status() == JobStatus.FAILED
    assert CAUSE in str(result.exc_string)
    assert queue.failed_job_registry.get_job_ids(cleanup=False) == [job.id]
    assert queue.job_ids == []
    assert left_behind(redis) == []


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("field", ["created_at", "timeout", "status"])
def test_a_job_that_cannot_be_read_is_set_aside(
    redis: Redis, queue: Queue, field: str, known: bool
) -> None:
    """Spoilt while it ran, or claimed by a worker that died on finding out: failed, and kept."""
    job = queue.enqueue("time.sleep", 9)
    loss = run(queue)
    redis.hset(job.key, field, "yesterday")

    found = loss if known else Loss(loss.worker, "", "", CAUSE)
    assert settlement(redis).settle(found) == "set aside"

    result = job.latest_result()
    assert result is not None
    assert f"its field {field} holds 'yesterday'" in str(result.exc_string)
    assert redis.hget(job.key, "status") == b"failed"
    assert redis.lrange("pysplash:quarantine:default", 0, -1) == [job.id.encode()]
    assert left_behind(redis) == []
    assert Worker.all(connection=redis) == []


@pytest.mark.parametrize("key", ["rq:job:{}", "rq:failed:default"])
def test_one_that_cannot_be_settled_keeps_no_other(redis: Redis, queue: Queue, key: str) -> None:
    """A key of the wrong type is not waited for: the next loss is settled."""
    jobs = [queue.enqueue("time.sleep", 9, retry=retry) for retry in (None, Retry(max=1))]
    losses = [run(queue) for _ in jobs]
    redis.delete(key.format(jobs[0].id))
    redis.set(key.format(jobs[0].id), "text")
    exits = exits_of(redis)
    for loss in losses:
        row = Row(
            "w", 1, WorkerState.BUSY, 0, 0, job_id=loss.job_id, execution_id=loss.execution_id
        )
        exits.handle(Entry(loss.worker, 0, 0), row, signal.SIGKILL, "", 0)
    exits.settle()

    assert len(exits) == 0
    assert jobs[1].get_status() == JobStatus.QUEUED


@pytest.mark.parametrize("unsaid", [True, False])
def test_who_could_not_say_that_it_left_is_struck(redis: Redis, queue: Queue, unsaid: bool) -> None:
    """A worker that left well and told Redis so is left alone; one that could not is settled."""
    queue.enqueue("time.sleep", 9)
    loss = run(queue)
    row = Row("w", 1, WorkerState.STOPPING, 0, 0, unsaid=unsaid)
    exits = exits_of(redis)
    exits.handle(Entry(loss.worker, 0, 0), row, 0, "", 0)
    exits.settle()

    assert redis.sismember("rq:workers", f"rq:worker:{loss.worker}") != unsaid
    assert (left_behind(redis) == []) == unsaid


@since_3
@pytest.mark.parametrize(
    ("on_crash", "next_one"), [("fail", "queued"), ("requeue", "rate_limited")]
)
def test_a_slot_is_given_up_with_its_job(
    redis: Redis, queue: Queue, on_crash: str, next_one: str
) -> None:
    """When a dead worker's job fails, the next under its limit goes ahead; not if it comes back."""
    limit: Any = vars(rq)["RateLimit"]("k", 1)
    _, waiting = (queue.enqueue("time.sleep", 9, rate_limit=limit) for _ in range(2))
    settlement(redis, on_crash).settle(run(queue))

    assert waiting.get_status() == next_one


@since_3
def test_what_a_dead_worker_left_ready_is_enqueued(redis: Redis, queue: Queue) -> None:
    """RQ 3 stores first that a dependent is ready, and enqueues it then."""
    job = queue.enqueue("operator.add", 1, 2)
    waiting = queue.enqueue("operator.add", 3, 4, depends_on=job)
    loss = run(queue)
    redis.zrem("rq:deferred:default", waiting.id)
    redis.zadd("rq:ready:default", {waiting.id: 1})
    redis.hset(waiting.key, "status", "ready_to_enqueue")
    settlement(redis).settle(loss)

    assert queue.job_ids == [waiting.id]
    assert waiting.get_status() == JobStatus.QUEUED
    assert not redis.exists("rq:ready:default")


def test_what_waits_goes_on_though_redis_went_away(
    server: EmbeddedServer, redis: Redis, queue: Queue
) -> None:
    """The outcome of its parent was stored; what was left to do is done by the next try."""
    job = queue.enqueue("operator.add", 1, 2)
    waiting = queue.enqueue("operator.add", 3, 4, depends_on=job)
    loss = run(queue)
    done = Finish(job.id, loss.execution_id, "default", 500, AT, AT, b"", "1.5", "2.5", "")
    with Relay(server.url.removeprefix("unix://")) as relay:
        client = Redis.from_url(relay.url, retry=Again(NoBackoff(), 0))
        relay.await_words((b"HGETALL", job.key.encode()), "cut")
        with pytest.raises(RedisConnectionError):
            settlement(client).settle(replace(loss, outcomes=[done]))
        assert relay.sprung
        assert job.get_status() == JobStatus.FINISHED
        assert settlement(client).settle(replace(loss, outcomes=[done])) == "kept"
        client.close()
    assert queue.job_ids == [waiting.id]
    assert len(job.results()) == 1
    assert left_behind(redis) == []


def test_a_retry_whose_reply_is_lost_is_made_once(
    server: EmbeddedServer, redis: Redis, queue: Queue
) -> None:
    """A client that sends again what may have been done would have the job run twice."""
    job = queue.enqueue("operator.add", 1, 2, retry=Retry(max=2))
    loss = run(queue)
    with Relay(server.url.removeprefix("unix://")) as relay:
        settling = settlement(Redis.from_url(relay.url))
        relay.await_words((b"EXEC", b"RPUSH"), "reply lost")
        with pytest.raises(AWAY):
            settling.settle(loss)
        assert relay.sprung
        assert settling.settle(loss) == "retried"
    assert queue.job_ids == [job.id]
    assert Job.fetch(job.id, redis).retries_left == 1


def test_a_job_with_retry_is_retried(redis: Redis, queue: Queue) -> None:
    """RQ's own Retry decides: the job is back in its queue, one retry fewer."""
    job = queue.enqueue("time.sleep", 9, retry=Retry(max=2))

    assert settlement(redis).settle(run(queue)) == "retried"

    job.refresh()
    assert queue.job_ids == [job.id]
    assert job.retries_left == 1
    assert left_behind(redis) == []


@pytest.mark.parametrize("on_crash", ["fail", "requeue"])
def test_a_job_that_never_started_goes_back_to_the_front(
    redis: Redis, queue: Queue, on_crash: str
) -> None:
    """Claimed is not started: no retry is spent, nothing failed, first in its queue again."""
    first = queue.enqueue("time.sleep", 9)
    second = queue.enqueue("time.sleep", 9)
    worker, job = claim(queue)

    outcome = settlement(redis, on_crash).settle(Loss(worker.name, job.id, "", CAUSE))

    assert outcome == "returned"
    assert queue.job_ids == [first.id, second.id]
    assert left_behind(redis) == []


def test_an_execution_without_a_start_is_no_start(redis: Redis, queue: Queue) -> None:
    """Killed between the execution record and the start: the job goes back all the same."""
    job = queue.enqueue("time.sleep", 9)
    loss = run(queue, prepared=False)

    assert settlement(redis).settle(loss) == "returned"
    assert queue.job_ids == [job.id]
    assert left_behind(redis) == []


@pytest.mark.parametrize("on_crash", ["fail", "requeue"])
def test_a_retry_that_was_stored_is_left_alone(redis: Redis, queue: Queue, on_crash: str) -> None:
    """A worker that had stored its job's retry and then died owes nothing; others have the job."""
    job = queue.enqueue("time.sleep", 9, retry=Retry(max=2))
    loss = run(queue)
    other = queue.enqueue("time.sleep", 9)
    assert settlement(redis).settle(loss) == "retried"

    assert settlement(redis, on_crash).settle(loss) == "kept"

    assert queue.job_ids == [other.id, job.id]


def test_requeue_puts_a_started_job_back(redis: Redis, queue: Queue) -> None:
    """With on_crash=requeue a started job without Retry runs again."""
    job = queue.enqueue("time.sleep", 9)

    assert settlement(redis, "requeue").settle(run(queue)) == "requeued"
    assert queue.job_ids == [job.id]
    assert job.get_status() == JobStatus.QUEUED


@pytest.mark.parametrize(("on_crash", "retry"), [("requeue", None), ("fail", Retry(max=99))])
def test_a_job_that_keeps_killing_is_failed(
    redis: Redis, queue: Queue, on_crash: str, retry: Retry | None
) -> None:
    """The third death under the same job is its last, whatever its retries."""
    job = queue.enqueue("time.sleep", 9, retry=retry)
    settle = settlement(redis, on_crash).settle
    outcomes = [settle(run(queue)) for _ in range(MOST_DEATHS)]

    assert outcomes[-1] == "failed"
    assert "failed" not in outcomes[:-1]
    result = job.latest_result()
    assert result is not None
    assert "death no. 3" in str(result.exc_string)


def test_a_death_the_pool_caused_does_not_count(redis: Redis, queue: Queue) -> None:
    """A job cut short by a stopping pool is no poison."""
    queue.enqueue("time.sleep", 9, retry=Retry(max=99))
    for _ in range(MOST_DEATHS + 1):
        loss = run(queue)
        innocent = Loss(loss.worker, loss.job_id, loss.execution_id, CAUSE, suspect=False)
        assert settlement(redis).settle(innocent) == "retried"


@pytest.mark.parametrize("retry", [None, Retry(max=99)])
def test_a_job_killed_for_memory_is_put_back_twice(
    redis: Redis, queue: Queue, retry: Retry | None
) -> None:
    """It is no retry and no death; the third time it fails, and says why."""
    job = queue.enqueue("time.sleep", 9, retry=retry)
    outcomes = []
    for _ in range(MOST_DEATHS):
        loss = run(queue)
        relief = Loss(loss.worker, loss.job_id, loss.execution_id, CAUSE, relief=True)
        outcomes.append(settlement(redis).settle(relief))

    assert outcomes == ["requeued", "requeued", "failed"]
    assert not redis.exists(f"pysplash:deaths:{job.id}")
    result = job.latest_result()
    assert result is not None
    assert "3 times: it needs more memory" in str(result.exc_string)
    assert left_behind(redis) == []


def test_a_stored_outcome_stands(redis: Redis, queue: Queue) -> None:
    """A worker that died after its job had ended changes nothing."""
    job = queue.enqueue("operator.add", 1, 2)
    worker, _ = claim(queue)
    execution = worker.prepare_execution(job)
    perform(worker, job, queue)

    outcome = settlement(redis).settle(Loss(worker.name, job.id, execution.id, CAUSE))

    assert outcome == "kept"
    assert job.get_status() == JobStatus.FINISHED
    assert job.return_value() == 3


def test_another_workers_execution_is_not_touched(redis: Redis, queue: Queue) -> None:
    """A late settlement does not fail a job that someone else runs by now."""
    job = queue.enqueue("time.sleep", 9)
    loss = run(queue)
    other = Loss("somebody-else", loss.job_id, loss.execution_id, CAUSE)

    assert settlement(redis).settle(other) == "kept"
    assert job.get_status() == JobStatus.STARTED


def test_a_long_job_id_is_found_through_its_worker(redis: Redis, queue: Queue) -> None:
    """An id the scoreboard could not hold stands in the worker's hash."""
    queue.enqueue("time.sleep", 9, job_id="j" * 300)
    loss = run(queue)

    assert settlement(redis).settle(Loss(loss.worker, "", "", CAUSE)) == "failed"


def test_a_vanished_job_is_no_trouble(redis: Redis, queue: Queue) -> None:
    """A job whose hash is gone is reported, and the worker's key is ended."""
    job = queue.enqueue("time.sleep", 9)
    loss = run(queue)
    redis.delete(job.key)

    assert settlement(redis).settle(loss) == "vanished"
    assert Worker.all(connection=redis) == []


def test_an_idle_worker_only_leaves_its_key(redis: Redis, queue: Queue) -> None:
    """Nothing to settle: the worker's death is registered, so tools no longer show it."""
    worker = SimpleWorker([queue], connection=redis)
    worker.register_birth()

    assert settlement(redis).settle(Loss(worker.name, "", "", CAUSE)) == ""
    assert Worker.all(connection=redis) == []


@pytest.mark.parametrize(
    ("notes", "seen", "on_crash", "told"),
    [
        ((), True, "fail", [b"+"]),
        ((("0", ""),), True, "fail", [b"-"]),
        ((("0", ""), ("1", '"a"')), True, "fail", [b'="a"', b"-"]),
        ((("0", ""), ("1", '"a"')), True, "requeue", [b'="a"', b"+"]),
        ((("0", ""), ("1", ":\udcff\x00")), True, "fail", [b":\xff\x00", b"-"]),
        ((("1", '"a"'),), True, "requeue", []),
        ((), False, "requeue", []),
    ],
    ids=["not begun", "first", "second", "again", "bytes", "some missing", "nobody knows"],
)
def test_a_job_of_several_calls_is_broken_up(
    redis: Redis,
    queue: Queue,
    notes: tuple[tuple[str, str], ...],
    seen: bool,
    on_crash: str,
    told: list[bytes],
) -> None:
    """It fails, whatever the policy, and says how far it got and whether the rest goes again."""
    job = queue.enqueue("pysplash.bundled_tasks.some.task", "a", "b", "c")
    loss = run(queue)
    noted = [("part", job.id, *words) for words in notes]

    outcome = settlement(redis, on_crash).settle(replace(loss, notes=noted, seen=seen))

    assert outcome == "failed"
    assert queue.job_ids == []
    assert redis.lrange(f"pysplash:parts:{job.id}", 0, -1) == told
    assert left_behind(redis) == []


@pytest.mark.parametrize(("on_crash", "told"), [("fail", [b"-"]), ("requeue", [b"-", b"+"])])
def test_what_such_a_job_has_told_itself_stands(
    redis: Redis, queue: Queue, on_crash: str, told: list[bytes]
) -> None:
    """One that was late has handed in what it had, before its worker died."""
    job = queue.enqueue("pysplash.bundled_tasks.some.task", "a", "b")
    loss = replace(run(queue), notes=[("part", job.id, "0", "")])
    redis.rpush(f"pysplash:parts:{job.id}", "-")

    assert settlement(redis, on_crash).settle(loss) == "failed"
    assert redis.lrange(f"pysplash:parts:{job.id}", 0, -1) == told


def test_a_call_alone_is_a_job_like_any_other(redis: Redis, queue: Queue) -> None:
    """There is nothing to break up."""
    job = queue.enqueue("pysplash.bundled_tasks.some.task", "a")

    assert settlement(redis, "requeue").settle(run(queue)) == "requeued"
    assert queue.job_ids == [job.id]
