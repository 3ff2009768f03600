"""Stages on a real server: where items go, what becomes of them when something goes wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker, get_current_job
from rq.job import Job
from rq.registry import FailedJobRegistry

from pysplash import ConnectionFailed, NotBytes, Stage, Worker, wait_jobs
from pysplash.application.forwarding import MOST, read_stages
from pysplash.application.stage import STAGES
from tests.generation import at_work_on, since_3
from tests.servers import own_server

#: what handlers were given, and what they are to make of it
SEEN: list[tuple[str, bytes]] = []
MAKES: dict[object, Any] = {}


def handle(stage: Stage, data: bytes) -> Any:
    """Do what the test wants of this item."""
    SEEN.append((stage.name, data))
    made = MAKES.get(data)
    return made(stage) if callable(made) else made


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    """One server for all tests of this module, which leave nothing running."""
    with own_server() as server:
        yield server.url


@pytest.fixture
def url(shared: str) -> str:
    """The address of the shared server, emptied."""
    with Redis.from_url(shared) as redis:
        redis.flushall()
    return shared


@pytest.fixture
def first(redis: Redis) -> Iterator[Stage]:
    """A stage of the test's own."""
    SEEN.clear()
    MAKES.clear()
    yield Stage("first", handle, connection=redis, max_attempts=3)
    STAGES.clear()


def waiting(redis: Redis, queue: str) -> list[bytes]:
    """Return the items that wait at a stage, in order."""
    return [job.args[0] for job in Queue(queue, connection=redis).jobs]


def leftovers(redis: Redis) -> list[str]:
    """Return the keys of items that are left beside queues, workers and names."""
    lasting = ("rq:queue", "rq:worker", "rq:clean", "pysplash:stages")
    found: list[Any] = redis.keys()
    keys = [raw.decode() for raw in found]
    return [key for key in keys if not key.startswith(lasting)]


@pytest.mark.parametrize(
    ("made", "left"),
    [
        ({"left": b"a"}, [b"a"]),
        ([("left", b"a"), ("left", b"b"), ("right", b"c"), ("left", b"a")], [b"a", b"b", b"a"]),
        ((("left", b""),), [b""]),
        (lambda _: (("left", bytes([65 + n])) for n in range(3)), [b"A", b"B", b"C"]),
        (lambda _: iter([("left", b"x")]), [b"x"]),
        (lambda _: iter([]), []),
        (None, []),
        ({}, []),
        ([], []),
        (False, []),
        (b"", []),
        (0, []),
    ],
)
def test_where_an_item_goes(redis: Redis, first: Stage, made: object, left: list[bytes]) -> None:
    """To every stage it names, in order, or nowhere; and nothing of the item itself is left."""
    MAKES[b"item"] = made
    first.push(b"item")
    first.run(burst=True)

    assert waiting(redis, "left") == left
    assert len(waiting(redis, "right")) == ("right" in str(made))
    redis.delete(*[f"rq:job:{job_id}" for q in ("left", "right") for job_id in _ids(redis, q)], "x")
    assert leftovers(redis) == []
    (worker,) = redis.scan_iter("rq:worker:*")
    assert redis.hget(worker, "successful_job_count") == b"1"


def trace(redis: Redis, job_id: str) -> str:
    """Return the traceback with which a job failed."""
    result = Job.fetch(job_id, redis).latest_result()
    assert result is not None
    return str(result.exc_string)


def _ids(redis: Redis, queue: str) -> list[str]:
    return Queue(queue, connection=redis).job_ids


def test_items_keep_their_order_and_their_bytes(redis: Redis, first: Stage) -> None:
    """Any bytes, in the order in which they were pushed."""
    items = [b"", b"\x00\xff", b"ascii", "ü".encode(), b"x" * 100_000]
    assert len(set(first.push(*items))) == 5
    assert waiting(redis, "first") == items
    first.run(burst=True)
    assert [("first", item) for item in items] == SEEN


def test_a_pipeline_by_one_worker(redis: Redis, first: Stage) -> None:
    """Stages fan out and in again; a stage is a queue like any other to a worker."""
    MAKES.update(
        {b"a b": [("mid", b"a"), ("mid", b"b")], b"a": {"last": b"A"}, b"b": {"last": b"B"}}
    )
    for name in ("mid", "last"):
        Stage(name, handle)
    first.push(b"a b")
    queues = [Queue(name, connection=redis) for name in ("first", "mid", "last")]
    Worker(queues, connection=redis).work(burst=True, logging_level="ERROR")
    assert SEEN == [
        ("first", b"a b"),
        ("mid", b"a"),
        ("mid", b"b"),
        ("last", b"A"),
        ("last", b"B"),
    ]
    assert leftovers(redis) == []


