"""The client on a real server: what it enqueues, how it waits, and everything that goes wrong."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from pysplash import (
    CallTimeout,
    Client,
    ConnectionFailed,
    ExecutionError,
    NoWorkerError,
    UnknownTask,
)
from pysplash.client.discovery import read_pools
from pysplash.client.requests import ENQUEUE, build
from pysplash.client.routing import find_route
from pysplash.client.terms import Terms
from pysplash.errors import CallError
from tests.integration.door_pools import HandPool, Thing
from tests.integration.rq_life import aside, await_block, calls, fail, finish, square, work, workers
from tests.waiting import wait_until

#: seconds for anything that has to happen, on a machine that does much else
BOUND = 20.0


@pytest.fixture
def pool(redis: Redis) -> HandPool:
    """A pool that has said that it is there, and has no worker."""
    pool = HandPool(redis)
    pool.stay()
    return pool


@pytest.fixture
def client(url: str, pool: HandPool) -> Iterator[Client]:
    """A client of that pool."""
    with Client(url) as client:
        yield client


def test_calls_are_answered(client: Client, queue: Queue) -> None:
    """By attribute, by name and with keywords: the task's value comes back."""
    with workers(queue, 1):
        assert client.it.square(7) == 49
        assert client.execute("it.square", 8, timeout=BOUND) == 64
        assert client.it.square(number=9) == 81
        assert client.call("it.square", (), {"number": 10}) == 100


def test_a_failure_comes_with_its_traceback(client: Client, queue: Queue) -> None:
    """The caller sees the remote exception's name, text and traceback; the job is its witness."""
    with workers(queue, 1), pytest.raises(ExecutionError) as caught:
        client.it.boom()
    error = caught.value
    assert (error.type, error.status) == ("LookupError", "failed")
    assert str(error) == "task it.boom failed: LookupError: no such thing"
    assert "in boom" in error.traceback
    assert Job.fetch(error.job_id, connection=queue.connection).get_status() is JobStatus.FAILED


def test_wrong_arguments_are_a_failure(client: Client, queue: Queue) -> None:
    """Too many arguments, or of a wrong name, fail in the worker and are told."""
    with workers(queue, 1):
        for arguments, named in [((1, 2), {}), ((), {"n": 1}), ((), {})]:
            with pytest.raises(ExecutionError, match="TypeError"):
                client.call("it.square", arguments, named)


def test_only_registered_names(client: Client, queue: Queue) -> None:
    """Any other name is refused before anything is enqueued, in a message of bounded length."""
    wrong = ("nope", "os.system", "builtins.eval", "__import__", "a.b", "", "it", "it.square.x")
    for name in (*wrong, "x" * 10**4):
        with pytest.raises(UnknownTask) as caught:
            client.execute(name)
        assert len(str(caught.value)) < 400
    assert queue.count == 0


def test_a_registered_name_the_worker_lacks(client: Client, queue: Queue) -> None:
    """A worker that knows no such task says which flag brings it."""
    with workers(queue, 1), pytest.raises(ExecutionError, match="--preload"):
        client.it.rare()


# --- what is enqueued ---


def test_the_job_is_as_rq_would_have_it(client: Client, redis: Redis, queue: Queue) -> None:
    """Fields and keys are those of a job that RQ itself has enqueued."""
    mine = client.submit("it.square", 3)
    own = queue.enqueue(
        "pysplash.tasks.it.square", 3, result_ttl=60, failure_ttl=86400, description="it.square"
    )
    assert queue.job_ids == [mine.id, own.id]
    ours: dict[bytes, bytes] = redis.hgetall(f"rq:job:{mine.id}")  # type: ignore[assignment]
    theirs: dict[bytes, bytes] = redis.hgetall(own.key)  # type: ignore[assignment]
    varying = {b"created_at", b"enqueued_at"}
    one, other = (zlib.decompress(each.pop(b"data")) for each in (ours, theirs))
    assert one == other, "packed more or less tightly, but the same"
    same = {name for name in theirs if ours.get(name) == theirs[name]}
    assert set(ours) == set(theirs)
    assert set(theirs) - same == varying
    assert redis.ttl(f"rq:job:{mine.id}") == redis.ttl(own.key) == -1


