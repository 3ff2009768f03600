"""Bad input by way of Redis: no worker ends, what is bad is set aside, the next good job runs.

One worker, in a process of its own, lives through all of it. RQ's own ends at nine of the eleven
fields of a job that are spoiled here, and at the end of this file at one of them for proof.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.job import Job, JobStatus

from pysplash import Worker
from pysplash.embedded import EmbeddedServer
from pysplash.jobs.quarantine import KEY
from tests.malformed import MESSAGES
from tests.servers import own_server
from tests.waiting import wait_until

from .one_worker import NAME
from .rq_life import boom, square
from .staging import Reference

ROOT = Path(__file__).parents[2]
QUEUES = ("high", "low")
#: seconds within which the next job must have run, on a machine that runs other tests too; it
#: waits for nothing, so an idle machine needs a hundredth of a second
BOUND = 20.0
BIG = b"x" * 10 * 2**20
#: a line of the log is shorter than this, whatever it speaks of
LINE = 1000

VALUES: dict[str, bytes | None] = {
    "text": b"yesterday",
    "not UTF-8": b"\xff\xfe\x80",
    "line break": b"a\nb",
    "1e309": b"1e309",
    "nan": b"nan",
    "negative": b"-7",
    "30 digits": b"9" * 30,
    "400 digits": b"9" * 400,
    "10 MB": BIG,
    "empty": b"",
    "missing": None,
}
ALL = frozenset(VALUES)
SOMETHING = ALL - {"empty", "missing"}
DIGITS = frozenset(("30 digits", "400 digits"))
NO_NUMBER = SOMETHING - DIGITS - {"negative"}
NONE: frozenset[str] = frozenset()
#: which values of a field get its job set aside, and which let it fail; it runs with any other
FATES = {
    "created_at": (SOMETHING, NONE),
    "enqueued_at": (SOMETHING, NONE),
    "status": (SOMETHING, NONE),
    "timeout": (NO_NUMBER | {"400 digits"}, NONE),
    "result_ttl": (NO_NUMBER, NONE),
    "retries_left": (NO_NUMBER, NONE),
    "origin": ({"not UTF-8"}, NONE),
    "description": ({"not UTF-8"}, NONE),
    "worker_name": ({"not UTF-8"}, NONE),
    "meta": (NONE, NONE),
    "data": ({"missing"}, ALL - {"missing"}),
}
BELOW_ZERO = ("result_ttl", "negative")
#: all other fields that RQ reads when it restores a job
OTHERS = """
    started_at ended_at last_heartbeat group_id result exc_info ttl failure_ttl webhooks
    success_callback_name success_callback_timeout failure_callback_name failure_callback_timeout
    stopped_callback_name stopped_callback_timeout dependency_id dependency_ids
    allow_dependency_failures enqueue_at_front enqueue_at_front_on_retry number_of_retries
    retry_intervals repeats_left repeat_intervals
