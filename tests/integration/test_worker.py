"""The worker alone, on a real server: RQ's bookkeeping, its row, and stops that lose nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from rq import Queue, Retry, get_current_job
from rq.job import Job, JobStatus
from rq.worker import Worker as ForkingWorker

from pysplash.errors import ImportFailed
from pysplash.supervisor.forkserver.boot import resolve, worker_class
from pysplash.worker.row import Row
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.supervised import Supervised
from pysplash.worker.worker import Worker
from tests.generation import since_3
from tests.waiting import wait_until


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """Return the queue all jobs here are on."""
    return Queue("default", connection=redis)


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """Return a board of one row."""
    board = Scoreboard(1)
    yield board
    board.close()


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    """Workers take the process's handlers; give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def nap(seconds: float) -> str:
    """Sleep and say so."""
    time.sleep(seconds)  # noqa: TID251 -- this is the job's work
    return "rested"


def fail(text: str = "boom") -> None:
    """Raise."""
    raise ValueError(text)


def stop_me(number: int) -> str:
    """Send this worker a signal from inside its own job."""
    signal.raise_signal(number)
    return "stopped"


def stop_me_twice(seconds: float) -> None:
    """Ask the worker for a stop, and *seconds* later again; then go on."""
    os.kill(os.getpid(), signal.SIGTERM)
    again = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > again, 10)
    os.kill(os.getpid(), signal.SIGTERM)


class OwnQueue(Queue):
    """A queue of a user's own."""


class Unheard(Worker):
    """A worker of a user's own, to which Redis does not answer in the middle of a job."""

    def perform_job(self, *_arguments: Any, **_options: Any) -> bool:
        """Hear nothing."""
        raise RedisConnectionError("unheard")


class Sought:
    """A result for which, each time it is serialised, one more job comes to wait, *most* times."""

    def __init__(self, job: Job, most: int) -> None:
        self._job, self._most = job, most

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        if self._most:
            self._most -= 1
            queue = Queue(self._job.origin, connection=self._job.connection)
            queue.enqueue(nap, 0, depends_on=self._job.id)
        return str, ("found",)


def seek() -> Sought:
    """Return what others wait for."""
    job = get_current_job()
    assert job is not None
    return Sought(job, 3)


@pytest.mark.parametrize("path", ["pysplash.Worker", "rq.SimpleWorker"])
def test_dependents_may_come_while_a_success_is_stored(
    redis: Redis, queue: Queue, path: str
) -> None:
    """RQ then stores it again; the job is finished, no longer started, and all who wait run."""
    job = queue.enqueue(seek)

    worker_class(path)([queue], connection=redis).work(burst=True, logging_level="CRITICAL")

    assert job.return_value() == "found"
    assert len(queue.finished_job_registry.get_job_ids(cleanup=False)) == 1 + 3
    assert redis.keys("rq:execution*") + redis.keys("rq:wip:*") == []


@since_3
def test_what_it_is_at_outlives_the_lease_and_not_for_ever(redis: Redis, queue: Queue) -> None:
    """RQ 3's set of a worker's executions goes with its key, should the worker die."""
    job = queue.enqueue(lives_of, job_timeout=1000)
    Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")

    lives: Any = job.return_value()
    key, executions = lives
    assert 1000 < executions <= key


def lives_of() -> list[int]:
    """Return the times to live of the worker's key and of the set of its executions."""
    job = get_current_job()
    assert job is not None
    keys = (f"rq:worker:{job.worker_name}", f"rq:worker:{job.worker_name}:executions")
    return [job.connection.ttl(key) for key in keys]