def test_sent_twice_it_is_enqueued_once(client: Client, redis: Redis, queue: Queue) -> None:
    """A call whose reply was lost may be sent again."""
    request = build(find_route(read_pools(redis), "it.square"), Terms(), (3,), {})
    keys, words = request.call
    assert [ENQUEUE.run(redis, words, keys) for _ in range(2)] == [1, 1]
    assert queue.job_ids == [request.job_id]
    work(queue)
    assert ENQUEUE.run(redis, words, keys) == 1
    assert queue.job_ids == []


def test_one_round_trip_to_enqueue(client: Client, redis: Redis, queue: Queue) -> None:
    """Once the pools are known, a call is one script; nothing else is asked."""
    client.submit("it.square", 1)
    redis.config_resetstat()
    for number in range(10):
        client.submit("it.square", number)
    assert calls(redis, "evalsha") == 10
    assert [calls(redis, name) for name in ("eval", "ping", "zrange", "hmget")] == [0, 0, 0, 0]
    assert queue.count == 11


# --- nobody there ---


def test_without_a_pool_nothing_is_enqueued(url: str, redis: Redis, queue: Queue) -> None:
    """No pool, no call: the error says so at once, and ping does too."""
    with Client(url) as client:
        with pytest.raises(NoWorkerError, match="no pool is alive"):
            client.it.square(1)
        assert client.ping() is False
    assert redis.keys("rq:*") == []


def test_a_pool_that_has_just_left(client: Client, pool: HandPool, queue: Queue) -> None:
    """What the client believes is checked as the call is enqueued: dead or stopping, it is seen."""
    client.submit("it.square", 1)
    assert client.ping() is True
    pool.drain()
    with pytest.raises(NoWorkerError, match=r"no pool is alive that serves task"):
        client.submit("it.square", 2)
    pool.presence.close()
    with pytest.raises(NoWorkerError, match=r"no pool is alive that could serve"):
        client.map("it.square", [3, 4])
    assert queue.count == 1


def test_patience_waits_for_a_pool(url: str, redis: Redis, queue: Queue) -> None:
    """With patience, client and pool may be started in any order."""
    with Client(url, patience=BOUND) as client, workers(queue, 1):
        answer = aside(client.execute, "it.square", 5)
        wait_until(lambda: calls(redis, "zrange") > 2, BOUND, "looks for a pool")
        assert not answer.done()
        HandPool(redis).stay()
        assert answer.result(BOUND) == 25


