"""Prefetching on a real server: what is fetched early is begun in its turn, or goes back."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry, get_current_job
from rq.job import Job, JobStatus

from pysplash import wait_jobs
from pysplash.config import WorkerSettings
from pysplash.connections.clients import portable
from pysplash.connections.outage import WritesRefused
from pysplash.jobs.quarantine import clean
from pysplash.jobs.store_and_claim_batch import HAND
from pysplash.supervisor.heartbeats import Heartbeats, Pulse
from pysplash.supervisor.settlement import Loss, Settlement, legible
from pysplash.waiting.offer import at_hand
from pysplash.worker.nesting import Nest
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.timeouts import Timers
from pysplash.worker.worker import Worker
from tests.generation import RQ_3, at_work_on
from tests.servers import refuses_scripts
from tests.waiting import wait_until

NAME = "early"


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    """Workers take the process's handlers; give them back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def worker(queue: Queue) -> Iterator[Worker]:
    """Return a worker of a pool that takes every job for a brief one, and has all the patience.

    It claims one job ahead where few wait.
    """
    board = Scoreboard(1)
    worker = Worker([queue], name=NAME, connection=queue.connection)
    worker.slot = Slot(board, 0, NAME)
    worker._turns.brevity.streak = 0
    worker._turns.put_back_after, worker._turns.store_after, worker._turns.assume_many = (
        60.0,
        60.0,
        True,
    )
    yield worker
    board.close()


def work(worker: Worker) -> None:
    """Do all there is."""
    worker.work(burst=True, logging_level="CRITICAL")


def present() -> Job:
    """Return the job that runs."""
    job = get_current_job()
    assert job is not None
    return job


def present_worker() -> Worker:
    """Return the worker that runs this job."""
    nest = at_hand()
    assert isinstance(nest, Nest)
    assert isinstance(nest._worker, Worker)
    return nest._worker


def told(redis: Redis) -> list[str]:
    """Return what the worker says it has in hand, as "job:execution"; first the one that runs."""
    entries: Any = redis.hget(f"rq:worker:{NAME}", HAND)
    return (entries or b"").decode().split()


def pair_of(entry: str) -> tuple[str, str]:
    """Return job and execution of an entry."""
    job_id, _, execution_id = entry.rpartition(":")
    return job_id, execution_id


def in_hand(redis: Redis) -> list[str]:
    """Return the ids of the jobs that the worker has claimed and not begun."""
    return [entry.rpartition(":")[0] for entry in told(redis)[1:]]


def await_in_hand(redis: Redis, job_id: str) -> None:
    """Wait until the worker has claimed that job."""
    wait_until(lambda: in_hand(redis)[-1:] == [job_id], 30, "the next job in hand")


def look(other: str) -> tuple[str, str, list[str], int]:
    """Say how it stands with the next job while this one runs."""
    redis = present().connection
    await_in_hand(redis, other)
    queue = Queue("default", connection=redis)
    job = Job.fetch(other, redis)
    registry = queue.started_job_registry
    status = present().get_status(), job.get_status()
    return (*(str(it.value) for it in status if it), queue.job_ids, registry.get_job_count(False))


def test_the_next_job_is_in_hand(queue: Queue, worker: Worker) -> None:
    """It is on no queue, and registered as started, from one instant to the other."""
    first = queue.enqueue(look, "b")
    second = queue.enqueue(math.sqrt, 49, job_id="b")
    work(worker)

    assert first.return_value() == ("started", "started", [], 2)
    assert second.return_value() == 7
    assert left_behind(queue.connection) == []
    assert queue.connection.hget(worker.key, "successful_job_count") == b"2"


def left_behind(redis: Redis) -> list[object]:
    """Return what no ended job may leave, and what a worker holds."""
    kinds = ("execution", "executions", "wip")
    keys = [key for kind in kinds for key in redis.keys(f"rq:{kind}:*")]
    return [*keys, *in_hand(redis)]


