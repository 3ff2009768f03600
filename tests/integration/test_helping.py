"""A job that waits runs its own descendants: on a real server, with one worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rq
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Callback, Queue, Retry
from rq.job import Job, JobStatus
from rq.results import Result
from rq.suspension import resume

from pysplash.jobs.claim_named import SCRIPT
from pysplash.waiting.deadlock import Edges, forget
from pysplash.worker.worker import Worker
from tests.generation import RQ_3, at_work_on, since_3
from tests.integration import nested_jobs as jobs
from tests.integration.nested_jobs import said
from tests.integration.rq_life import aside, await_block, calls, finish, square
from tests.waiting import wait_until

#: seconds after which no job here may still wait
LONG = 60


@pytest.fixture
def worker(redis: Redis, queue: Queue) -> Worker:
    """A worker that serves two queues."""
    return Worker([queue, Queue("other", connection=redis)], connection=redis)


def play(worker: Worker, **options: Any) -> None:
    """Let *worker* run what there is, here and now."""
    worker.work(burst=True, logging_level="CRITICAL", **options)


def error_of(job: Job) -> str:
    """Return the traceback of a failed job."""
    result = job.latest_result()
    assert result is not None
    return result.exc_string or ""


def left_over(redis: Redis) -> list[Any]:
    """Return what may not be left once all jobs have ended."""
    patterns = ("pysplash:*", "rq:wip:*", "rq:execution:*", "rq:executions:*", "rq:queue:*")
    return [key for pattern in patterns for key in redis.keys(pattern)]


def test_a_tree_ends_with_one_worker(redis: Redis, queue: Queue, worker: Worker) -> None:
    """A recursive job computes its result, each job of it once, and leaves nothing behind."""
    job = queue.enqueue(jobs.fib, 7, job_timeout=LONG)
    play(worker)

    assert job.return_value() == 13
    assert len(queue.finished_job_registry.get_job_ids(cleanup=False)) == 41
    assert redis.hget(worker.key, "successful_job_count") == b"41"
    assert left_over(redis) == []


def test_without_help_it_only_waits(queue: Queue, worker: Worker) -> None:
    """help=False runs nothing inside the waiting job."""
    child = queue.enqueue(jobs.identity)
    job = queue.enqueue(jobs.wait_for, child.id, max_wait=0.2, help=False, at_front=True)
    play(worker, max_jobs=1)

    assert job.return_value() is False
    assert queue.job_ids == [child.id]


@pytest.mark.parametrize("function", [jobs.in_a_thread, jobs.in_a_coroutine])
def test_where_it_cannot_help_it_waits(queue: Queue, worker: Worker, function: Any) -> None:
    """In a thread of the job's own, and in a coroutine, nothing is run inside the job."""
    child = queue.enqueue(jobs.identity)
    job = queue.enqueue(function, child.id, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() is False
    assert queue.job_ids == [child.id]


def test_each_level_knows_who_it_is(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Present job, variable and the worker's hash are the level's, going down and coming back."""
    queue.enqueue(jobs.wait_for_all, ["middle"], job_id="top", job_timeout=LONG)
    queue.enqueue(jobs.wait_for_all, ["leaf", "leaf2"], job_id="middle", job_timeout=LONG)
    for name in ("leaf", "leaf2"):
        queue.enqueue(jobs.identity, job_id=name)
    play(worker)

    assert said(redis) == [
        "leaf leaf",
        "leaf2 leaf2",
        f"middle middle {'middle+top' if RQ_3 else 'middle'} ['leaf', 'leaf2']",
        "top top top [['leaf', 'leaf2']]",
    ]


@since_3
def test_what_a_limit_holds_back_is_not_waited_for_in_vain(
    redis: Redis, queue: Queue, worker: Worker
) -> None:
    """The only worker runs what has the slot, then what waits for it, inside who waits for that."""
    limit: Any = vars(rq)["RateLimit"]("k", 1)
    for name in ("first", "second"):
        queue.enqueue(jobs.identity, job_id=name, rate_limit=limit)
    job = queue.enqueue(jobs.wait_for, "second", max_wait=LONG / 10, at_front=True)
    play(worker)

    assert said(redis) == ["first first", "second second"]
    assert job.return_value() == ["second"]


def test_others_jobs_are_left_alone(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Only descendants run inside: foreign jobs stay where they are, in their order."""
    before = [queue.enqueue(jobs.identity).id for _ in range(5)]
    children = [queue.enqueue(jobs.identity).id for _ in range(3)]
    after = [queue.enqueue(jobs.identity).id for _ in range(5)]
    queue.enqueue(jobs.wait_for, *children, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert said(redis) == [f"{name} {name}" for name in children]
    assert queue.job_ids == before + after


def bookkeeping(redis: Redis, job: Job) -> dict[str, Any]:
    """Return what a run left of *job*, but for times and names."""
    entries: Any = redis.xrange(Result.get_key(job.id))
    fields: Any = redis.hgetall(job.key)
    (entry,) = entries
    return {
        "fields": sorted(fields),
        "status": fields[b"status"],
        "ttl": redis.ttl(job.key) // 10,
        "result": sorted(entry[1]),
        "result ttl": redis.ttl(Result.get_key(job.id)) // 10,
        "registry": job.finished_job_registry.get_expiration_time(job) is not None,
        "executions": redis.exists(f"rq:executions:{job.id}"),
    }


def test_a_nested_run_is_on_the_books_as_any_other(
    redis: Redis, queue: Queue, worker: Worker
) -> None:
    """What is left of a job that ran inside another is what is left of one that did not."""
    inside, outside = queue.enqueue(jobs.fib, 1), queue.enqueue(jobs.fib, 1)
    queue.enqueue(jobs.wait_for, inside.id, at_front=True, job_timeout=LONG)
    play(worker)

    assert bookkeeping(redis, inside) == bookkeeping(redis, outside)


def test_a_nested_run_is_seen_while_it_lasts(redis: Redis, queue: Queue, worker: Worker) -> None:
    """While it runs it is registered as started, with its worker, whose present job it is."""
    queue.enqueue(jobs.wait_for, "child", job_id="top", job_timeout=LONG)
    queue.enqueue(jobs.nap, 1, job_id="child")
    looking = aside(_look, redis, queue, worker)
    play(worker)

    present, started, stack, seconds = looking.result(20)
    assert present == (["child", "top"] if RQ_3 else ["child"])
    assert (started, stack) == ({"top", "child"}, [b"top", b"child"])
    assert seconds > 180  # whom it waits for is known as long as the nested run may last


def _look(redis: Redis, queue: Queue, worker: Worker) -> Any:
    started = queue.started_job_registry
    wait_until(lambda: "child" in started.get_job_ids(cleanup=False), 20, "the nested run")
    stack: Any = redis.lrange(f"pysplash:stack:{worker.name}", 0, -1)
    present = at_work_on(redis, worker.name)
    held = [entry.rpartition(b":")[0] for entry in stack]
    seconds = redis.ttl("pysplash:waits:top")
    return present, set(started.get_job_ids(cleanup=False)), held, seconds


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (jobs.fail, "LookupError: no luck"),
        (jobs.leave, "SystemExit: 3"),
    ],
)
def test_a_bad_child_is_its_parents_error(
    redis: Redis, queue: Queue, worker: Worker, function: Any, words: str
) -> None:
    """A child that raises or exits fails, and its parent gets JobFailed; the worker goes on."""
    child = queue.enqueue(function)
    other = queue.enqueue(jobs.identity)
    job = queue.enqueue(jobs.wait_for, child.id, other.id, at_front=True, job_timeout=LONG)
    last = queue.enqueue(jobs.identity)
    play(worker)

    assert child.get_status() == JobStatus.FAILED
    assert words in error_of(child)
    assert f"JobFailed: job {child.id} failed" in error_of(job)
    assert last.get_status() == JobStatus.FINISHED
    assert redis.hget(worker.key, "failed_job_count") == b"2"
    assert left_over(redis) == []


@pytest.mark.parametrize(
    ("function", "retry", "result"),
    [(jobs.second_try, None, "done"), (jobs.fail_once, Retry(max=2), "at last")],
)
def test_a_child_that_is_retried_is_run_again(
    redis: Redis, queue: Queue, worker: Worker, function: Any, retry: Any, result: str
) -> None:
    """Retry, returned or given at the enqueueing, holds for nested jobs."""
    child = queue.enqueue(function, retry=retry)
    job = queue.enqueue(jobs.wait_for, child.id, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() == [result]
    assert left_over(redis) == []


def test_callbacks_and_dependents_are_rqs(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Callbacks of nested jobs are called, and what depended on them is released and run."""
    child = queue.enqueue(jobs.identity, job_id="child", on_success=Callback(jobs.called_back))
    failing = queue.enqueue(jobs.fail, job_id="bad", on_failure=Callback(jobs.called_back))
    queue.enqueue(
        jobs.identity,
        job_id="third",
        depends_on=queue.enqueue(jobs.identity, job_id="second", depends_on=child),
    )
    job = queue.enqueue(
        jobs.wait_for,
        args=(failing.id, "third"),
        kwargs={"on_failure": "none"},
        at_front=True,
        job_timeout=LONG,
    )
    play(worker, max_jobs=1)

    assert job.return_value() == [None, "third"]
    assert said(redis) == [
        "callback bad",
        "child child",
        "callback child",
        "second second",
        "third third",
    ]
    assert left_over(redis) == []


def test_a_child_whose_result_is_not_kept(queue: Queue, worker: Worker) -> None:
    """result_ttl=0 holds for nested jobs: finished, None."""
    child = queue.enqueue(jobs.identity, result_ttl=0)
    job = queue.enqueue(jobs.wait_for, child.id, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() == [None]


def test_who_is_waited_for_elsewhere_is_helped(redis: Redis, queue: Queue, worker: Worker) -> None:
    """A job waits for one that runs elsewhere, which waits for a third: that is run here."""
    busy = queue.enqueue(jobs.identity, job_id="busy")
    redis.lrem(queue.key, 1, busy.id)
    busy.set_status(JobStatus.STARTED)
    queue.enqueue(jobs.finish_other, "busy", job_id="leaf")
    Edges(redis, "busy").publish(["leaf"])
    job = queue.enqueue(jobs.wait_for, "busy", at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() == ["busy ended"]


def test_who_begins_to_wait_wakes_those_further_out(
    redis: Redis, queue: Queue, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parked job is woken when one it waits for fans out, not by its next look."""
    monkeypatch.setattr("pysplash.waiting.waiter.BLOCK", 4.0)
    busy = queue.enqueue(jobs.identity, job_id="busy")
    redis.lrem(queue.key, 1, busy.id)
    busy.set_status(JobStatus.STARTED)
    job = queue.enqueue(jobs.wait_for, "busy", max_wait=3, at_front=True, job_timeout=LONG)

    def fan_out() -> None:
        await_block(redis)
        queue.enqueue(jobs.finish_other, "busy", job_id="leaf")
        Edges(redis, "busy").publish(["leaf"])

    fanning = aside(fan_out)
    play(worker, max_jobs=1)
    fanning.result(20)

    assert job.return_value() == ["busy ended"]


def test_a_child_elsewhere_is_no_worry_of_this_worker(
    queue: Queue,
    redis: Redis,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A job in a queue this worker does not serve is waited for; if nobody does, that is said."""
    monkeypatch.setattr("pysplash.waiting.waiter.COMPLAIN", 0.1)
    elsewhere = Queue("elsewhere", connection=redis)
    child = elsewhere.enqueue(jobs.identity)
    job = queue.enqueue(jobs.wait_for, child.id, max_wait=1.5, at_front=True, job_timeout=LONG)
    with caplog.at_level(logging.WARNING, "pysplash"):
        play(worker, max_jobs=1)

    assert job.return_value() is False
    assert elsewhere.job_ids == [child.id]
    assert f"job {child.id} has been waited for" in caplog.text
    assert "in queue elsewhere, which no worker serves" in caplog.text


def test_a_child_in_another_queue_of_this_worker_is_run(
    queue: Queue, redis: Redis, worker: Worker
) -> None:
    """All the queues a worker serves are its own."""
    child = Queue("other", connection=redis).enqueue(jobs.identity)
    job = queue.enqueue(jobs.wait_for, child.id, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() == [child.id]


def test_suspension_holds_for_nested_jobs(redis: Redis, queue: Queue, worker: Worker) -> None:
    """While RQ is suspended nothing is claimed, inside a job or not; afterwards it is."""
    child = queue.enqueue(jobs.identity)
    job = queue.enqueue(jobs.suspend_and_wait, child.id, at_front=True, job_timeout=LONG)

    def lift() -> list[str]:
        await_block(redis)
        lines = said(redis)
        resume(redis)
        return lines

    lifting = aside(lift)
    play(worker, max_jobs=1)

    assert lifting.result(20) == []
    assert job.return_value() == [child.id]


def test_a_wait_on_another_connection_is_helped(url: str, queue: Queue, worker: Worker) -> None:
    """A job that connects for itself is helped too: the server is the same."""
    child = queue.enqueue(jobs.identity)
    job = queue.enqueue(jobs.wait_over, url, child.id, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() == [child.id]


def test_a_nested_job_that_waits_for_an_outer_one_is_told(queue: Queue, worker: Worker) -> None:
    """A descendant that waits for its ancestor gets WouldDeadlock at once, at any distance."""
    top = queue.enqueue(jobs.wait_for, "middle", job_id="top", job_timeout=LONG)
    middle = queue.enqueue(jobs.wait_for, "leaf", job_id="middle", job_timeout=LONG)
    leaf = queue.enqueue(jobs.wait_for, "top", job_id="leaf", job_timeout=LONG)
    play(worker, max_jobs=1)

    assert "WouldDeadlock: job leaf waits for a job that waits for it" in error_of(leaf)
    for job in (top, middle):
        assert "JobFailed" in error_of(job)


def test_a_circle_through_a_stack_is_told(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Who runs inside a job holds it up, even if the job between them has given up waiting."""
    busy = queue.enqueue(jobs.identity, job_id="busy")
    other = queue.enqueue(jobs.identity, job_id="other")
    for job in (busy, other):
        redis.lrem(queue.key, 1, job.id)
        job.set_status(JobStatus.STARTED)
    Edges(redis, "busy").publish(["leaf"])
    Edges(redis, "other").publish(["top"])
    leaf = queue.enqueue(jobs.end_and_wait, "busy", "other", job_id="leaf", job_timeout=5)
    queue.enqueue(jobs.wait_for, "busy", job_id="top", at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert "WouldDeadlock: job leaf" in error_of(leaf)
    forget(redis, "other")


def test_what_ends_without_being_run_is_no_obstacle(
    redis: Redis, queue: Queue, worker: Worker
) -> None:
    """Children cancelled or deleted while others are helped stand as on_failure says."""
    ending = [queue.enqueue(jobs.identity, job_id=name) for name in ("canceled", "deleted")]
    first = queue.enqueue(jobs.cancel_and_delete, *[job.id for job in ending], job_id="first")
    names = [first.id, *[job.id for job in ending], first.id]
    job = queue.enqueue(
        jobs.wait_for,
        args=names,
        kwargs={"on_failure": "none"},
        at_front=True,
        job_timeout=LONG,
    )
    play(worker, max_jobs=1)

    assert job.return_value() == ["first", None, None, "first"]
    assert said(redis) == []


def test_lost_connections_are_made_again(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Connections killed during nested jobs and between them lose and repeat nothing."""
    children = [queue.enqueue(jobs.lose_connections) for _ in range(5)]
    job = queue.enqueue(
        jobs.wait_for, *[child.id for child in children], at_front=True, job_timeout=LONG
    )
    play(worker, max_jobs=1)

    assert job.return_value() == [child.id for child in children]
    assert said(redis) == [child.id for child in children]


def lose_replies(worker: Worker, count: int, *, seconds_away: float = 0.0) -> None:
    """Have *worker*'s connection break after its next claims of named jobs, unheard."""
    connection = worker._claims._connection
    call, connect, left, away_until = connection.call, connection.connect, [count], [0.0]

    def lossy(*words: Any) -> Any:
        reply = call(*words)
        named = words[0] == "EVALSHA" and words[1] == worker._claims._connection.run(SCRIPT)[1]
        if named and left[0] and reply[0] == b"job":
            left[0] -= 1
            away_until[0] = time.monotonic() + seconds_away
            connection.close()
            raise RedisConnectionError("the reply was lost")
        return reply

    def late() -> None:
        if time.monotonic() < away_until[0]:
            raise RedisConnectionError("refused")
        connect()

    connection.call, connection.connect = lossy, late  # type: ignore[method-assign]


def test_a_claim_whose_reply_was_lost_is_found(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Whether there is an outcome to store with it or not, no claim is lost or made twice."""
    lose_replies(worker, 2)
    children = [queue.enqueue(jobs.identity).id for _ in range(4)]
    job = queue.enqueue(jobs.wait_for, *children, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() == children
    assert said(redis) == [f"{name} {name}" for name in children]
    assert left_over(redis) == []


def test_a_claim_that_came_too_late_is_given_back(
    redis: Redis, queue: Queue, worker: Worker
) -> None:
    """A job claimed as Redis went away, and not waited for any more, is back in its queue."""
    lose_replies(worker, 1, seconds_away=0.8)
    child = queue.enqueue(jobs.identity)
    job = queue.enqueue(jobs.wait_for, child.id, max_wait=0.3, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() is False
    assert queue.job_ids == [child.id]
    assert child.get_status() == JobStatus.QUEUED
    assert said(redis) == []


def test_many_children_cost_one_round_trip_each(redis: Redis, queue: Queue, worker: Worker) -> None:
    """A flat fan-out is looked through once: a script and a look or so a child, not more."""
    children = [queue.enqueue(jobs.fib, 1).id for _ in range(300)]
    job = queue.enqueue(jobs.wait_for, *children, at_front=True, job_timeout=LONG)
    before = {name: calls(redis, name) for name in ("evalsha", "eval", "exec", "xread")}
    looked = calls(redis, "hmget")
    began = time.monotonic()
    play(worker, max_jobs=1)

    assert job.return_value() == [1] * 300
    assert calls(redis, "evalsha") - before["evalsha"] <= 300 + 5
    # one at the start, to see what the server can do
    assert calls(redis, "eval") - before["eval"] <= 3 + 2 * (time.monotonic() - began)
    assert calls(redis, "exec") - before["exec"] <= 10
    assert calls(redis, "xread") - before["xread"] == 0
    assert calls(redis, "hmget") - looked <= 4 * 300


def test_a_parked_job_costs_few_round_trips(
    redis: Redis, queue: Queue, worker: Worker, trips: Callable[[], int]
) -> None:
    """A job that waits for a thousand others, all run elsewhere: at most one a hundred."""
    elsewhere = Queue("elsewhere", connection=redis)
    children = elsewhere.enqueue_many([Queue.prepare_data(square, (n,)) for n in range(1000)])
    names = [child.id for child in children]
    job = queue.enqueue(jobs.wait_for, *names, at_front=True, job_timeout=LONG)
    searches = calls(redis, "evalsha")

    def run_elsewhere() -> None:
        await_block(redis)
        for child in children:
            finish(child)

    running = aside(run_elsewhere)
    began = time.monotonic()
    play(worker, max_jobs=1)
    running.result(LONG)

    assert job.return_value() == [None] * 1000
    spent = calls(redis, "evalsha") - searches + trips()
    assert spent <= 10 + 2 * (time.monotonic() - began)


@pytest.mark.parametrize("place", ["near the head", "near the tail", "in the middle"])
def test_a_long_queue_is_no_obstacle(
    redis: Redis, queue: Queue, worker: Worker, place: str
) -> None:
    """A child among a hundred thousand foreign jobs is found, and they are not touched."""
    foreign = [f"foreign-{number}" for number in range(100_000)]
    ahead, behind = {
        "near the head": (0, 100_000),
        "near the tail": (100_000, 0),
        "in the middle": (50_000, 50_000),
    }[place]
    if ahead:
        redis.rpush(queue.key, *foreign[:ahead])
    child = queue.enqueue(jobs.identity)
    if behind:
        redis.rpush(queue.key, *foreign[-behind:])
    job = queue.enqueue(jobs.wait_for, child.id, at_front=True, job_timeout=LONG)
    play(worker, max_jobs=1)

    assert job.return_value() == [child.id]
    assert queue.count == 100_000


@pytest.fixture(autouse=True)
def _no_job_is_lost(redis: Redis) -> Iterator[None]:
    """No test here may leave a job registered as started that nobody runs."""
    yield
    assert redis.keys("rq:execution:*") == []