def test_without_redis() -> None:
    """A server that does not answer is one error, of one line, and no pool to ping."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = Client(f"redis://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConnectionFailed, match=r"Redis at 127\.0\.0\.1:\d+/0 does not answer"):
            client.it.square(1)
        assert client.ping() is False


# --- time ---


@pytest.mark.parametrize(
    ("choice", "left", "status"), [("cancel", 0, "canceled"), ("leave", 1, "queued")]
)
def test_a_timeout_cancels_or_leaves(
    client: Client, queue: Queue, redis: Redis, choice: str, left: int, status: str
) -> None:
    """A call that nobody takes is off the queue after its timeout, or stays, as was chosen."""
    with pytest.raises(TimeoutError, match=r"it.square did not answer within 0.05 s") as caught:
        client.execute("it.square", 1, timeout=0.05, on_timeout=choice)
    assert isinstance(caught.value, CallTimeout)
    assert queue.count == left
    (key,) = redis.keys("rq:job:*")
    assert redis.hget(key, "status") == status.encode()
    assert (redis.ttl(key) > 0) is (choice == "cancel")


def test_a_caller_that_dies_leaves_no_work(client: Client, queue: Queue, redis: Redis) -> None:
    """A call with a timeout goes by itself if nobody takes it; taken, it is kept."""
    answers = [aside(client.execute, "it.nap", 0.0, timeout=60.0) for _ in range(2)]
    wait_until(lambda: queue.count == 2, BOUND)
    assert all(0 < redis.ttl(f"rq:job:{job_id}") <= 61 for job_id in queue.job_ids)
    redis.delete(f"rq:job:{queue.job_ids[0]}")  # what the server does when the time is over
    work(queue)
    outcomes = [type(answer.exception(BOUND)) for answer in answers]
    assert sorted(outcomes, key=str) == [type(None), ExecutionError]


def test_calls_overflow_a_few_times(url: str, pool: HandPool, queue: Queue) -> None:
    """Late calls pass as long as the allowance lasts; then the soft limit holds."""
    with Client(url, timeout=0.1, overflow=BOUND, overflows=2) as client, workers(queue, 1):
        assert [client.it.nap(0.3) for _ in range(2)] == [0.3, 0.3]
        with pytest.raises(CallTimeout, match=r"within 0.1 s"):
            client.it.nap(0.3)


def test_timeouts_that_cannot_be_meant(client: Client, queue: Queue) -> None:
    """They are refused before anything is enqueued."""
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout must be 0 seconds or more"):
            client.execute("it.square", 1, timeout=timeout)
    assert queue.count == 0


# --- handles ---


def test_a_handle_tells_where_its_call_is(client: Client, queue: Queue, redis: Redis) -> None:
    """Queued, started, finished; its answer can be had again and again."""
    call = client.submit("it.square", 6)
    assert call.status() == "queued"
    assert call.wait(0) is False
    with pytest.raises(CallTimeout):
        call.result(0.01)
    waiting = aside(call.result)
    await_block(redis)
    finish(Job.fetch(call.id, connection=redis), 36)
    assert waiting.result(BOUND) == 36
    assert (call.result(), call.status(), call.wait(0)) == (36, "finished", True)


def test_an_answer_of_none(client: Client, redis: Redis) -> None:
    """None is an answer."""
    call = client.submit("it.square", 6)
    finish(Job.fetch(call.id, connection=redis), None)
    assert call.result(BOUND) is None


def test_a_cancelled_call_is_never_run(client: Client, queue: Queue) -> None:
    """Cancelled while it waits, it is off the queue, and its result says so."""
    call = client.submit("it.square", 6)
    assert call.cancel() is True
    assert queue.count == 0
    with pytest.raises(ExecutionError, match=r"task it.square canceled"):
        call.result(BOUND)
    assert call.cancel() is False


def test_an_ended_call_cannot_be_cancelled(client: Client, queue: Queue) -> None:
    """Cancel says whether there was anything to cancel."""
    call = client.submit("it.square", 6)
    work(queue)
    assert call.cancel() is False
    assert call.result(BOUND) == 36


@pytest.mark.parametrize("end", ["cancel", "delete", "stop"])
def test_ends_that_nobody_tells_of(client: Client, redis: Redis, end: str) -> None:
    """A job that others cancel, delete or stop without a result is noticed while it is awaited."""
    call = client.submit("it.square", 6)
    waiting = aside(call.result)
    await_block(redis)
    job = Job.fetch(call.id, connection=redis)
    if end == "stop":
        job.set_status(JobStatus.STOPPED)
    else:
        getattr(job, end)()
    with pytest.raises(ExecutionError) as caught:
        waiting.result(BOUND)
    assert (
        caught.value.status == {"cancel": "canceled", "delete": "vanished", "stop": "stopped"}[end]
    )


def test_a_retry_is_no_answer(client: Client, redis: Redis) -> None:
    """An entry of a run that is to be repeated is passed over; the next one counts."""
    call = client.submit("it.square", 6)
    waiting = aside(call.result)
    await_block(redis)
    redis.xadd(f"rq:results:{call.id}", {"type": 4})
    await_block(redis)
    assert not waiting.done()
    finish(Job.fetch(call.id, connection=redis), 36)
    assert waiting.result(BOUND) == 36


def test_a_lost_connection_is_replaced(client: Client, redis: Redis) -> None:
    """A waiter whose connection is cut goes on waiting, and has its answer."""
    call = client.submit("it.square", 6)
    waiting = aside(call.result)
    for _ in range(3):
        for number in await_block(redis):
            redis.client_kill_filter(_id=number)
    await_block(redis)
    fail(Job.fetch(call.id, connection=redis), "OSError: late")
    with pytest.raises(ExecutionError, match="OSError: late"):
        waiting.result(BOUND)


def test_answers_are_not_kept_for_ever(
    url: str, pool: HandPool, queue: Queue, redis: Redis
) -> None:
    """An answer is kept for result_ttl seconds, a failure for failure_ttl."""
    with Client(url, result_ttl=50, failure_ttl=90) as client:
        good, bad = client.submit("it.square", 6), client.submit("it.boom")
        work(queue)
        assert 0 < redis.ttl(f"rq:results:{good.id}") <= 50
        assert 0 < redis.ttl(f"rq:results:{bad.id}") <= 90
        redis.flushall()
        with pytest.raises(ExecutionError, match=r"task it.square vanished"):
            good.result(BOUND)


# --- many ---


def test_map_keeps_the_order(client: Client, queue: Queue) -> None:
    """Results come in the order of the arguments; nothing is nothing."""
    with workers(queue, 2):
        assert client.map("it.square", range(50), timeout=BOUND) == [n * n for n in range(50)]
    assert client.map("it.square", []) == []


def test_map_raises_the_first_failure(client: Client, queue: Queue) -> None:
    """A failure among many is raised, once all have ended."""
    with workers(queue, 1), pytest.raises(ExecutionError, match="TypeError"):
        client.map("it.square", [1, None, 3], timeout=BOUND)


def test_map_cancels_what_is_late(client: Client, queue: Queue) -> None:
    """After the timeout of all together nothing of it waits any more."""
    with pytest.raises(CallTimeout, match=r"5 calls of task it.square did not end within 0.05 s"):
        client.map("it.square", range(5), timeout=0.05)
    assert queue.count == 0


def test_many_threads_share_few_connections(url: str, pool: HandPool, queue: Queue) -> None:
    """Sixteen threads over three connections: every answer goes to the one who asked."""
    most, asking = 0, 16
    named = Redis.from_url(url, client_name="many")
    with Client(connection=named, max_connections=3, timeout=60) as many, workers(queue, 2):

        def ask(first: int) -> list[int]:
            return [many.it.square(number) for number in range(first, first + 5)]

        answers = [aside(ask, 10 * number) for number in range(asking)]

        def all_done() -> bool:
            nonlocal most
            listed = queue.connection.client_list()
            most = max(most, sum(c["name"] == "many" for c in listed))
            return all(answer.done() for answer in answers)

        wait_until(all_done, 60, "all answers")
        for number, answer in enumerate(answers):
            first = 10 * number
            assert answer.result(BOUND) == [square(n) for n in range(first, first + 5)]
    assert 1 <= most <= 3


# --- plain ---


def test_a_plain_client_unpickles_nothing(url: str, pool: HandPool, queue: Queue) -> None:
    """It gets JSON values; what has no such form is the task's failure; a pickle is not read."""
    with Client(url, plain=True) as client, workers(queue, 1):
        assert client.it.square(7) == 49
        with pytest.raises(ExecutionError, match="Thing is not JSON serializable"):
            client.it.thing()
    with Client(url) as client:
        call = client.submit("it.thing")
        work(queue)
        assert isinstance(call.result(BOUND), Thing)
    with Client(url, plain=True) as client:
        call = client.submit("it.square", 1)
        finish(Job.fetch(call.id, connection=queue.connection), Thing())
        with pytest.raises(CallError, match="Thing is no plain value"):
            call.result(BOUND)


def test_a_json_pool(url: str, redis: Redis) -> None:
    """A pool that serialises with JSON is called in JSON, without being told so."""
    HandPool(redis, serializer="json").stay()
    queue = Queue("default", connection=redis, serializer="json")
    with Client(url) as client:
        call = client.submit("it.square", 12)
        job = queue.fetch_job(call.id)
        assert job is not None
        assert list(job.args) == [12]
        finish(job, 144)
        assert call.result(BOUND) == 144


def test_a_call_costs_no_thread(client: Client, queue: Queue) -> None:
    """A client waits in the caller's own thread and starts none."""
    before = set(threading.enumerate())  # those of other tests may end meanwhile
    with pytest.raises(CallTimeout):
        client.execute("it.square", 1, timeout=0.05)
    assert set(threading.enumerate()) - before == set()
