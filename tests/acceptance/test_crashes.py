"""Workers that crash, hang, or cannot be had; jobs that misbehave; a server that goes away."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import rq
from redis import Redis
from rq import Queue, Retry, Worker
from rq.job import Job, JobStatus

from pysplash.control.model import Reason
from tests.acceptance import jobs
from tests.acceptance.command import QUICK, READY, Command, Start, tell
from tests.generation import since_3
from tests.servers import RestartedServer
from tests.waiting import wait_until

#: the promises: seconds until a dead worker's job is settled, and its slot filled again
SETTLED, REFILLED = 2.0, 3.0
#: seconds that other tests on the machine may add to any bound
SLACK = 10.0


def lines(path: Path) -> list[str]:
    """Return the marks left so far."""
    return path.read_text().splitlines()


def await_marks(path: Path, count: int = 1) -> list[int]:
    """Return the marks, process ids, as soon as there are *count*."""
    wait_until(lambda: len(lines(path)) >= count, READY, f"{count} marks")
    return [int(line) for line in lines(path)]


def await_status(job: Job, status: JobStatus, bound: float) -> None:
    """Fail unless *job* has *status* within *bound* seconds."""
    wait_until(
        lambda: job.get_status() is status, bound, f"{status.value} of {job.func_name}, now {job}"
    )


def error_of(job: Job) -> str:
    """Return the text that tells why *job* failed."""
    result = job.latest_result()
    return (result.exc_string or "") if result else ""


def assert_nothing_started(redis: Redis) -> None:
    """Fail if RQ still takes any job for started, or on its way to a worker."""
    assert list(redis.scan_iter("rq:execution*")) == []
    assert list(redis.scan_iter("rq:wip:*")) == []
    assert list(redis.scan_iter("rq:queue:*:intermediate")) == []


def await_pid_gone(pid: int) -> None:
    """Fail unless the process *pid* is gone, and its exit seen, before a job must be settled."""
    wait_until(lambda: not psutil.pid_exists(pid), SETTLED + SLACK, f"the end of process {pid}")


def idle_pool(pool: Start, size: int, *arguments: str) -> tuple[Command, list[int]]:
    """Start a pool of *size* workers; return it and their process ids once all are idle."""
    command = pool(*QUICK, "-n", str(size), *arguments)
    return command, command.await_idle(size)


# --- workers that cannot start ---


def test_crash_at_start_backs_off_and_says_why(pool: Start) -> None:
    """A class of which no worker can be made ends the pool: few tries, status 3, one line."""
    command = pool(*QUICK, "-n", "4", "-w", "tests.acceptance.jobs.Broken")
    assert command.wait(30 + SLACK) == 3
    spawned = re.search(r"spawned (\d+)", command.err.splitlines()[-2])
    assert spawned is not None
    # four at once, and then one at a time
    assert 5 <= int(spawned[1]) <= 6
    held = [tick["t"] for tick in command.record() if tick["reason"] == Reason.BACKOFF]
    # after the fourth failure in a row a pool waits for four seconds
    assert max(held) - min(held) >= 2
    (last,) = [line for line in command.err.splitlines() if line.startswith("pysplash: ")]
    assert last == command.err.splitlines()[-1]
    assert "could not start" in last
    assert "no licence found" in last


# --- workers that die ---


def test_killed_worker_is_settled_and_replaced(pool: Start, queue: Queue, marks: Path) -> None:
    """SIGKILL of a worker at work: its job FAILED within 2 s, its slot filled within 3 s."""
    command, _ = idle_pool(pool, 2)
    job = queue.enqueue(jobs.long, str(marks), 60)
    (victim,) = await_marks(marks)
    began = time.monotonic()
    tell([victim], signal.SIGKILL)
    await_status(job, JobStatus.FAILED, SETTLED + SLACK)
    wait_until(
        lambda: len(command.workers()) == 2 and victim not in command.workers(),
        began + REFILLED + SLACK - time.monotonic(),
        "the slot refilled",
    )
    assert "killed by SIGKILL" in error_of(job)
    assert "by the pool" not in error_of(job)
    assert_nothing_started(queue.connection)
    pids = [worker.pid for worker in Worker.all(connection=queue.connection)]
    assert victim not in pids


def test_killed_worker_with_retry(pool: Start, queue: Queue, marks: Path) -> None:
    """A job enqueued with Retry runs again after its worker was killed, and finishes."""
    idle_pool(pool, 1)
    job = queue.enqueue(jobs.die_once, str(marks), retry=Retry(max=1))
    await_status(job, JobStatus.FINISHED, SETTLED + REFILLED + SLACK)
    first, second = await_marks(marks, 2)
    assert first != second
    assert_nothing_started(queue.connection)


def test_killed_worker_with_requeue(pool: Start, queue: Queue, marks: Path) -> None:
    """With --on-crash requeue any job runs again after its worker was killed."""
    idle_pool(pool, 1, "--on-crash", "requeue")
    job = queue.enqueue(jobs.die_once, str(marks))
    await_status(job, JobStatus.FINISHED, SETTLED + REFILLED + SLACK)
    assert len(await_marks(marks, 2)) == 2
    assert_nothing_started(queue.connection)


@since_3
def test_killed_worker_gives_its_slot_up(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """Two workers run jobs under a limit of one at once: one by one, and on after a kill."""
    idle_pool(pool, 2)
    gate, limit = tmp_path / "gate", vars(rq)["RateLimit"]("limit", 1)
    held = [queue.enqueue(jobs.hold, str(marks), str(gate), rate_limit=limit) for _ in range(4)]

    def statuses() -> list[str]:
        return [job.get_status().value for job in held]

    victim, *_ = await_marks(marks)
    assert statuses() == ["started", *["rate_limited"] * 3]
    tell([victim], signal.SIGKILL)
    await_status(held[0], JobStatus.FAILED, SETTLED + SLACK)
    await_marks(marks, 2)
    # RQ counts in whole seconds who came first
    assert sorted(statuses()) == ["failed", "rate_limited", "rate_limited", "started"]
    gate.touch()
    for job in held[1:]:
        await_status(job, JobStatus.FINISHED, READY)
    assert_nothing_started(queue.connection)


def test_a_deadly_job_takes_no_other_with_it(pool: Start, queue: Queue, marks: Path) -> None:
    """Brief jobs run in batches: if one ends its worker, all others finish, each run once."""
    deadly = {number for number in range(600) if number % 55 == 54}
    calls = [(jobs.step, (str(marks), n, n in deadly)) for n in range(600)]
    stream = queue.enqueue_many([Queue.prepare_data(func, args=args) for func, args in calls])
    pool(*QUICK, "-n", "2")
    ended = (queue.finished_job_registry, queue.failed_job_registry)
    wait_until(
        lambda: sum(registry.get_job_count(False) for registry in ended) == len(stream),
        2 * READY,
        "the end of all jobs",
    )
    failed = {number for number, job in enumerate(stream) if not job.is_finished}
    assert failed == deadly
    values = [job.return_value() for number, job in enumerate(stream) if number not in deadly]
    assert values == [number for number in range(600) if number not in deadly]
    assert sorted(map(int, lines(marks))) == list(range(600))
    assert all("died while it ran the job" in error_of(stream[number]) for number in deadly)
    assert_nothing_started(queue.connection)


@pytest.mark.parametrize("status", [0, 7])
def test_job_that_ends_its_process(pool: Start, queue: Queue, marks: Path, status: int) -> None:
    """A job that calls os._exit fails with the exit status as the reason, and is not run again."""
    command, (victim,) = idle_pool(pool, 1)
    job = queue.enqueue(jobs.leave, str(marks), status)
    await_status(job, JobStatus.FAILED, READY)
    assert f"exit status {status}" in error_of(job)
    command.await_workers(1)
    after = queue.enqueue(jobs.pid)
    await_status(after, JobStatus.FINISHED, REFILLED + SLACK)
    assert await_marks(marks) == [victim]
    assert_nothing_started(queue.connection)


@pytest.mark.parametrize("arguments", [[], ["--on-crash", "requeue"]])
def test_poison_job_ends_failed(
    pool: Start, queue: Queue, marks: Path, arguments: list[str]
) -> None:
    """A job under which three workers died is failed as the cause, however often it may retry."""
    command, _ = idle_pool(pool, 1, *arguments)
    job = queue.enqueue(jobs.die, str(marks), retry=Retry(max=10))
    await_status(job, JobStatus.FAILED, 3 * (SETTLED + REFILLED) + SLACK)
    after = queue.enqueue(jobs.pid)
    await_status(after, JobStatus.FINISHED, REFILLED + SLACK)
    assert len(lines(marks)) == 3
    assert "death no. 3" in error_of(job)
    assert_nothing_started(queue.connection)
    assert command.process.poll() is None


def test_grandchildren_die_with_a_killed_worker(pool: Start, queue: Queue, marks: Path) -> None:
    """What a job has started dies with its worker, even if it hears no polite signal."""
    command, (victim,) = idle_pool(pool, 1)
    job = queue.enqueue(jobs.parent, str(marks), 120)
    (grandchild,) = await_marks(marks)
    assert grandchild in [process.pid for process in command.processes()]
    tell([victim], signal.SIGKILL)
    await_status(job, JobStatus.FAILED, SETTLED + SLACK)
    await_pid_gone(grandchild)


def test_grandchildren_die_with_a_job_at_the_deadline(
    pool: Start, queue: Queue, marks: Path
) -> None:
    """What a job has started dies with it when the pool's stop runs out of time."""
    command, _ = idle_pool(pool, 1, "--terminate-seconds", "1")
    queue.enqueue(jobs.parent, str(marks), 120)
    (grandchild,) = await_marks(marks)
    command.signal(signal.SIGTERM)
    assert command.wait(1 + 2 + SLACK) == 0
    await_pid_gone(grandchild)