def see_it_back(other: str, how: str) -> bool:
    """Wait until the next job is back on its queue."""
    redis = present().connection
    queue = Queue("default", connection=redis)
    wait_until(lambda: queue.job_ids[:1] == [other], 30, how)
    return not in_hand(redis)


def test_what_takes_longer_keeps_nobody_waiting(queue: Queue, worker: Worker) -> None:
    """A function that was brief and now is not: what was fetched beside it goes back, in front."""
    worker._turns.put_back_after = worker._turns.store_after = 0.01
    first = queue.enqueue(see_it_back, "b", "back in time", job_timeout=30)
    others = [queue.enqueue(math.sqrt, 49, job_id=name) for name in "bc"]
    work(worker)

    assert first.return_value() is True
    assert [job.return_value() for job in others] == [7, 7]
    assert left_behind(queue.connection) == []


def wait_for(other: str) -> int:
    """Wait for the next job."""
    wanted = [Job.fetch(other, present().connection)]
    found = wait_jobs(wanted, max_wait=30, collect_results=True)
    return int(found[0]) if isinstance(found, list) else -1


def test_a_job_may_wait_for_the_next_one(queue: Queue, worker: Worker) -> None:
    """What a job waits for is given back first, whatever the patience, and is run within it."""
    first = queue.enqueue(wait_for, "b")
    queue.enqueue(math.sqrt, 49, job_id="b")
    third = queue.enqueue(math.sqrt, 64)
    work(worker)

    assert (first.return_value(), third.return_value()) == (7, 8)
    assert left_behind(queue.connection) == []


def stop_me(other: str) -> str:
    """Ask this worker to leave once it has the next job in hand."""
    await_in_hand(present().connection, other)
    os.kill(os.getpid(), signal.SIGTERM)
    return "done"


def test_who_leaves_gives_back(queue: Queue, worker: Worker) -> None:
    """A warm stop: the present job is stored, the next is in front of its queue again."""
    first = queue.enqueue(stop_me, "b")
    for name in "bc":
        queue.enqueue(math.sqrt, 49, job_id=name)
    work(worker)

    assert first.return_value() == "done"
    assert queue.job_ids == ["b", "c"]
    assert Job.fetch("b", queue.connection).get_status() is JobStatus.QUEUED
    assert left_behind(queue.connection) == []


def cut_off(other: str, early: bool) -> str:
    """Lose the worker's connection: *early*, before it has read what the server answered."""
    redis = present().connection
    if other:
        await_in_hand(redis, other)
    if early:
        present_worker()._claims._connection.close()
    for client in redis.client_list():
        if client["name"] == NAME:
            redis.client_kill_filter(_id=client["id"])
    return "cut"


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_lost_connection_loses_and_doubles_nothing(
    queue: Queue, worker: Worker, place: int, early: bool
) -> None:
    """Outcome and claim were under way; both are found out about."""
    jobs = []
    for number in range(7):
        if number == place:
            jobs.append(queue.enqueue(cut_off, f"a{number + 1}" if number < 6 else "", early))
        else:
            jobs.append(queue.enqueue(math.sqrt, 49, job_id=f"a{number}"))
    work(worker)

    assert [job.return_value() for job in jobs] == [*[7] * place, "cut", *[7] * (6 - place)]
    assert {len(job.results()) for job in jobs} == {1}
    assert left_behind(queue.connection) == []


def refuse() -> str:
    """Let the server take nothing in any more."""
    redis = present().connection
    redis.config_set("min-replicas-to-write", 1)
    if not refuses_scripts(redis):
        redis.config_set("min-replicas-to-write", 0)
        return "taken in"
    return "refused"