""".split()  # noqa: SIM905 -- a column of names is easier to read
Spoil = Callable[[Pipeline, Job], object]


class Life:
    """One worker's life: its process, its log, and what it may find in Redis."""

    def __init__(self, server: EmbeddedServer, log: Path) -> None:
        self.redis: Any = Redis.from_url(server.url)
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.one_worker", server.url, *QUEUES],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=file,
            )

    def end(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(BOUND)
        finally:
            self.process.kill()
            self.redis.close()

    def lines(self, pattern: str) -> list[str]:
        """Return the lines of its log in which *pattern* is found."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if re.search(pattern, line)]

    def queue(self, name: str) -> Queue:
        """Return a queue it serves."""
        return Queue(name, connection=self.redis)

    def meets(
        self, spoil: Spoil, queue: str, function: Callable[..., Any] = square, *args: Any
    ) -> Job:
        """Let it find a spoilt job, and behind that a good one; return the first.

        Fails unless the second is done within BOUND, by the same process.
        """
        serves = self.queue(queue)
        with self.redis.pipeline() as pipeline:
            bad: Job = serves.enqueue_call(function, args or (7,), pipeline=pipeline)
            spoil(pipeline, bad)
            good: Job = serves.enqueue_call(square, (3,), pipeline=pipeline)
            pipeline.execute()
        self.does(good)
        return bad

    def does(self, job: Job) -> None:
        """Fail unless *job* is done within BOUND, and the process lives."""
        wait_until(
            lambda: job.get_status() is JobStatus.FINISHED or self.process.poll() is not None,
            BOUND,
            "the next good job",
        )
        assert self.process.poll() is None, self.lines("")
        assert job.get_status() is JobStatus.FINISHED

    def places(self, job_id: str | bytes) -> list[str]:
        """Return every list and registry an id is in, without the queue's name."""
        raw = job_id.encode() if isinstance(job_id, str) else job_id
        found = []
        for key in self.redis.scan_iter():
            kind = self.redis.type(key)
            members = []
            if kind == b"list":
                members = self.redis.lrange(key, 0, -1)
            elif kind == b"zset":
                members = [member.split(b":")[0] for member in self.redis.zrange(key, 0, -1)]
            found += [key.decode(errors="replace")[:60].rpartition(":")[0]] * members.count(raw)
        return found


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """One worker's life."""
    with own_server() as server:
        life = Life(server, tmp_path_factory.mktemp("life") / "log")
        yield life
        life.end()


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the next test nothing to look through."""
    yield
    if "life" in request.fixturenames:
        redis = request.getfixturevalue("life").redis
        keep = (b"rq:worker", b"rq:clean")
        for key in list(redis.scan_iter()):
            if not key.startswith(keep):
                redis.delete(key)


def spoiling(field: str, value: bytes | None) -> Spoil:
    """Return what writes *value* over *field* of a job's hash, or removes it."""

    def spoil(pipeline: Pipeline, job: Job) -> None:
        if value is None:
            pipeline.hdel(job.key, field)
        else:
            pipeline.hset(job.key, field, value)

    return spoil


def error_of(job: Job) -> str:
    """Return the text with which *job* failed."""
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


def assert_set_aside(life: Life, queue: str, job_id: str | bytes, why: str) -> None:
    """Fail unless the id is in quarantine and nowhere else, and one line of the log says why."""
    raw = job_id.encode() if isinstance(job_id, str) else job_id
    assert life.redis.lrange(KEY.format(queue), -1, -1) == [raw]
    assert life.places(raw) == ["pysplash:quarantine"]
    held = [life.redis.smembers(key) for key in life.redis.keys("rq:worker:*:executions")]
    assert not [entry for entry in set().union(*held) if entry.startswith(raw)]
    lines = life.lines(rf"queue {queue} is set aside in {KEY.format(queue)}: .*")
    assert why in lines[-1]
    assert len(lines[-1]) < LINE


# --- fields of a job's hash ---


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("field", FATES)
def test_a_spoilt_field(life: Life, field: str, value: str) -> None:
    """It is set aside with its reason, or fails with it, or runs; on every queue."""
    aside, fails = FATES[field]
    for queue in QUEUES:
        bad = life.meets(spoiling(field, VALUES[value]), queue)

        assert not life.redis.keys(f"rq:execution*{bad.id}*")
        if value in aside:
            assert_set_aside(life, queue, bad.id, field)
            assert len(life.lines(bad.id)) == 1
            assert life.redis.hget(bad.key, "status") == b"failed"
            assert field in error_of(bad)
        elif value in fails:
            assert life.places(bad.id) == ["rq:failed"]
            assert "Error" in error_of(bad)
        else:
            assert life.places(bad.id) == ["rq:finished"]
            # RQ keeps no result for less than no time
            assert bad.return_value() == (49 if (field, value) != BELOW_ZERO else None)


def test_a_mended_job_runs(life: Life) -> None:
    """What was set aside can be mended and enqueued as the reference says."""
    queue = life.queue("low")
    bad = life.meets(spoiling("created_at", b"yesterday"), "low")
    assert_set_aside(life, "low", bad.id, "created_at")

    life.redis.hset(bad.key, "created_at", "2026-01-02T03:04:05.000006Z")
    queue.enqueue_job(Job.fetch(bad.id, life.redis))
    life.redis.lrem(KEY.format("low"), 0, bad.id)

    life.does(bad)
    assert bad.return_value(refresh=True) == 49


@pytest.mark.parametrize("function", [square, boom])
@pytest.mark.parametrize("field", OTHERS)
def test_any_other_field(life: Life, field: str, function: Callable[..., Any]) -> None:
    """Whatever is in it, the job ends up in one place, and no worker ends."""
    args = (7,) if function is square else ()
    for name, value in VALUES.items():
        if field == "repeats_left" and name in DIGITS:
            continue  # it says what it means: repeat for ever
        bad = life.meets(spoiling(field, value), QUEUES[0], function, *args)

        assert len(set(life.places(bad.id))) == 1, name
        assert not life.redis.keys(f"rq:execution*{bad.id}*"), name


class Exit:
    """Unpickled, it asks to end the process."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[int]]:
        return sys.exit, (3,)


def test_arguments_that_end_the_process(life: Life) -> None:
    """The job fails with that."""
    bad = life.meets(lambda *_: None, "low", square, Exit())

    assert life.places(bad.id) == ["rq:failed"]
    assert "SystemExit: 3" in error_of(bad)


# --- entries of a queue ---


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    "entry", [b"\xff\xfe", b"a\nb", b"", b":", b"a:b", b" ", "\u00e9".encode(), b"x" * 2**20 + b"!"]
)
def test_an_entry_that_is_no_id(life: Life, queue: str, entry: bytes) -> None:
    """It is set aside, whether or not there is a job under that key."""
    life.meets(lambda pipeline, _: pipeline.lpush(life.queue(queue).key, entry), queue)
    assert_set_aside(life, queue, entry, "it is no valid job id")

    life.redis.delete(KEY.format(queue))

    def disguise(pipeline: Pipeline, job: Job) -> None:
        pipeline.copy(job.key, b"rq:job:" + entry)  # type: ignore[arg-type]
        pipeline.lpush(life.queue(queue).key, entry)

    life.meets(disguise, queue)
    assert_set_aside(life, queue, entry, "Error: ")
    assert life.redis.hget(b"rq:job:" + entry, "status") == b"failed"


@pytest.mark.parametrize("queue", QUEUES)
def test_an_entry_that_names_no_job(life: Life, queue: str) -> None:
    """A job that is gone is skipped, with one line; many are, without a pause."""
    bad = life.meets(lambda pipeline, job: pipeline.delete(job.key), queue)
    assert life.places(bad.id) == []
    assert len(life.lines(f"{bad.id} of {queue}")) == 1

    def crowd(pipeline: Pipeline, job: Job) -> None:
        pipeline.lpush(life.queue(queue).key, *(f"{job.id}-{n}" for n in range(1000)))

    crowded = life.meets(crowd, queue)
    assert crowded.return_value() == 49
    lines = life.lines(f"{crowded.id}-")
    assert 10 <= len(lines) <= 12
    assert "and 95 more" in lines[0]


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("key", ["rq:job:{}", "rq:executions:{}"])
def test_a_key_of_a_job_is_of_the_wrong_type(life: Life, queue: str, key: str) -> None:
    """It is set aside before it is claimed.

    A batch, to which no job without a timeout belongs, looks at the first of them only.
    """

    def spoil(pipeline: Pipeline, job: Job) -> None:
        pipeline.hset(job.key, "timeout", -1)
        pipeline.delete(key.format(job.id))
        pipeline.set(key.format(job.id), "text")

    bad = life.meets(spoil, queue)
    assert_set_aside(life, queue, bad.id, "WRONGTYPE")
    assert not life.redis.keys(f"rq:execution:{bad.id}:*")


@pytest.mark.parametrize("function", [square, boom])
@pytest.mark.parametrize("key", ["rq:results:{}", "rq:job:{}:dependents", "rq:finished:low"])
def test_an_outcome_meets_a_key_of_the_wrong_type(
    life: Life, key: str, function: Callable[..., Any]
) -> None:
    """RQ stores what can be stored, after the rest of a batch; the worker goes on."""
    args = (7,) if function is square else ()
    bad = life.meets(
        lambda pipeline, job: pipeline.set(key.format(job.id), "text"), "low", function, *args
    )
    ends = (JobStatus.FINISHED, JobStatus.FAILED)
    wait_until(lambda: bad.get_status() in ends, BOUND, "the end of the bad job")
    wait_until(lambda: "rq:wip" not in life.places(bad.id), BOUND, "a closed execution")
    assert len(set(life.places(bad.id))) <= 1
    wait_until(lambda: not life.redis.keys(f"rq:execution:{bad.id}:*"), BOUND, "no record of it")


@pytest.mark.parametrize("dependents", [0, 1])
@pytest.mark.parametrize("function", [square, boom])
def test_an_outcome_that_rqs_code_cannot_store(
    life: Life, function: Callable[..., Any], dependents: int
) -> None:
    """The job is set aside with the reason; one without dependents may finish by our own code."""

    def spoil(pipeline: Pipeline, job: Job) -> None:
        pipeline.hset(job.key, "dependency_ids", "-7")
        if dependents:
            pipeline.sadd(job.dependents_key, "someone")

    args = (7,) if function is square else ()
    bad = life.meets(spoil, "low", function, *args)
    if function is square and not dependents:
        assert bad.return_value() == 49
    else:
        assert_set_aside(life, "low", bad.id, "its outcome cannot be stored (TypeError")
        assert "cannot be stored" in error_of(bad)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_queue_is_of_the_wrong_type(life: Life, queue: str) -> None:
    """The other queue is served; one line says so; mended, it is served at once."""
    before = len(life.lines(f"queue {queue} cannot be served"))
    (other,) = set(QUEUES) - {queue}
    life.redis.set(life.queue(queue).key, "text")
    for _ in range(3):
        life.does(life.queue(other).enqueue(square, 2))

    assert len(life.lines(f"queue {queue} cannot be served: WRONGTYPE")) == before + 1
    life.redis.delete(life.queue(queue).key)
    life.does(life.queue(queue).enqueue(square, 2))


def test_the_quarantine_is_of_the_wrong_type(life: Life) -> None:
    """Even then nothing ends; the line says that the id was not kept."""
    life.redis.set(KEY.format("low"), "text")
    bad = life.meets(spoiling("created_at", b"yesterday"), "low")

    assert life.redis.hget(bad.key, "status") == b"failed"
    assert "Redis refused part of this: WRONGTYPE" in life.lines(bad.id)[-1]


# --- what lies in the registries when a worker starts ---


def test_cleaning_survives_what_it_finds(redis: Redis) -> None:
    """Unreadable entries are set aside; RQ cleans the rest; the lock is not left behind."""
    queue = Queue("low", connection=redis)
    abandoned, spoilt, stranded, waiting = (queue.enqueue(square, 2) for _ in range(4))
    redis.lrem(queue.key, 0, abandoned.id)
    for job in (spoilt, stranded):
        redis.lrem(queue.key, 0, job.id)
        redis.hset(job.key, "created_at", "yesterday")
    abandoned.set_status(JobStatus.STARTED)
    overdue: dict[Any, int] = {f"{spoilt.id}:e1": 1, b"\xff:e2": 2, f"{abandoned.id}:e3": 3}
    redis.zadd("rq:wip:low", overdue)
    redis.rpush(queue.intermediate_queue_key, b"\xff\xff", stranded.id)
    redis.set("rq:failed:high", "text")
    redis.zadd("rq:ready:low", {stranded.id: 1})  # only RQ 3 looks there

    queues = [Queue("high", connection=redis), queue]
    assert Worker(queues, connection=redis).work(burst=True, logging_level="CRITICAL")

    assert waiting.return_value() == 4
    assert abandoned.get_status() is JobStatus.FAILED
    assert set(redis.lrange(KEY.format("low"), 0, -1)) == {
        spoilt.id.encode(),
        b"\xff",
        b"\xff\xff",
        stranded.id.encode(),
    }
    assert "its field created_at holds 'yesterday'" in error_of(spoilt)
    assert redis.keys("rq:wip:*") + redis.keys("rq:clean_registries:*") == []
    assert redis.lrange(queue.intermediate_queue_key, 0, -1) == []
    assert not redis.exists("rq:ready:low")


# --- commands ---

#: commands for a worker that runs nothing
HARMLESS = (
    b'{"command": "kill-horse"}',
    b'{"command": "stop-job", "job_id": "nobody"}',
)


@pytest.fixture
def alone(url: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A worker of ours as ``rq worker`` starts it, and its log."""
    log = tmp_path / "log"
    options = f"-w pysplash.Worker --quiet -n {NAME} -u"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rq.cli", "worker", *options.split(), url, *QUEUES],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=file,
        )
    yield process, log
    process.kill()
    process.wait()