def test_burst_runs_everything_as_rq_would(redis: Redis, queue: Queue) -> None:
    """Statuses, results, registries, counters and the worker's death are RQ's."""
    good = queue.enqueue(nap, 0)
    bad = queue.enqueue(fail)
    worker = Worker([queue], connection=redis)

    assert worker.work(burst=True, logging_level="CRITICAL")

    assert good.get_status() == JobStatus.FINISHED
    assert good.return_value() == "rested"
    assert bad.get_status() == JobStatus.FAILED
    assert queue.finished_job_registry.get_job_ids(cleanup=False) == [good.id]
    assert queue.failed_job_registry.get_job_ids(cleanup=False) == [bad.id]
    assert redis.hget(worker.key, "successful_job_count") == b"1"
    assert redis.hget(worker.key, "failed_job_count") == b"1"
    assert redis.hexists(worker.key, "death")
    assert Worker.all(connection=redis) == []
    assert redis.keys("rq:execution:*") + redis.keys("rq:wip:*") == []


def test_its_row_tells_the_story(redis: Redis, queue: Queue, board: Scoreboard) -> None:
    """Busy with id, execution and timeout while it runs; counted, failures apart, when done."""
    rows: list[Row] = []
    worker = Worker([queue], connection=redis)
    worker.slot = Slot(board, 0, worker.name)
    job = queue.enqueue(nap, 0.3, job_timeout=7)
    queue.enqueue(fail)

    def look() -> None:
        wait_until(lambda: started() is not None, 30, "a started job")

    def started() -> Row | None:
        row = board.read(0)
        if row is not None and row.execution_id:
            rows.append(row)
            return row
        return None

    watcher = threading.Thread(target=look)
    watcher.start()
    worker.work(burst=True, logging_level="CRITICAL")
    watcher.join()

    during = rows[0]
    after = board.read(0)
    assert after is not None
    assert (during.state, during.job_id, during.job_timeout) == ("busy", job.id, 7.0)
    assert (after.state, after.jobs, after.failed, after.job_id) == ("stopping", 2, 1, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_only_sets_a_flag(redis: Redis, queue: Queue, number: int) -> None:
    """The job that is interrupted ends well, the next one stays where it is."""
    first = queue.enqueue(stop_me, int(number))
    second = queue.enqueue(nap, 0)
    worker = Worker([queue, Queue("low", connection=redis)], connection=redis)
    worker.slot = None

    worker.work(logging_level="CRITICAL")

    assert first.return_value() == "stopped"
    assert queue.job_ids == [second.id]


@pytest.mark.parametrize("path", ["pysplash.Worker", "rq.SimpleWorker"])
@pytest.mark.parametrize(("seconds", "status"), [(1.1, "failed"), (0.1, "finished")])
def test_a_second_stop_ends_the_job_of_a_worker_alone(
    redis: Redis, queue: Queue, path: str, seconds: float, status: str
) -> None:
    """More than a second after the first; sooner it is the first one heard twice."""
    job = queue.enqueue(stop_me_twice, seconds)
    queue.enqueue(nap, 0)

    worker_class(path)([queue], connection=redis).work(logging_level="CRITICAL")

    assert job.get_status() == status
    assert queue.count == 1
    if status == "failed":
        result = job.latest_result()
        assert result is not None
        assert "cold stop" in str(result.exc_string)


def test_an_idle_worker_stops_within_its_block(redis: Redis, queue: Queue) -> None:
    """A stop that comes while it waits for jobs, for ten seconds, is obeyed at once."""
    worker = Worker([queue, Queue("low", connection=redis)], connection=redis)
    stopped_at = []

    def stop() -> None:
        wait_until(lambda: worker.get_state() == "idle", 30, "an idle worker")
        stopped_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    worker.work(logging_level="CRITICAL")
    took = time.monotonic() - stopped_at[0]
    stopper.join()

    assert took < 5


def stop_as_it_asks(worker: Worker) -> None:
    """Have *worker* told to stop each time it has begun a turn ahead."""
    ask = worker._claims.ask

    def asked(*arguments: Any) -> None:
        ask(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    vars(worker._claims)["ask"] = asked


def test_what_was_claimed_as_a_stop_came_is_run(redis: Redis, queue: Queue) -> None:
    """The turn that stores one job's outcome has claimed the next: that is run, and no other."""
    jobs = [queue.enqueue(nap, 0) for _ in range(4)]
    worker = Worker([queue], connection=redis)
    stop_as_it_asks(worker)
    worker.work(burst=True, logging_level="CRITICAL")

    # The turn that stores the first job's outcome also learns the counters: it is not begun ahead.
    assert [job.return_value() for job in jobs] == [*["rested"] * 3, None]
    assert queue.job_ids == [jobs[3].id]
    assert redis.keys("rq:execution*") + redis.keys("rq:wip:*") == []


def test_what_an_idle_worker_claims_as_a_stop_comes_is_run(redis: Redis, queue: Queue) -> None:
    """It hears of a job, claims it, and is told to stop before it knows what it has claimed."""
    worker = Worker([queue], connection=redis)
    stop_as_it_asks(worker)
    jobs = []

    def enqueue() -> None:
        wait_until(lambda: worker.get_state() == "idle", 30, "an idle worker")
        jobs.append(queue.enqueue(nap, 0))

    client = threading.Thread(target=enqueue)
    client.start()
    worker.work(max_idle_time=5, logging_level="CRITICAL")
    client.join()

    assert jobs[0].return_value() == "rested"
    assert redis.keys("rq:execution*") + redis.keys("rq:wip:*") == []


def lose_execution(url: str) -> str:
    """Have this job's execution closed by somebody else while it runs."""
    with Redis.from_url(url) as redis:
        (key,) = redis.keys("rq:execution:*")
        redis.delete(key)
    return "too late"


def test_a_settled_jobs_late_worker_changes_nothing(redis: Redis, url: str, queue: Queue) -> None:
    """An outcome is stored only while the execution is still open; the next job runs."""
    late = queue.enqueue(lose_execution, url)
    after = queue.enqueue(nap, 0)
    Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")

    assert late.get_status() == JobStatus.STARTED
    assert late.latest_result() is None
    assert queue.finished_job_registry.get_job_ids(cleanup=False) == [after.id]


def test_max_jobs_and_age_end_it_between_jobs(redis: Redis, queue: Queue) -> None:
    """Recycling takes a worker after a job, never during one."""
    jobs = [queue.enqueue(nap, 0.06) for _ in range(4)]
    Worker([queue], connection=redis).work(max_jobs=1, logging_level="CRITICAL")
    aged = Worker([queue], connection=redis)
    aged.max_age = 0.05
    aged.work(logging_level="CRITICAL")

    assert [str(job.get_status()) == "JobStatus.FINISHED" for job in jobs] == [
        True,
        True,
        False,
        False,
    ]


def test_growth_ends_it(redis: Redis, queue: Queue) -> None:
    """A worker that keeps what its jobs leave behind goes after the job that was too much."""
    hoard = [queue.enqueue("tests.integration.test_worker.hoard", 40) for _ in range(3)]
    worker = Worker([queue], connection=redis)
    worker.max_job_memory = 60 * 2**20

    worker.work(logging_level="CRITICAL")
    HOARD.clear()

    assert [job.get_status() for job in hoard] == [
        JobStatus.FINISHED,
        JobStatus.FINISHED,
        JobStatus.QUEUED,
    ]


HOARD: list[bytearray] = []


def hoard(mebibytes: int) -> None:
    """Keep memory for ever."""
    HOARD.append(bytearray(b"x" * mebibytes * 2**20))


def test_a_job_that_cannot_be_read_is_set_aside(redis: Redis, queue: Queue) -> None:
    """The worker lives, the id is kept where a person finds it, the next job runs."""
    bad = queue.enqueue(nap, 0)
    good = queue.enqueue(nap, 0)
    redis.hset(bad.key, "created_at", "yesterday")

    Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")

    assert redis.lrange("pysplash:quarantine:default", 0, -1) == [bad.id.encode()]
    assert good.get_status() == JobStatus.FINISHED
    assert redis.llen(queue.intermediate_queue_key) == 0


@pytest.mark.parametrize("text", ["\ud800", "\0", "\U0001f40d"])
def test_an_error_in_any_characters_is_stored(redis: Redis, queue: Queue, text: str) -> None:
    """A failure whose text cannot be encoded ends no worker and leaves no job started."""
    bad = queue.enqueue("tests.integration.test_worker.fail", text)
    good = queue.enqueue(nap, 0)

    assert Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")

    result = bad.latest_result()
    shown = text.encode(errors="backslashreplace").decode()
    assert bad.get_status() == JobStatus.FAILED
    assert result is not None
    assert f"ValueError: {shown}" in str(result.exc_string)
    assert good.get_status() == JobStatus.FINISHED


def test_a_server_that_is_no_primary_is_left(redis: Redis, queue: Queue) -> None:
    """Another may be it now; where it only has no memory left, the connection is as good as any."""
    worker = Worker([queue], connection=redis)
    before = redis.client_id()
    worker._redis_is_away(OutOfMemoryError(), 0.0)
    assert redis.client_id() == before
    worker._redis_is_away(ReadOnlyError(), 0.0)
    assert redis.client_id() != before


def test_an_absent_redis_is_waited_for(redis: Redis, url: str, queue: Queue) -> None:
    """A refusal between two jobs costs no worker: it goes on when Redis does."""
    job = queue.enqueue(nap, 0)
    connection = Redis.from_url(url)
    worker = Worker([queue.__class__("default", connection=connection)], connection=connection)
    redis.client_pause(1500)

    assert worker.work(burst=True, logging_level="CRITICAL")
    assert job.get_status() == JobStatus.FINISHED
    connection.close()


def test_retries_and_callbacks_are_rqs(redis: Redis, queue: Queue) -> None:
    """What RQ does with a failure, this worker does."""
    job = queue.enqueue(fail, retry=Retry(max=1))
    Worker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")

    job.refresh()
    assert job.retries_left == 0
    assert job.get_status() == JobStatus.FAILED


def test_priority_is_the_order_of_queues(redis: Redis, queue: Queue) -> None:
    """The first queue is served before the second, whatever came first."""
    low = Queue("low", connection=redis)
    later = low.enqueue(nap, 0)
    sooner = queue.enqueue(nap, 0)
    Worker([queue, low], connection=redis).work(max_jobs=1, logging_level="CRITICAL")

    assert sooner.get_status() == JobStatus.FINISHED
    assert later.get_status() == JobStatus.QUEUED


def test_any_rq_worker_class_can_be_supervised() -> None:
    """A foreign class is completed, ours is taken as it is, and anything else is refused."""
    foreign = worker_class("rq.worker.Worker")

    assert issubclass(foreign, Supervised)
    assert issubclass(foreign, ForkingWorker)
    assert worker_class("pysplash.worker.Worker") is Worker
    with pytest.raises(ImportFailed, match=r"rq\.Queue.*no RQ worker class"):
        worker_class("rq.Queue")
    with pytest.raises(ImportFailed, match=r"absent\.Worker"):
        resolve("absent.Worker", "worker class")


def test_a_custom_job_class_is_used(redis: Redis) -> None:
    """Jobs are restored by the class that was named."""
    queue = Queue("default", connection=redis, job_class=LoudJob)
    job = queue.enqueue(nap, 0)
    Worker([queue], connection=redis, job_class=LoudJob).work(burst=True, logging_level="CRITICAL")

    assert job.get_status() == JobStatus.FINISHED
    assert LoudJob.performed == [job.id]


class LoudJob(Job):
    """Notes that it was performed."""

    performed: list[str] = []  # noqa: RUF012 -- shared on purpose: the test reads it

    def perform(self) -> object:
        """Note, then perform."""
        self.performed.append(self.id)
        return super().perform()


def test_a_job_without_an_end_stays_in_its_row(
    redis: Redis, queue: Queue, board: Scoreboard
) -> None:
    """What its worker could not store before it ended is for the pool to settle."""
    job = queue.enqueue(nap, 0)
    queues = [OwnQueue("default", connection=redis)]
    worker = Unheard(queues, connection=redis, name="w", queue_class=OwnQueue)
    worker.slot = Slot(board, 0, "w")
    with pytest.raises(RedisConnectionError, match="unheard"):
        worker.work(burst=True)
    row = board.read(0)
    assert row is not None
    assert row.job_id == job.id