def test_a_refused_batch_is_asked_for_again(
    queue: Queue, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the reply to what was refused, which has come; nothing is lost."""
    met: list[type[Exception]] = []
    away = worker._redis_is_away

    def accept(error: Exception, pause: float = 0.0) -> float:
        met.append(type(error))
        worker.connection.config_set("min-replicas-to-write", 0)
        return away(error, pause)

    monkeypatch.setattr(worker._claims, "_away", accept)
    jobs = [queue.enqueue(refuse if number == 3 else os.getpid) for number in range(7)]
    work(worker)

    # Redis 6.2 lets scripts write however few replicas it has
    assert met == [WritesRefused] * (jobs[3].return_value() == "refused")
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 7
    assert {len(job.results()) for job in jobs} == {1}
    assert left_behind(queue.connection) == []


def test_what_is_kept_for_ever_does_not_expire(queue: Queue, greedy: Worker) -> None:
    """Whatever time to live the job's key was given while it waited."""
    jobs = [queue.enqueue(math.sqrt, 49, result_ttl=-1) for _ in range(12)]
    for job in jobs:
        queue.connection.expire(job.key, 60)
    work(greedy)

    assert [job.return_value() for job in jobs] == [7] * 12
    assert [queue.connection.ttl(job.key) for job in jobs] == [-1] * 12


def delete(other: str) -> None:
    """Delete the next job when it is in hand."""
    redis = present().connection
    await_in_hand(redis, other)
    Job.fetch(other, redis).delete()


def test_what_is_deleted_stays_deleted(queue: Queue, worker: Worker) -> None:
    """A job that is deleted while it is in hand is not brought back by its run."""
    queue.enqueue(delete, "deleted")
    queue.enqueue(math.sqrt, 49, job_id="deleted")
    last = queue.enqueue(math.sqrt, 64)
    work(worker)

    assert last.return_value() == 8
    assert queue.connection.keys("rq:*:deleted*") == []
    assert left_behind(queue.connection) == []


def test_what_cannot_be_read_is_passed_over(queue: Queue, worker: Worker) -> None:
    """An id without a job, and a job that makes no sense, cost nothing but themselves."""
    redis = queue.connection
    first = queue.enqueue(math.sqrt, 36)
    redis.rpush(queue.key, "ghost", "text")
    redis.set("rq:job:text", "no hash")
    spoilt = queue.enqueue(math.sqrt, 49)
    redis.hset(spoilt.key, "created_at", "yesterday")
    last = queue.enqueue(math.sqrt, 64)
    work(worker)

    assert (first.return_value(), last.return_value()) == (6, 8)
    assert redis.hget(spoilt.key, "status") == b"failed"
    assert sorted(redis.lrange("pysplash:quarantine:default", 0, -1)) == sorted(
        [spoilt.id.encode(), b"text"]
    )
    assert left_behind(redis) == []


def spoil(other: str) -> None:
    """Leave no room for this job's result when the next job is in hand."""
    redis = present().connection
    await_in_hand(redis, other)
    redis.set(f"rq:results:{present().id}", "a text")


def as_told() -> list[str]:
    """Wait until Redis has this job as what runs; return what is in hand then."""
    redis, job_id = present().connection, present().id
    wait_until(lambda: told(redis)[:1] and told(redis)[0].startswith(job_id), 30, "this one runs")
    return in_hand(redis)


def test_an_outcome_that_cannot_be_stored_hides_nothing(queue: Queue, worker: Worker) -> None:
    """The script that fails to store it has said all the same what has begun."""
    queue.enqueue(spoil, "next", job_id="spoilt")
    following = queue.enqueue(as_told, job_id="next")
    last = queue.enqueue(math.sqrt, 64)
    work(worker)

    assert following.return_value() == [last.id]
    assert last.return_value() == 8
    assert left_behind(queue.connection) == []


def suspend(other: str) -> None:
    """Suspend RQ when the next job is in hand."""
    redis = present().connection
    await_in_hand(redis, other)
    redis.set("rq:suspended", 1)


def test_nothing_is_fetched_while_rq_is_suspended(queue: Queue, worker: Worker) -> None:
    """Only what is in hand already is run."""
    queue.enqueue(suspend, "b")
    jobs = [queue.enqueue(math.sqrt, 49, job_id=name) for name in "bc"]
    work(worker)

    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED, JobStatus.QUEUED]
    assert queue.job_ids == ["c"]


