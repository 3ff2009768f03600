"""Jobs inside jobs: timeouts, stops, depth, and a worker that dies with all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.command import send_command, send_kill_horse_command, send_stop_job_command
from rq.job import Job, JobStatus
from rq.timeouts import TimerDeathPenalty

from pysplash.config import WorkerSettings
from pysplash.connections.clients import portable
from pysplash.jobs.claim_named import NamedTurn
from pysplash.jobs.store_and_claim import Turn
from pysplash.supervisor.settlement import Loss, Settlement
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.timeouts import TIMERS, StackingDeathPenalty
from pysplash.worker.worker import Worker
from tests.generation import at_work_on, since_3
from tests.integration import nested_jobs as jobs
from tests.integration.nested_jobs import said
from tests.integration.rq_life import aside
from tests.integration.test_helping import LONG, error_of, left_over, play
from tests.waiting import wait_until


@pytest.fixture
def worker(redis: Redis, queue: Queue) -> Worker:
    """A worker that does not wait long for others."""
    worker = Worker([queue], connection=redis)
    worker._nest.patience = 0.01
    return worker


def family(queue: Queue, *functions: Any) -> list[Job]:
    """Enqueue jobs "0", "1", ... of which each is to wait for the next, in this order."""
    made = []
    for number, (function, *arguments, options) in enumerate(functions):
        kwargs = options.pop("kwargs", {})
        job = queue.enqueue(function, args=arguments, kwargs=kwargs, job_id=str(number), **options)
        made.append(job)
    return made


# --- timeouts ----------------------------------------------------------------------------------


def test_a_nested_timeout_is_its_own(redis: Redis, queue: Queue, worker: Worker) -> None:
    """A nested job's timeout fails it alone; its parent goes on with what is left of its own."""
    parent, child = family(
        queue,
        (jobs.sleepy, "1", 50, {"kwargs": {"on_failure": "none"}, "job_timeout": 2}),
        (jobs.nap, 50, {"job_timeout": 1}),
    )
    began = time.monotonic()
    play(worker)

    assert time.monotonic() - began < 40
    assert "exceeded maximum timeout value (1 seconds)" in error_of(child)
    assert "exceeded maximum timeout value (2 seconds)" in error_of(parent)
    (line,) = said(redis)
    assert line.startswith("0: JobTimeoutException: ")
    assert left_over(redis) == []


def test_a_timeout_outlives_those_within(queue: Queue, worker: Worker) -> None:
    """Nested jobs that end in time leave the parent's timeout in force."""
    parent, *_ = family(
        queue,
        (jobs.sleepy, "1", 50, {"job_timeout": 1}),
        (jobs.wait_for, "2", {"job_timeout": LONG}),
        (jobs.identity, {"job_timeout": LONG}),
    )
    began = time.monotonic()
    play(worker)

    assert time.monotonic() - began < 40
    assert "exceeded maximum timeout value (1 seconds)" in error_of(parent)


def test_an_outer_timeout_ends_all_within(redis: Redis, queue: Queue, worker: Worker) -> None:
    """The outermost job's timeout ends those inside it; each is failed, and says why."""
    outer, middle, inner = family(
        queue,
        (jobs.sleepy, "1", 0, {"job_timeout": 1}),
        (jobs.sleepy, "2", 0, {"job_timeout": LONG}),
        (jobs.nap, 50, {"job_timeout": LONG}),
    )
    began = time.monotonic()
    play(worker)

    assert time.monotonic() - began < 40
    assert "exceeded maximum timeout value (1 seconds)" in error_of(outer)
    for job in (middle, inner):
        assert job.get_status() == JobStatus.FAILED
        assert error_of(job) == (
            "Job 0, inside which this job ran, exceeded its 1 s; it ended with it."
        )
    assert [line.split(": ")[:2] for line in said(redis)] == [
        ["1", "Overtaken"],
        ["0", "JobTimeoutException"],
    ]
    assert redis.hget(worker.key, "failed_job_count") == b"3"
    assert left_over(redis) == []