def test_a_failure_goes_to_the_head_and_then_aside(redis: Redis, first: Stage) -> None:
    """A bad item is tried at the head of its queue as often as its stage says, then set aside."""

    def fail(_: Stage) -> None:
        raise ValueError("bad item")

    MAKES[b"bad"] = fail
    bad, _ = first.push(b"bad", b"good")
    first.run(burst=True)

    assert SEEN == [("first", b"bad")] * 3 + [("first", b"good")]
    failed = FailedJobRegistry("first", connection=redis)
    assert failed.get_job_ids() == [bad]
    assert "ValueError: bad item" in trace(redis, bad)
    SEEN.clear()
    MAKES.clear()
    failed.requeue(bad)
    first.run(burst=True)
    assert SEEN == [("first", b"bad")]
    assert leftovers(redis) == []


def test_an_item_may_recover(redis: Redis, first: Stage) -> None:
    """An item that fails once and then does not is gone like any other."""
    tries: list[int] = []

    def flaky(_: Stage) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return {"left": b"done"}

    MAKES[b"flaky"] = flaky
    first.push(b"flaky")
    first.run(burst=True)
    assert (len(tries), waiting(redis, "left")) == (3, [b"done"])
    assert redis.zcard("rq:failed:first") == 0


@pytest.mark.parametrize(
    "made",
    [
        {"left": "text"},
        [("left", b"a"), ("left", "b")],
        [("left", b"a"), b"left"],
        [("left", b"a"), ("left", b"b", b"c")],
        [("left", b"a"), (5, b"b")],
        [("left", b"a"), ("", b"b")],
        "left",
        5,
        {"left": None},
    ],
)
def test_nothing_is_forwarded_by_halves(redis: Redis, first: Stage, made: object) -> None:
    """One pair that cannot be forwarded and none is; the item is tried, then set aside."""
    MAKES[b"item"] = made
    first.push(b"item")
    first.run(burst=True)
    assert len(SEEN) == 3
    assert waiting(redis, "left") == []
    assert redis.zcard("rq:failed:first") == 1


def test_a_generator_forwards_as_it_goes(redis: Redis, first: Stage) -> None:
    """A pair is forwarded when it comes: before the next one is asked for, whatever follows."""
    seen: list[list[bytes]] = []

    def drip(_: Stage) -> Iterator[tuple[str, bytes]]:
        for number in range(3):
            yield "left", b"%d" % number
            seen.append(waiting(redis, "left"))
        if len(seen) == 3:
            raise ValueError("once")

    MAKES[b"drip"] = drip
    first.push(b"drip")
    first.run(burst=True)
    assert seen[:3] == [[b"0"], [b"0", b"1"], [b"0", b"1", b"2"]]
    assert waiting(redis, "left") == [b"0", b"1", b"2"] * 2, "tried again, so forwarded again"


def test_an_item_settled_meanwhile_forwards_nothing(redis: Redis, first: Stage) -> None:
    """A worker that was given up drops what it made: the item is somebody else's now."""

    def stolen(_: Stage) -> Any:
        job = get_current_job()
        assert job is not None
        if len(SEEN) == 1:  # as the pool settles the job of a worker it takes for dead
            redis.delete(f"rq:executions:{job.id}", *redis.scan_iter(f"rq:execution:{job.id}:*"))
            redis.hset(job.key, "status", "queued")
            redis.lpush("rq:queue:first", job.id)
        return {"left": b"once"}

    MAKES[b"item"] = stolen
    first.push(b"item")
    first.run(burst=True)
    assert len(SEEN) == 2
    assert waiting(redis, "left") == [b"once"]


def test_other_workers_serve_stages_too(redis: Redis, first: Stage) -> None:
    """A stage needs no worker of ours: RQ's own stores nothing more than ours does."""
    MAKES[b"item"] = {"left": b"a"}
    first.push(b"item", b"item")
    queue = Queue("first", connection=redis)
    SimpleWorker([queue], connection=redis).work(burst=True, logging_level="ERROR")
    assert waiting(redis, "left") == [b"a", b"a"]
    assert [key for key in leftovers(redis) if not key.startswith("rq:job:")] == []
    assert len(redis.keys("rq:job:*")) == 2