def test_a_very_long_id_is_left_for_its_turn(queue: Queue, worker: Worker) -> None:
    """The scoreboard has no room for it, so nobody could say that it had begun."""
    redis, name = queue.connection, "x" * 300
    first = queue.enqueue(waits_for_nothing, name)
    queue.enqueue(math.sqrt, 49, job_id=name)
    work(worker)

    assert first.return_value() == [name]
    assert Job.fetch(name, redis).return_value() == 7


def waits_for_nothing(_other: str) -> list[str]:
    """Return what waits once the worker has looked for its next job."""
    redis = present().connection
    wait_until(lambda: bool(told(redis)), 30)
    return Queue("default", connection=redis).job_ids


def waiting(expected: int) -> int:
    """Return how many jobs wait, once they are as many as expected."""
    queue = Queue("default", connection=present().connection)
    wait_until(lambda: len(queue) <= expected, 30)
    return len(queue)


def test_a_function_must_have_been_brief(queue: Queue, worker: Worker) -> None:
    """Until it was so eight times in a row, each job is claimed when the one before is done."""
    brevity = worker._turns.brevity
    brevity.streak, brevity.brief_seconds = 8, 60.0
    expected = [11 - number if number < 8 else max(0, 10 - number) for number in range(12)]
    jobs = [queue.enqueue(waiting, number) for number in expected]
    work(worker)

    assert [job.return_value() for job in jobs] == expected


def test_the_first_after_a_rest_is_alone(queue: Queue, worker: Worker) -> None:
    """Beside it nothing is fetched, so nothing keeps its result from being stored; then it is."""
    worker._turns.assume_many = False
    jobs = [queue.enqueue(waiting, expected) for expected in (2, 0, 0)]
    work(worker)

    assert [job.return_value() for job in jobs] == [2, 0, 0]


def see_all() -> tuple[int, int]:
    """Return how many jobs are in hand beside this one, and how many wait."""
    redis = present().connection
    return len(in_hand(redis)), len(Queue("default", connection=redis))


def test_a_handful_is_taken_at_once(queue: Queue, worker: Worker) -> None:
    """So many very brief jobs, however few wait, once they come in a crowd; of longer ones, one."""
    turns = worker._turns
    turns.assume_many, turns.brevity.handful_seconds = False, 60.0
    jobs = [queue.enqueue(see_all) for _ in range(5)]
    work(worker)
    assert [job.return_value() for job in jobs[:3]] == [(0, 4), (0, 3), (2, 0)]
    jobs = [queue.enqueue(see_all) for _ in range(5)]
    work(worker)
    assert jobs[0].return_value() == (4, 0)
    turns.brevity.handful_seconds = 0.0
    jobs = [queue.enqueue(see_all) for _ in range(5)]
    work(worker)
    assert jobs[0].return_value() == (0, 4)
    assert left_behind(queue.connection) == []


def test_a_job_without_a_timeout_is_never_brief(queue: Queue, worker: Worker) -> None:
    """Nothing would ring to give the next one back."""
    first = queue.enqueue(waiting, 1, job_timeout=-1)
    queue.enqueue(math.sqrt, 49)
    work(worker)

    assert first.return_value() == 1


# --- several at once ---


@pytest.fixture
def greedy(worker: Worker) -> Worker:
    """Return a worker that claims whatever waits, eight at a time."""
    worker._turns.least = 8
    worker._turns.share = 1
    return worker