def test_a_timeout_in_the_middle_spares_the_outermost(queue: Queue, worker: Worker) -> None:
    """A timeout ends its own level and what is inside it, not what is outside."""
    outer, middle, inner = family(
        queue,
        (jobs.wait_for, "1", {"kwargs": {"on_failure": "none"}, "job_timeout": LONG}),
        (jobs.wait_for, "2", {"job_timeout": 1}),
        (jobs.nap, 50, {"job_timeout": LONG}),
    )
    play(worker)

    assert outer.return_value() == [None]
    assert "exceeded maximum timeout value (1 seconds)" in error_of(middle)
    assert "Job 1, inside which this job ran" in error_of(inner)


def test_a_parked_inner_job_ends_with_the_outer(queue: Queue, worker: Worker) -> None:
    """The outer timeout ends a nested job that waits, too."""
    outer, inner = family(
        queue,
        (jobs.wait_for, "1", {"job_timeout": 1}),
        (jobs.wait_for, "elsewhere", {"job_timeout": LONG}),
    )
    Queue("unserved", connection=queue.connection).enqueue(jobs.identity, job_id="elsewhere")
    play(worker)

    assert "exceeded maximum timeout value (1 seconds)" in error_of(outer)
    assert "Job 0, inside which this job ran" in error_of(inner)


def test_who_shares_a_fate_is_retried(queue: Queue, worker: Worker) -> None:
    """Retry holds for a job that ends with the one it ran in: it is run again, by itself."""
    outer, inner = family(
        queue,
        (jobs.wait_for, "1", {"job_timeout": 1}),
        (jobs.slow_once, 50, {"job_timeout": LONG, "retry": Retry(max=1)}),
    )
    play(worker)

    assert outer.get_status() == JobStatus.FAILED
    assert inner.return_value() == "quick"


def test_who_shares_a_fate_is_requeued_if_told_so(queue: Queue, worker: Worker) -> None:
    """With on_crash="requeue" it is put back in its queue instead."""
    worker.on_crash = "requeue"
    outer, inner = family(
        queue,
        (jobs.wait_for, "1", {"job_timeout": 1}),
        (jobs.slow_once, 50, {"job_timeout": LONG}),
    )
    play(worker)

    assert outer.get_status() == JobStatus.FAILED
    assert inner.return_value() == "quick"


@pytest.mark.parametrize(("outer_timeout", "inner_timeout"), [(1, LONG), (LONG, 1)])
def test_no_level_can_swallow_a_timeout(
    redis: Redis, queue: Queue, worker: Worker, outer_timeout: int, inner_timeout: int
) -> None:
    """A nested job that swallows the timeout, the outer one's or its own, is reminded of it."""
    outer, inner = family(
        queue,
        (
            jobs.wait_for,
            "1",
            {"kwargs": {"on_failure": "none"}, "job_timeout": outer_timeout},
        ),
        (jobs.stubborn, 50, {"job_timeout": inner_timeout}),
    )
    play(worker)

    assert said(redis) == [f"1: interrupt {number}" for number in (1, 2, 3)]
    assert inner.get_status() == JobStatus.FAILED
    assert outer.get_status() == (JobStatus.FAILED if outer_timeout == 1 else JobStatus.FINISHED)


def test_outer_timers_can_be_blocked() -> None:
    """What is stored between jobs is not cut short: the outer timer rings right after it."""
    seen = []

    def outlast(seconds: float) -> None:
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, 5)

    def store() -> None:
        with StackingDeathPenalty(5, KeyError):
            outlast(0.15)
        try:
            with StackingDeathPenalty(0.05, KeyError):
                outlast(5)
        except KeyError:
            seen.append("its own")

    def run() -> None:
        with StackingDeathPenalty(0.05, TimeoutError):
            before = TIMERS.block()
            store()
            seen.append("stored")
            TIMERS.unblock(before)
            outlast(5)

    with pytest.raises(TimeoutError):
        run()
    assert seen == ["its own", "stored"]


def test_a_timeout_that_cannot_be_set_leaves_none_behind() -> None:
    """In a thread there are no signals; longer than any timer is as long as a timer can be."""

    def set_one() -> None:
        with StackingDeathPenalty(5, KeyError):
            pass

    with pytest.raises(ValueError, match="main thread"):
        aside(set_one).result(30)
    assert not TIMERS.in_force
    with StackingDeathPenalty(10**30, KeyError):
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 10**9
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_error_tells_its_own_seconds() -> None:
    """RQ's TimerDeathPenalty, used once in a process, writes its own into all others'."""

    class Patched(Exception):
        pass

    TimerDeathPenalty(180, Patched)
    end = time.monotonic() + 5

    def run() -> None:
        with StackingDeathPenalty(0.05, Patched):
            wait_until(lambda: time.monotonic() > end, 10)

    with pytest.raises(Patched, match=r"value \(0\.05 seconds\)"):
        run()


