"""Servers and access lists that refuse commands: another way is taken, and nothing is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError
from rq import Queue
from rq.job import Job

from pysplash.config import WorkerSettings
from pysplash.connections.abilities import abilities_of, check_abilities
from pysplash.connections.clients import from_url, portable
from pysplash.connections.direct import DirectConnection, Word
from pysplash.control.model import WorkerState
from pysplash.errors import ConnectionFailed
from pysplash.jobs.claim_named import words as named_words
from pysplash.jobs.store_and_claim import NOTHING, SCRIPT, Answer, Finish, Turn
from pysplash.jobs.store_and_claim_batch import BatchRequest
from pysplash.supervisor.queue_watch import QueueWatch
from pysplash.supervisor.settlement import Loss, Settlement
from pysplash.worker.batch_claims import BatchingClaims
from pysplash.worker.notices import LONGEST_PAUSE, SHORTEST_PAUSE, Notices, pause_after
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.script_connection import ScriptConnection
from pysplash.worker.worker import Worker
from tests.integration.refusing import add_user
from tests.integration.rq_life import aside, square
from tests.waiting import wait_until

QUEUES = ["high", "low"]


def refused(redis: Redis, user: str) -> Redis:
    """Return a client of the same server as *user*."""
    return from_url(add_user(redis, user))


def claims_of(client: Redis) -> BatchingClaims:
    """Return the claims of a worker that meets no absent server."""

    def away(error: Exception, pause: float) -> float:
        raise error

    return BatchingClaims(client, "w", idle_ttl=480, leaving=lambda: False, away=away)


@pytest.mark.parametrize(
    ("user", "tracking", "closing"),
    [("no_tracking", False, True), ("no_client", False, False), ("no_closing", True, False)],
)
def test_what_is_allowed_is_found_out(
    redis: Redis, user: str, tracking: bool, closing: bool
) -> None:
    """By trying; a user who may do everything is told of changes and closes connections."""
    everything, some = abilities_of(redis, "w"), abilities_of(refused(redis, user), "w")

    assert (everything.tracking, everything.closing) == (True, True)
    assert (some.tracking, some.closing) == (tracking, closing)


def test_a_server_without_scripts_is_named(redis: Redis) -> None:
    """One line says what is missing; a worker alone runs its jobs in RQ's way."""
    client, queue = refused(redis, "no_scripts"), Queue("high", connection=redis)
    with pytest.raises(ConnectionFailed, match="has no scripts"):
        check_abilities(client)
    job = queue.enqueue(square, 3)
    Worker([Queue("high", connection=client)], connection=client).work(burst=True)
    assert job.return_value() == 9
    check_abilities(redis)


def test_keys_that_are_refused_are_named(redis: Redis) -> None:
    """A user who may use RQ's keys alone is told which others are needed."""
    redis.execute_command("ACL", "SETUSER", "rq_only", "on", ">secret", "~rq:*", "&*", "+@all")
    path = redis.connection_pool.connection_kwargs["path"]
    with pytest.raises(ConnectionFailed, match=r"refuses keys .* allow the user rq:\* and pyspl"):
        check_abilities(from_url(f"unix://rq_only:secret@{path}"))


@pytest.mark.parametrize("user", ["no_tracking", "no_client", "no_closing"])
def test_a_worker_runs_its_jobs(redis: Redis, user: str) -> None:
    """One by one and in batches, with RQ's connection named or not."""
    client = refused(redis, user)
    jobs = [Queue("high", connection=redis).enqueue(square, number) for number in range(40)]
    with contextlib.closing(Scoreboard(1)) as board:
        worker = Worker([Queue("high", connection=client)], connection=client)
        worker.slot = Slot(board, 0, worker.name)
        worker.work(burst=False, max_jobs=40)
    assert [job.return_value() for job in jobs] == [number**2 for number in range(40)]


# --- connections that are lost ---