def see(other: str) -> tuple[list[str], list[str], int]:
    """Return what is in hand once *other* is, what is on the queue, and how many have finished."""
    redis = present().connection
    await_in_hand(redis, other)
    queue = Queue("default", connection=redis)
    return in_hand(redis), queue.job_ids, len(queue.finished_job_registry.get_job_ids())


def test_a_batch_is_claimed_while_another_runs(queue: Queue, greedy: Worker) -> None:
    """The first of a batch begins: those behind it, and the next eight, are in hand in order."""
    names = [f"a{number:02}" for number in range(20)]
    jobs = [queue.enqueue(see, names[last], job_id=names[last // 16]) for last in (8, 16)]
    jobs += [queue.enqueue(math.sqrt, 49, job_id=name) for name in names[2:]]
    work(greedy)

    assert jobs[0].return_value() == (names[1:9], names[9:], 0)
    assert jobs[1].return_value() == (names[2:17], names[17:], 1)
    assert [job.return_value() for job in jobs[2:]] == [7.0] * 18
    assert [len(job.results()) for job in jobs] == [1] * 20
    assert left_behind(queue.connection) == []
    assert queue.connection.hget(greedy.key, "successful_job_count") == b"20"


def test_no_more_than_a_part_is_claimed(queue: Queue, worker: Worker) -> None:
    """The others are for other workers; so a batch gets smaller towards the end."""
    worker._turns.least = 8
    first = queue.enqueue(see, "a2", job_id="a")
    for number in range(12):
        queue.enqueue(math.sqrt, 49, job_id=f"a{number}")
    work(worker)

    assert first.return_value() == (["a0", "a1", "a2"], [f"a{n}" for n in range(3, 12)], 0)


def put_back_by(other: str, how: str) -> list[str]:
    """Be no brief job, in the way that is named; return what waits then."""
    redis = present().connection
    await_in_hand(redis, other)
    queue = Queue("default", connection=redis)
    if how == "wait":
        wait_jobs([Job.fetch(other, redis)], max_wait=30)
        return queue.job_ids
    if how == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
        return []
    wait_until(lambda: len(queue) == 5, 30, "all back")
    return queue.job_ids


@pytest.mark.parametrize("how", ["last", "wait", "stop"])
def test_a_batch_goes_back_in_order(queue: Queue, greedy: Worker, how: str) -> None:
    """What is put back looks as it did before it was claimed, and waits in its old order."""
    names = [f"a{number}" for number in range(5)]
    greedy._turns.put_back_after, greedy._turns.store_after = (
        (0.02, 0.001) if how == "last" else (60.0, 60.0)
    )
    first = queue.enqueue(put_back_by, names[-1], how, job_timeout=30)
    for name in names:
        queue.enqueue(math.sqrt, 49, job_id=name)
    before = [queue.connection.hgetall(f"rq:job:{name}") for name in names]
    work(greedy)

    expected = {"last": names, "wait": names[:-1], "stop": []}
    assert first.return_value() == expected[how]
    if how == "stop":
        assert queue.job_ids == names
        assert [queue.connection.hgetall(f"rq:job:{name}") for name in names] == before
    assert left_behind(queue.connection) == []


def finished(expected: int, deaf: bool) -> int:
    """Return how many jobs have finished, once they are as many as expected.

    A *deaf* job hears no timer.
    """
    registry = Queue("default", connection=present().connection).finished_job_registry
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM} if deaf else ())
    try:
        wait_until(lambda: registry.get_job_count(False) >= expected, 30, f"{expected} results")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)
    return int(registry.get_job_count(False))


@pytest.mark.parametrize("deaf", [True, False])
def test_no_result_waits_for_the_rest_of_its_batch(
    queue: Queue, greedy: Worker, deaf: bool
) -> None:
    """It is stored when the next job begins, or, if that takes long, while it runs."""
    greedy._turns.store_after = 0.0 if deaf else 0.005
    jobs = [queue.enqueue(finished, number, deaf) for number in range(8)]
    work(greedy)

    assert [job.return_value() for job in jobs] == [*range(8)]