# --- stops -------------------------------------------------------------------------------------


def interrupt(redis: Redis, worker: Worker, send: Callable[[], None], running: str) -> None:
    """Send a command as soon as the job *running* runs."""
    wait_until(lambda: running in at_work_on(redis, worker.name), 20, f"job {running}")
    send()


def stop_execution(redis: Redis, worker: Worker, job_id: str) -> None:
    """Stop what runs of a job now, as RQ 3 can."""
    (execution,) = Job.fetch(job_id, redis).get_executions()
    ids = {"job_id": job_id, "execution_id": execution.id}
    send_command(redis, worker.name, "stop-execution", **ids)


def stop_job(redis: Redis, _worker: Worker, job_id: str) -> None:
    """Stop a job."""
    send_stop_job_command(redis, job_id)


@pytest.mark.parametrize("stop", [stop_job, stop_execution])
@pytest.mark.parametrize("stopped", ["0", "1", "2"])
def test_any_level_can_be_stopped(
    redis: Redis,
    queue: Queue,
    worker: Worker,
    stopped: str,
    stop: Callable[[Redis, Worker, str], None],
) -> None:
    """What is named is stopped; what is inside ends with it, what is outside hears of it."""
    made = family(
        queue,
        (jobs.wait_for, "1", {"job_timeout": LONG}),
        (jobs.wait_for, "2", {"job_timeout": LONG}),
        (jobs.nap, 50, {"job_timeout": LONG}),
    )
    stopping = aside(interrupt, redis, worker, lambda: stop(redis, worker, stopped), "2")
    began = time.monotonic()
    play(worker)
    stopping.result(20)

    assert time.monotonic() - began < 40
    for job in made:
        if job.id == stopped:
            assert job.get_status() == JobStatus.STOPPED
        elif job.id > stopped:
            assert f"Job {stopped}, inside which this job ran, was stopped" in error_of(job)
        else:
            assert f"JobFailed: job {int(job.id) + 1}" in error_of(job)
    assert left_over(redis) == []


def test_an_execution_that_is_over_is_not_stopped(
    redis: Redis, queue: Queue, worker: Worker
) -> None:
    """What runs of the same job now goes on."""
    ids = {"job_id": "0", "execution_id": "that is over"}
    (job,) = family(queue, (jobs.nap, 0.5, {}))
    stopping = aside(
        interrupt,
        redis,
        worker,
        lambda: send_command(redis, worker.name, "stop-execution", **ids),
        "0",
    )
    play(worker)
    stopping.result(20)

    assert job.get_status() == JobStatus.FINISHED