def a_claim(connection: ScriptConnection, execution: str) -> tuple[Word, ...]:
    """Return the words of a turn that claims."""
    head = ("w", 1.0, "2026-12-01T00:00:00.000000Z", 30, 480, 0)
    words: tuple[Word, ...] = (*head, 0, 0.0, *NOTHING, execution, *QUEUES)
    return (*connection.run(SCRIPT), *words)


def late(client: Redis, words: tuple[Word, ...]) -> object:
    """Have the server read *words* only now; return the reply, or the error."""
    connection = DirectConnection(client)
    connection.connect()
    try:
        return connection.call(*words)
    except ResponseError as error:
        return error
    finally:
        connection.close()


@pytest.mark.parametrize("user", ["no_client", "no_closing"])
def test_a_lost_connection_claims_no_more(redis: Redis, user: str) -> None:
    """Where the server closes none, what was sent over a lost one does nothing once it is read."""
    client = refused(redis, user)
    job = Queue("high", connection=redis).enqueue(square, 2)
    connection = ScriptConnection(client, "w")
    connection.connect()
    sent = a_claim(connection, "lost")
    connection.connect()

    assert "declared lost" in str(late(client, sent))
    assert redis.llen("rq:queue:high") == 1
    reply = connection.call(*a_claim(connection, "fine"))
    assert reply[2] == job.id.encode()
    connection.close()


@pytest.mark.parametrize("user", ["no_client", "no_closing"])
def test_a_dead_worker_claims_no_more(redis: Redis, user: str) -> None:
    """What a dead worker had sent does nothing once its pool has settled it."""
    client = refused(redis, user)
    Queue("high", connection=redis).enqueue(square, 2)
    connection = ScriptConnection(client, "w")
    connection.connect()
    sent = a_claim(connection, "lost")
    settings = WorkerSettings(("high",), portable(client))
    Settlement(client, settings, "fail").settle(Loss("w", "", "", "killed by SIGKILL"))

    assert "declared lost" in str(late(client, sent))
    assert redis.llen("rq:queue:high") == 1
    connection.close()


# --- scripts that the server has forgotten ---


@pytest.fixture
def claims(redis: Redis) -> Iterator[BatchingClaims]:
    """Claims whose scripts are loaded."""
    claims = claims_of(redis)
    assert claims.take(None, QUEUES).answer is Answer.EMPTY
    yield claims
    claims.close()


def outcome(claims: BatchingClaims, turn: Turn) -> Finish:
    """Return what the claimed job of *turn* left."""
    at = "2026-12-01T00:00:00.000000Z"
    execution = turn.execution or claims.execution
    return Finish(turn.job_id.decode(), execution, "high", 500, at, at, b"", "1.0", "2.0", "")


def finished(job: Job) -> bool:
    """Return whether *job* is stored as finished, once."""
    return job.get_status() == "finished" and len(job.results()) == 1


def test_a_forgotten_script_is_loaded_again(redis: Redis, claims: BatchingClaims) -> None:
    """SCRIPT FLUSH before each turn: each outcome is stored once, each job claimed once."""
    queue = Queue("high", connection=redis)
    first, second, third = (queue.enqueue(square, number) for number in range(3))
    redis.script_flush()
    turn = claims.take(None, QUEUES)
    redis.script_flush()
    turn = claims.take(outcome(claims, turn), QUEUES)
    assert turn.job_id.decode() == second.id
    redis.script_flush()
    named = named_words("keeper", 1, f"keeper:{claims.execution}", "w", QUEUES, [third.id])
    found = claims.take_named(outcome(claims, turn), named, 0.1)
    assert found.turn.job_id.decode() == third.id
    redis.script_flush()
    assert claims.take(outcome(claims, found.turn), QUEUES).answer is Answer.EMPTY
    assert all(finished(job) for job in (first, second, third))