def test_malformed_commands(
    alone: tuple[subprocess.Popen[bytes], Path], redis: Redis, queue: Queue
) -> None:
    """Each is ignored with one line; jobs run; a thousand later a shutdown is still obeyed."""
    process, log = alone
    channel = f"rq:pubsub:{NAME}"
    client: Any = redis
    wait_until(lambda: client.pubsub_numsub(channel)[0][1] == 1, BOUND, "a worker that listens")
    for message in (*MESSAGES, *HARMLESS):
        redis.publish(channel, message)

    def ignored() -> int:
        return log.read_text().count("is not valid: expected")

    wait_until(lambda: ignored() == len(MESSAGES), BOUND, "as many lines as messages")

    job = Queue(QUEUES[1], connection=redis).enqueue(square, 3)
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, BOUND, "the next good job")
    assert process.poll() is None
    for _ in range(1000):
        redis.publish(channel, b"nonsense")
    redis.publish(channel, '{"command": "shutdown"}')
    assert process.wait(BOUND) == 0
    assert ignored() == len(MESSAGES) + 1000
    assert max(map(len, log.read_text().splitlines())) < LINE


# --- RQ's own ---


def test_rqs_own_worker_ends(redis: Redis, queue: Queue) -> None:
    """The table is telling: one spoilt field ends RQ's worker, and the good job stays."""
    bad, good = queue.enqueue(square, 2), queue.enqueue(square, 3)
    redis.hset(bad.key, "created_at", "yesterday")

    worker: Any = Reference([queue], connection=redis)
    worker.work(burst=True, logging_level="CRITICAL")

    assert good.get_status() is JobStatus.QUEUED