def test_a_callback_after_its_job_sets_no_timer() -> None:
    """It may ring while the last timeout is taken away: nobody would hear the next ring."""
    timers = Timers()

    def again() -> None:
        timers.callback = (1e9, again)

    try:
        timers.callback = (0.0, again)
        timers.ring(signal.SIGALRM, None)
        assert timers.callback == (1e9, again)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) != timers.ring
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_another_function_ends_a_batch(queue: Queue, greedy: Worker) -> None:
    """It is on record when it begins, what was behind it waits again, what was before is stored."""
    greedy._turns.brevity.streak = 1
    greedy._turns.brevity.streaks["math.sqrt"] = 1
    for name in "ab":
        queue.enqueue(math.sqrt, 49, job_id=name)
    other = queue.enqueue(on_record)
    for name in "cd":
        queue.enqueue(math.sqrt, 49, job_id=name)
    work(greedy)

    assert other.return_value() == (1, ["c", "d"], 2)
    assert all(Job.fetch(name, queue.connection).return_value() == 7 for name in "abcd")
    assert left_behind(queue.connection) == []


def on_record() -> tuple[int, list[str], int]:
    """Return how many executions of this job there are, what waits, and how many are done."""
    queue = Queue("default", connection=present().connection)
    done = queue.finished_job_registry.get_job_count(False)
    return len(present().get_executions()), queue.job_ids, done


def cancel(other: str) -> None:
    """Cancel a job that is in hand."""
    redis = present().connection
    await_in_hand(redis, other)
    Job.fetch(other, redis).cancel()


def test_what_is_cancelled_in_hand_leaves_no_result(queue: Queue, greedy: Worker) -> None:
    """Who settles a job before its outcome is stored is right."""
    first = queue.enqueue(cancel, "b")
    second = queue.enqueue(math.sqrt, 49, job_id="b")
    work(greedy)

    assert first.get_status() is JobStatus.FINISHED
    assert second.get_status() is JobStatus.CANCELED
    assert second.results() == []
    assert left_behind(queue.connection) == []


def test_what_is_special_comes_in_its_turn(queue: Queue, greedy: Worker) -> None:
    """A batch holds plain jobs only; order is kept."""
    redis, order = queue.connection, []
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {},
        {"retry": Retry(max=1)},
        {"meta": {"a": 1}},
        {},
        {"job_timeout": -1},
        {},
    )
    for number, kind in enumerate(kinds):
        order.append(queue.enqueue(note, number, **kind))
    work(greedy)

    # those that follow a rest or one without a timeout are claimed alone
    assert [job.return_value() for job in order] == [1, 0, 1, 1, 0, 1, 1]
    assert redis.lrange("noted", 0, -1) == [b"%d" % number for number in range(7)]
    assert left_behind(redis) == []


def note(number: int) -> int:
    """Note that this one ran; return how many executions of it are on record."""
    present().connection.rpush("noted", number)
    return len(present().get_executions())