def test_forking_worker_killed_mid_job(pool: Start, queue: Queue, marks: Path) -> None:
    """RQ's forking worker, killed, takes its work horse along; the job is FAILED within 2 s."""
    command, (victim,) = idle_pool(pool, 1, "-w", "rq.worker.Worker")
    job = queue.enqueue(jobs.long, str(marks), 60)
    (horse,) = await_marks(marks)
    assert horse != victim
    tell([victim], signal.SIGKILL)
    await_status(job, JobStatus.FAILED, SETTLED + SLACK)
    await_pid_gone(horse)
    command.await_workers(1)
    assert_nothing_started(queue.connection)


# --- workers and jobs that hang ---


def test_zombie_is_stopped_killed_and_replaced(pool: Start) -> None:
    """An idle worker that shows no life is asked to stop, then killed, then replaced."""
    command, (victim, other) = idle_pool(
        pool, 2, "--zombie-timeout", "4", "--terminate-seconds", "1"
    )
    tell([victim], signal.SIGSTOP)
    wait_until(lambda: victim not in command.workers(), 4 + 1 + 2 + SLACK, "the zombie's end")
    command.await_workers(2)
    assert other in command.workers()
    kinds = [
        (action["kind"], action["reason"])
        for tick in command.record()
        for action in tick["actions"]
        if action["kind"] != "spawn"
    ]
    assert kinds == [("stop", "zombie"), ("kill", "terminate")]