def test_a_batch_is_asked_for_again(redis: Redis, claims: BatchingClaims) -> None:
    """SCRIPT FLUSH while a batch is under way, and before one that finds nothing."""
    queue = Queue("high", connection=redis)
    jobs = [queue.enqueue(square, number) for number in range(4)]
    claims.send(BatchRequest(wanted=4, share=1, queues=QUEUES))
    reply = claims.gather()
    assert reply is not None
    assert len(reply.jobs) == 4
    done = [outcome(claims, turn) for turn in reply.jobs]
    redis.script_flush()
    claims.send(BatchRequest(done, "1111", 0.1, wanted=4, share=1, queues=QUEUES))
    reply = claims.gather()
    assert reply is not None
    assert not reply.jobs
    redis.script_flush()
    claims.send(BatchRequest(present="x:y", wanted=4, share=1, queues=QUEUES))
    assert claims.gather() is not None
    assert all(finished(job) for job in jobs)


# --- where the server tells of nothing ---


def test_a_pause_follows_what_came() -> None:
    """Short after a job, never longer than a fifth of a second."""
    assert pause_after(0.0) == SHORTEST_PAUSE
    assert pause_after(2.0) == pytest.approx(0.1)
    assert pause_after(3600.0) == LONGEST_PAUSE


def test_a_notice_is_taken_once() -> None:
    """As many are there as were sent last, each for one worker."""
    with contextlib.closing(Notices()) as notices:
        inherited = Notices(notices.fileno())
        assert not inherited.take()
        notices.send(5)
        notices.send(2)
        assert [inherited.take() for _ in range(3)] == [True, True, False]


def test_the_pool_looks_for_its_idle_workers(redis: Redis) -> None:
    """A notice for each job, no more than idle workers; none while RQ is suspended."""
    with contextlib.closing(Scoreboard(3)) as board:
        for index in range(2):
            Slot(board, index, f"w{index}").idle()
        now = [100.0]
        watch = QueueWatch(redis, QUEUES, board, clock=lambda: now[0])
        now[0] += 60.0
        assert watch.look() == LONGEST_PAUSE
        redis.rpush("rq:queue:low", "a")
        assert watch.look() == SHORTEST_PAUSE
        assert [board.notices.take() for _ in range(2)] == [True, False]
        redis.rpush("rq:queue:high", "b", "c", "d")
        watch.look()
        assert [board.notices.take() for _ in range(3)] == [True, True, False]
        redis.set("rq:suspended", 1)
        watch.look()
        assert not board.notices.take()
        redis.delete("rq:suspended")
        for index in range(2):
            Slot(board, index, f"w{index}").claimed("job", 10.0)
        watch.look()
        assert not board.notices.take()
        assert board.read(0) is not None
        assert board.read(0).state is WorkerState.BUSY  # type: ignore[union-attr]


def test_a_worker_alone_looks_by_itself(redis: Redis) -> None:
    """Without a pool, the first job of an idle worker waits some milliseconds, not ten seconds."""
    client, queue = refused(redis, "no_tracking"), Queue("high", connection=redis)
    worker = Worker([Queue("high", connection=client)], connection=client)

    def enqueue() -> Job:
        key = f"rq:worker:{worker.name}"
        wait_until(lambda: redis.hget(key, "state") == b"idle", 10.0, "an idle worker")
        return queue.enqueue(square, 3)

    coming = aside(enqueue)
    worker.work(max_jobs=1)
    job = coming.result()
    job.refresh()
    assert job.started_at is not None
    assert job.enqueued_at is not None
    assert (job.started_at - job.enqueued_at).total_seconds() < 5.0


def test_users_are_refused_what_they_are_to_be(redis: Redis) -> None:
    """The users of these tests are."""
    for user, words in {
        "no_tracking": ("CLIENT", "TRACKING", "ON"),
        "no_client": ("CLIENT", "ID"),
        "no_closing": ("CLIENT", "KILL", "ID", "1"),
        "no_scripts": ("EVAL", "return 1", "0"),
    }.items():
        with pytest.raises(NoPermissionError):
            refused(redis, user).execute_command(*words)