class ToldEarly(Worker):
    """A worker that is told to stop jobs which Redis has as started, and which have not begun."""

    def __init__(self, *arguments: Any, tell: Callable[[Worker], None], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._tell = tell

    def _run(self, turn: Turn) -> bool:
        self._tell(self)
        wait_until(lambda: bool(self._interrupts._pending_until), 20, "the command")
        return super()._run(turn)


def by_command(worker: Worker, job_id: str, execution_id: str = "") -> None:
    """Stop a job, or an execution of its, by RQ's command."""
    kind = "stop-execution" if execution_id else "stop-job"
    ids = {"job_id": job_id} | ({"execution_id": execution_id} if execution_id else {})
    send_command(worker.connection, worker.name, kind, **ids)


def by_pool(worker: Worker, job_id: str, execution_id: str = "") -> None:
    """Stop a job, or an execution of its, as the pool does."""
    assert worker.slot is not None
    worker.slot._board.ask(0, execution_id or job_id)
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("stop", [by_command, by_pool])
@pytest.mark.parametrize("execution", [False, True])
def test_a_stop_may_come_before_its_job_begins(
    redis: Redis, queue: Queue, stop: Callable[..., None], execution: bool
) -> None:
    """Whoever sent it saw the claim in Redis; what the stop names is all that it stops."""

    def tell(worker: Worker) -> None:
        first.append(worker._claims.execution)
        stop(worker, "0", *(first[:1] if execution else ()))

    first: list[str] = []
    stopped, spared = family(queue, (jobs.nap, 50, {"job_timeout": LONG}), (jobs.identity, {}))
    worker = ToldEarly([queue], connection=redis, tell=tell)
    with contextlib.closing(Scoreboard(1)) as board:
        if stop is by_pool:
            worker.slot = Slot(board, 0, worker.name)
        play(worker)

    assert stopped.get_status() == JobStatus.STOPPED
    assert error_of(stopped) == "Job stopped by user, work-horse terminated."
    assert spared.get_status() == JobStatus.FINISHED
    assert worker._stopped_job_id is None


class KilledBetween(Worker):
    """A worker whose horse is killed when it has none: between two jobs."""

    def _run(self, turn: Turn) -> bool:
        if self.slot is not None:
            self.slot._board.ask(0, "")
        os.kill(os.getpid(), signal.SIGUSR1)
        return super()._run(turn)


@pytest.mark.parametrize("in_pool", [False, True])
def test_kill_horse_between_jobs_ends_none(redis: Redis, queue: Queue, in_pool: bool) -> None:
    """It is for what runs: what begins later goes on."""
    (job,) = family(queue, (jobs.identity, {}))
    worker = KilledBetween([queue], connection=redis)
    with contextlib.closing(Scoreboard(1)) as board:
        if in_pool:
            worker.slot = Slot(board, 0, worker.name)
        play(worker)
    assert job.get_status() == JobStatus.FINISHED


@since_3
def test_a_broken_callback_for_a_stop_changes_nothing(
    redis: Redis, queue: Queue, worker: Worker
) -> None:
    """The job is stopped all the same, as by RQ 3; RQ 2 fails itself there."""
    broken = {"on_stopped": Callback("no.such.callback"), "job_timeout": LONG}
    (job,) = family(queue, (jobs.nap, 50, broken))
    stopping = aside(interrupt, redis, worker, lambda: stop_job(redis, worker, "0"), "0")
    play(worker)
    stopping.result(20)

    assert job.get_status() == JobStatus.STOPPED
    assert error_of(job) == "Job stopped by user, work-horse terminated."


def test_kill_horse_ends_all_levels(redis: Redis, queue: Queue, worker: Worker) -> None:
    """kill-horse means whatever runs: all of it."""
    outer, inner = family(
        queue,
        (jobs.wait_for, "1", {"kwargs": {"on_failure": "none"}, "job_timeout": LONG}),
        (jobs.nap, 50, {"job_timeout": LONG}),
    )
    killing = aside(
        interrupt, redis, worker, lambda: send_kill_horse_command(redis, worker.name), "1"
    )
    play(worker)
    killing.result(20)

    assert error_of(outer) == "Work-horse terminated on command."
    assert "Job 0, inside which this job ran, was stopped" in error_of(inner)


def stop_as_it_claims(worker: Worker) -> Worker:
    """Have a worker's outermost job stopped while it claims one to run inside it."""
    descend = worker._nest._descend

    def stopping(names: Sequence[str]) -> NamedTurn:
        if worker._stopped_job_id is None:
            worker._stopped_job_id = "0"
            worker.kill_horse()
        return descend(names)

    vars(worker._nest)["_descend"] = stopping
    return worker


def test_a_stop_between_jobs_is_made_good(redis: Redis, queue: Queue) -> None:
    """A stop that comes while a job is claimed does not cut that short, nor is it lost."""
    outer, inner = family(
        queue,
        (jobs.wait_for, "1", {"job_timeout": LONG}),
        (jobs.nap, 50, {"job_timeout": LONG}),
    )
    began = time.monotonic()
    play(stop_as_it_claims(Worker([queue], connection=redis)))

    assert time.monotonic() - began < 40
    assert outer.get_status() == JobStatus.STOPPED
    assert "Job 0, inside which this job ran, was stopped" in error_of(inner)
    assert left_over(redis) == []


# --- depth -------------------------------------------------------------------------------------


def test_a_long_chain_ends(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Deep nesting does not meet Python's recursion limit, past max_nesting or not."""
    worker.max_nesting = 75
    job = queue.enqueue(jobs.chain, 150, job_timeout=LONG)
    limit = sys.getrecursionlimit()
    play(worker)

    assert job.return_value() == 150, error_of(job)
    assert sys.getrecursionlimit() == limit
    assert left_over(redis) == []


def test_each_level_has_calls_of_its_own(queue: Queue, worker: Worker) -> None:
    """A job may use the whole recursion limit, inside another as well as by itself."""
    family(
        queue,
        (jobs.deep, 600, "1", {"job_timeout": LONG}),
        (jobs.deep, 600, "2", {"job_timeout": LONG}),
        (jobs.deep, 600, {"job_timeout": LONG}),
    )
    play(worker)

    assert Job.fetch("0", connection=queue.connection).return_value() == [[[]]]


def test_nesting_has_an_end(redis: Redis, queue: Queue, worker: Worker) -> None:
    """Too many jobs inside one another are an error that says what to do about it."""
    worker.max_nesting = 2
    job = queue.enqueue(jobs.chain, 30, job_timeout=LONG)
    play(worker)

    failed = queue.failed_job_registry.get_job_ids(cleanup=False)
    assert job.get_status() == JobStatus.FAILED
    assert any("NestedTooDeeply" in error_of(Job.fetch(name, redis)) for name in failed)
    assert len(failed) == 20


def test_deep_down_others_are_left_the_jobs(queue: Queue, worker: Worker) -> None:
    """From max_nesting on a waiting job lets another worker come first."""
    worker.max_nesting, worker._nest.patience = 1, 30.0
    queue.enqueue(jobs.wait_for, "1", job_id="0", job_timeout=LONG)
    queue.enqueue(jobs.nap, 0, job_id="1", job_timeout=LONG)
    other = _worker_process(queue, "burst")
    try:
        play(worker, max_jobs=1)
    finally:
        other.wait(30)
    child = Job.fetch("1", connection=queue.connection)
    assert child.worker_name != worker.name
    assert worker._nest.patience == 1.0


# --- a worker that dies ------------------------------------------------------------------------

SERVE = """
import sys
from redis import Redis
from rq import Queue
from pysplash.worker import Worker
url, name, burst = sys.argv[1:]
with Redis.from_url(url) as redis:
    worker = Worker([Queue(connection=redis)], connection=redis, name=name)
    worker.work(burst=True, logging_level="CRITICAL")
"""


def _worker_process(queue: Queue, name: str) -> subprocess.Popen[bytes]:
    settings = queue.connection.connection_pool.connection_kwargs
    url = (
        f"unix://{settings['path']}"
        if "path" in settings
        else (f"redis://{settings['host']}:{settings['port']}/{settings.get('db') or 0}")
    )
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, url, name, "1"], env={**os.environ, "PYTHONPATH": root}
    )