def large(size: int) -> str:
    """Return much."""
    return os.urandom(size // 2).hex()


def test_results_that_find_no_room_are_stored(queue: Queue, greedy: Worker) -> None:
    """The memory for outcomes is small: what does not fit goes to Redis at once."""
    jobs = [queue.enqueue(large, size) for size in (9000, 9000, 9000, 9000, 90_000, 10, 9000)]
    work(greedy)

    lengths = [len(job.return_value() or "") for job in jobs]
    assert lengths == [9000, 9000, 9000, 9000, 90_000, 10, 9000]
    assert left_behind(queue.connection) == []


# --- the worker dies ---

#: what was seen inside a job that looks on as others settle its worker
seen: list[object] = []


def die(other: str, begun: bool, known: bool = True) -> None:
    """Be settled as a worker that died while it ran this job, or had begun the next one.

    Where nothing is *known*, the worker was killed before it could write its row.
    """
    redis, me = present().connection, present()
    await_in_hand(redis, other)
    (mine,) = (it.id for it in me.get_executions())
    pair = pair_of(told(redis)[1]) if begun else (me.id, mine) if known else ("", "")
    loss = Loss(NAME, *pair, "killed")
    settlement = Settlement(redis, WorkerSettings(("default",), portable(redis)), "fail")
    queue = Queue("default", connection=redis)
    seen[:] = [settlement.settle(loss), me.get_status(), Job.fetch(other, redis).get_status()]
    seen.append(queue.job_ids)


@pytest.mark.parametrize("known", [True, False])
def test_what_a_dead_worker_had_not_begun_is_returned(
    queue: Queue, worker: Worker, known: bool
) -> None:
    """The job it ran fails; the one it had in hand waits in front."""
    queue.enqueue(die, "b", begun=False, known=known)
    for name in "bc":
        queue.enqueue(math.sqrt, 49, job_id=name)
    work(worker)

    assert seen == ["failed", JobStatus.FAILED, JobStatus.QUEUED, ["b", "c"]]


def test_what_a_dead_worker_had_begun_is_not_run_again(queue: Queue, worker: Worker) -> None:
    """Its row says that the next job has begun, Redis had not heard yet: then it has."""
    queue.enqueue(die, "b", begun=True)
    for name in "bc":
        queue.enqueue(math.sqrt, 49, job_id=name)
    work(worker)

    assert seen[2:] == [JobStatus.FAILED, ["c"]]


def depended_on() -> str:
    """Have another job depend on this one as it runs."""
    job = present()
    Queue("default", connection=job.connection).enqueue(math.sqrt, 49, depends_on=job)
    return "depended on"


def die_early(before: str) -> None:
    """Be settled as a worker that died before it could store what the job before has returned."""
    redis, me, worker = present().connection, present(), present_worker()
    assert worker.slot is not None
    wait_until(lambda: told(redis)[0].startswith(me.id), 30)
    outcomes = legible(worker.slot.journal.read())
    settlement = Settlement(redis, WorkerSettings(("default",), portable(redis)), "fail")
    loss = Loss(NAME, *pair_of(told(redis)[0]), "killed", outcomes=outcomes)
    seen[:] = [settlement.settle(loss), Job.fetch(before, redis).return_value()]


def test_what_a_dead_worker_could_not_store_is_stored(queue: Queue, worker: Worker) -> None:
    """Others came to depend on it, so it was for RQ to store, after the job that ran meanwhile."""
    queue.enqueue(depended_on, job_id="a")
    queue.enqueue(die_early, "a")
    work(worker)

    assert seen == ["failed", "depended on"]
    assert len(queue.finished_job_registry.get_job_ids(cleanup=False)) == 2
    assert left_behind(queue.connection) == []


def die_late(done: int) -> None:
    """Be settled as a worker that died in a batch, with outcomes that were not stored yet."""
    redis, me, worker = present().connection, present(), present_worker()
    assert worker.slot is not None
    entry = next(entry for entry in told(redis) if entry.startswith(me.id))
    outcomes = legible(worker.slot.journal.read())
    settlement = Settlement(redis, WorkerSettings(("default",), portable(redis)), "fail")
    loss = Loss(NAME, *pair_of(entry), "killed", outcomes=outcomes)
    registry = Queue("default", connection=redis).finished_job_registry
    seen[:] = [len(registry.get_job_ids()), settlement.settle(loss), len(registry.get_job_ids())]
    seen.extend([me.get_status(), queue_of(redis), redis.keys("rq:wip:*")])


def test_a_dead_worker_keeps_no_result(queue: Queue, greedy: Worker) -> None:
    """What those before the one it died in have returned is stored; those behind it wait again."""
    jobs = [queue.enqueue(math.sqrt, 49, job_id=f"a{number}") for number in range(5)]
    queue.enqueue(die_late, 5)
    later = [queue.enqueue(math.sqrt, 49, job_id=f"b{number}") for number in range(12)]
    work(greedy)

    names = [job.id for job in later]
    # the first was claimed alone and stored as the batch began
    assert seen == [1, "failed", 5, JobStatus.FAILED, names, []]
    assert [job.return_value() for job in (*jobs, *later)] == [7.0] * 17
    assert {len(job.results()) for job in (*jobs, *later)} == {1}


def die_unseen() -> None:
    """Be settled as a worker that died with its pool, so that nobody could read its row."""
    redis, me = present().connection, present()
    wait_until(lambda: told(redis)[0].startswith(me.id), 30)
    settlement = Settlement(redis, WorkerSettings(("default",), portable(redis)), "fail")
    settlement.settle(Loss(NAME, "", "", "killed", seen=False))
    jobs = (me, Job.fetch("c", redis))
    seen[:] = [*(job.get_status() for job in jobs), queue_of(redis)]


def queue_of(redis: Redis) -> list[str]:
    """Return what waits."""
    return Queue("default", connection=redis).job_ids


def test_what_nobody_can_tell_of_has_begun(queue: Queue, worker: Worker) -> None:
    """So nothing runs twice."""
    worker._turns.least = 8
    worker._turns.share = 1
    queue.enqueue(math.sqrt, 49)
    queue.enqueue(die_unseen)
    queue.enqueue(math.sqrt, 49, job_id="c")
    work(worker)

    assert seen == [JobStatus.FAILED, JobStatus.FAILED, []]
    assert left_behind(queue.connection) == []


def die_forgotten() -> None:
    """Be settled as a worker that died after RQ, storing another outcome, forgot this job."""
    redis, me = present().connection, present()
    seen[:] = [at_work_on(redis, NAME)]
    settlement = Settlement(redis, WorkerSettings(("default",), portable(redis)), "fail")
    settlement.settle(Loss(NAME, "", "", "killed"))
    seen.append(me.get_status())


def test_what_rq_forgot_of_a_dead_worker_is_settled(queue: Queue, worker: Worker) -> None:
    """When RQ 2 stores the outcome before, it takes the present job off the worker's record."""
    queue.enqueue(depended_on)
    job = queue.enqueue(die_forgotten, job_timeout=-1)
    work(worker)

    assert seen == [[job.id] if RQ_3 else [], JobStatus.FAILED]


def prolong(other: str) -> list[bool]:
    """Let the leases of this job and the next nearly run out; have the pool renew them."""
    redis = present().connection
    await_in_hand(redis, other)
    members = told(redis)
    redis.zadd("rq:wip:default", dict.fromkeys(members, 5))
    Heartbeats(redis, 480).send([Pulse(NAME, *members[0].split(":"))])
    return [(redis.zscore("rq:wip:default", member) or 0) > 60 for member in members]


def test_the_pool_renews_the_lease_of_what_is_in_hand(queue: Queue, worker: Worker) -> None:
    """So that nobody takes it for abandoned."""
    queue.enqueue(math.sqrt, 49)
    second = queue.enqueue(prolong, "b")
    queue.enqueue(math.sqrt, 49, job_id="b")
    work(worker)

    assert second.return_value() == [True, True]


def test_cleaning_ends_what_nobody_holds_any_more(queue: Queue, worker: Worker) -> None:
    """A lease that ran out, pool and worker gone: as with any other job, and never run again."""
    redis = queue.connection
    job = queue.enqueue(math.sqrt, 49)
    queue.empty()
    job.save()
    job.set_status(JobStatus.STARTED)
    redis.zadd("rq:wip:default", {f"{job.id}:e": 1})
    clean(queue, worker)

    assert queue.failed_job_registry.get_job_ids(cleanup=False) == [job.id]
    assert redis.zcard("rq:wip:default") == 0
    assert job.get_status() is JobStatus.FAILED