def test_slow_server_makes_no_zombies(pool: Start, redis: Redis) -> None:
    """Workers that wait for a server which is silent for a second and a half are no zombies."""
    command, before = idle_pool(pool, 3, "--zombie-timeout", "4")
    redis.client_pause(1500)
    redis.ping()
    command.await_ticks(10)
    assert [t["actions"] for t in command.record() if "zombie" in str(t["actions"])] == []
    assert sorted(command.workers()) == sorted(before)


def test_job_that_swallows_its_timeout_is_killed(pool: Start, queue: Queue, marks: Path) -> None:
    """A job that ignores its timeout is killed with its worker 5 s after it, and FAILED."""
    command, (victim,) = idle_pool(pool, 1)
    job = queue.enqueue(jobs.swallow, str(marks), 60, job_timeout=1)
    await_marks(marks)
    began = time.monotonic()
    await_status(job, JobStatus.FAILED, 1 + 5 + 2 + SLACK)
    assert time.monotonic() - began > 4
    assert "by the pool: overdue" in error_of(job)
    assert victim not in command.await_workers(1)
    assert_nothing_started(queue.connection)


def test_job_that_heeds_its_timeout_keeps_its_worker(
    pool: Start, queue: Queue, marks: Path
) -> None:
    """A job that lets its timeout end it is FAILED in time, and its worker goes on."""
    command, before = idle_pool(pool, 1)
    job = queue.enqueue(jobs.long, str(marks), 60, job_timeout=1)
    await_status(job, JobStatus.FAILED, READY)
    assert "JobTimeoutException" in error_of(job)
    after = queue.enqueue(jobs.pid)
    await_status(after, JobStatus.FINISHED, SLACK)
    assert command.workers() == before