@pytest.mark.parametrize("on_crash", ["fail", "requeue"])
def test_a_dead_worker_with_a_stack(redis: Redis, queue: Queue, on_crash: str) -> None:
    """Three jobs inside one another die with their worker: each is settled, innermost first."""
    made = family(
        queue,
        (jobs.wait_for, "1", {"job_timeout": LONG}),
        (jobs.wait_for, "2", {"job_timeout": LONG}),
        (jobs.die, {"job_timeout": LONG}),
    )
    process = _worker_process(queue, "victim")
    process.wait(30)
    settings = WorkerSettings(("default",), portable(redis))

    outcome = Settlement(redis, settings, on_crash).settle(Loss("victim", "0", "", "killed"))

    names = [job.id for job in made]
    if on_crash == "requeue":
        assert outcome == "requeued"
        assert queue.job_ids == names
        assert {job.get_status() for job in made} == {JobStatus.QUEUED}
    else:
        assert outcome == "failed"
        assert queue.job_ids == []
        assert sorted(queue.failed_job_registry.get_job_ids(cleanup=False)) == names
        ends = [str(result.id) for job in made if (result := job.latest_result())]
        assert ends == sorted(ends, reverse=True)
        assert len(ends) == 3
    keys = ("pysplash:stack:*", "pysplash:waits:*", "pysplash:fan:*", "rq:execution*", "rq:wip:*")
    assert [key for pattern in keys for key in redis.keys(pattern)] == []