@since_3
def test_a_worker_is_at_an_item_no_longer_than_it_is(redis: Redis, first: Stage) -> None:
    """RQ 3's set of a worker's executions has the item that is worked on, and no other."""
    held = []

    def look(_: Stage) -> None:
        job = get_current_job()
        assert job is not None
        held.append((at_work_on(redis, str(job.worker_name)), [job.id]))

    MAKES[b"item"] = look
    first.push(b"item", b"item", b"item")
    first.run(burst=True)
    assert [there for there, _ in held] == [item for _, item in held]
    assert len(held) == 3


def test_pushing_inside_and_beside(redis: Redis, first: Stage) -> None:
    """A handler may push at once, to stages it knows; jobs and items live side by side."""
    other = Stage("other", connection=redis)
    MAKES[b"item"] = lambda stage: other.push(b"aside", b"more") and None
    first.push(b"item")
    first.run(burst=True)
    assert waiting(redis, "other") == [b"aside", b"more"]
    job = Queue("first", connection=redis).enqueue(len, [1, 2])
    first.push(b"x")
    first.run(burst=True)
    assert wait_jobs([job], 5, collect_results=True) == [2]


def test_a_stage_nobody_made(redis: Redis, first: Stage) -> None:
    """An item for a stage that its worker does not know is set aside, saying what to do."""
    (item,) = Stage("unknown", connection=redis).push(b"x")
    queue = Queue("unknown", connection=redis)
    Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")
    told = trace(redis, item)
    assert "this worker knows no stage 'unknown': name its module with --preload" in told


def test_what_cannot_be_pushed(redis: Redis, first: Stage) -> None:
    """Anything but bytes is refused before any of it is enqueued; so is too much at once."""
    for bad in ("text", 5, None, bytearray(b"x")):
        with pytest.raises(NotBytes, match="encode"):
            first.push(b"good", bad)  # type: ignore[arg-type]
    assert waiting(redis, "first") == []
    MAKES[b"many"] = [("left", b"x")] * (MOST + 1)
    first.push(b"many")
    first.run(burst=True)
    assert redis.zcard("rq:failed:first") == 1
    assert redis.llen("rq:queue:left") == 0


def test_many_at_once(redis: Redis, first: Stage) -> None:
    """Thousands are pushed, and forwarded in one step, in order."""
    MAKES[b"many"] = [("left", b"%d" % number) for number in range(5000)]
    first.push(b"many")
    first.run(burst=True)
    assert redis.llen("rq:queue:left") == 5000
    assert len(first.push(*[b"x"] * 2500)) == 2500
    assert redis.llen("rq:queue:first") == 2500


def test_what_waits_where(redis: Redis, first: Stage) -> None:
    """Every stage that was ever pushed to is known, with what waits, failed and how long."""

    def look(stage: Stage) -> None:
        MAKES["facts"] = read_stages(redis)
        raise ValueError("set aside")

    MAKES[b"item"] = look
    Stage("first", handle, connection=redis, max_attempts=1).push(b"item", b"next")
    Worker([Queue("first", connection=redis)], connection=redis).work(
        burst=True, max_jobs=1, logging_level="CRITICAL"
    )
    (during,) = MAKES["facts"]
    assert (during.name, during.waiting, during.running, during.failed) == ("first", 1, 1, 0)
    (after,) = read_stages(redis)
    assert (after.waiting, after.running, after.failed) == (1, 0, 1)
    assert after.oldest is not None
    assert 0 <= after.oldest < 60


def test_a_stop_ends_a_stage_between_items(redis: Redis, first: Stage) -> None:
    """TERM lets the item end, with what it forwards, and leaves the others where they are."""

    def term(_: Stage) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"left": b"done"}

    MAKES[b"item"] = term
    first.push(b"item", b"next")
    first.run()
    assert waiting(redis, "left") == [b"done"]
    assert waiting(redis, "first") == [b"next"]


def test_without_redis() -> None:
    """A push that cannot be made raises, and so does a stage that finds nobody to work for."""
    with own_server() as server:
        stage = Stage("alone", url=server.url)
    with pytest.raises(ConnectionFailed, match="0 of 1 items are known to be pushed"):
        stage.push(b"x")
    with pytest.raises(ConnectionFailed, match="no Redis answers at"):
        stage.run()