def test_stopped_pool_does_not_wait_for_a_hung_worker(pool: Start) -> None:
    """A pool with a worker that is stopped by SIGSTOP ends within --terminate-seconds, status 0."""
    command, (victim, _) = idle_pool(pool, 2, "--terminate-seconds", "1")
    tell([victim], signal.SIGSTOP)
    command.signal(signal.SIGTERM)
    assert command.wait(1 + 2 + SLACK) == 0
    command.await_gone(1)


# --- a server that goes away ---


@pytest.fixture
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartedServer]:
    """A server that can be stopped and started again at the same address."""
    folder = tmp_path_factory.mktemp("frail", numbered=True)
    server = RestartedServer(folder)
    server.start()
    yield server
    server.stop()


def away_and_back(command: Command, leave: Callable[[], None], come: Callable[[], None]) -> None:
    """Take the server away until the pool has been without for three ticks and five seconds."""
    workers = command.workers()
    since = time.monotonic()
    ticks = len(command.record())
    leave()

    def felt() -> bool:
        blind = [tick for tick in command.record()[ticks:] if tick["reason"] == "redis"]
        return len(blind) >= 3 and time.monotonic() - since > 5

    wait_until(felt, READY, "three ticks without Redis")
    assert sorted(command.workers()) == sorted(workers), "a worker left, or one was started"
    come()


def test_hung_server(pool: Start, queue: Queue) -> None:
    """While the server answers nobody no worker exits; when it does, work resumes within 5 s."""
    command, workers = idle_pool(pool, 2)
    server = queue.connection.info("server")["process_id"]
    try:
        away_and_back(
            command, lambda: tell([server], signal.SIGSTOP), lambda: tell([server], signal.SIGCONT)
        )
    finally:
        tell([server], signal.SIGCONT)
    job = queue.enqueue(jobs.pid)
    await_status(job, JobStatus.FINISHED, 5 + SLACK)
    assert job.return_value() in workers
    assert sorted(command.workers()) == sorted(workers)


def test_restarted_server(splash: Start, frail: RestartedServer) -> None:
    """While the server refuses connections no worker exits; once it is back, work resumes."""
    url = frail.url

    def start(*arguments: str) -> Command:
        return splash("-u", url, "--record", "record.jsonl", *arguments)

    command, workers = idle_pool(start, 2)
    away_and_back(command, frail.stop, frail.start)
    with Redis.from_url(url) as redis:
        job = Queue(connection=redis).enqueue(jobs.pid)
        await_status(job, JobStatus.FINISHED, 5 + SLACK)
        assert job.return_value() in workers
    assert sorted(command.workers()) == sorted(workers)
    complaints = re.findall("the queues cannot be read", command.err)
    assert len(complaints) <= 3
    command.signal(signal.SIGTERM)
    assert command.wait(2 + SLACK) == 0


def test_server_goes_away_during_a_job(
    pool: Start, queue: Queue, marks: Path, tmp_path: Path
) -> None:
    """A job that ends while the server is away has run once and is FINISHED when it is back."""
    command, workers = idle_pool(pool, 1)
    gate = tmp_path / "gate"
    job = queue.enqueue(jobs.hold, str(marks), str(gate))
    await_marks(marks)
    server = queue.connection.info("server")["process_id"]

    def leave() -> None:
        tell([server], signal.SIGSTOP)
        gate.touch()

    try:
        away_and_back(command, leave, lambda: tell([server], signal.SIGCONT))
    finally:
        tell([server], signal.SIGCONT)
    await_status(job, JobStatus.FINISHED, 5 + SLACK)
    assert await_marks(marks) == workers == command.workers()
    assert_nothing_started(queue.connection)
