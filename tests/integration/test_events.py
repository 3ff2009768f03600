"""Events of jobs on a real server: each run is told once as it starts and once as it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.job import Job, JobStatus
from rq.worker import SimpleWorker

import pysplash
from pysplash import events
from pysplash.application.stage import STAGES
from pysplash.embedded import EmbeddedServer
from pysplash.events import JobEvent, WorkerEvent
from pysplash.supervisor.forkserver.boot import worker_class
from pysplash.worker.worker import Worker
from tests.integration import nested_jobs
from tests.integration.staging import play
from tests.integration.test_differential import MODES, SCENARIOS, is_played
from tests.integration.test_helping import play as empty

JOB_EVENTS = ("job_started", "job_finished", "job_failed")
#: how a run of a job ended that has no such status yet, or none any more
RETRIED = "retried"
ABANDONED = "rq.exceptions.AbandonedJobError"


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    """Workers take the process's handlers; give them back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _nobody_else() -> Iterator[None]:
    """Let each test begin without listeners, and leave none."""
    before = {name: [*listeners] for name, listeners in events._LISTENERS.items()}
    for listeners in events._LISTENERS.values():
        listeners.clear()
    yield
    for name, listeners in events._LISTENERS.items():
        listeners[:] = before[name]


@pytest.fixture
def heard(_nobody_else: None) -> list[JobEvent]:
    """Listen to all events of jobs while a test runs."""
    told: list[JobEvent] = []
    for name in JOB_EVENTS:
        pysplash.on(name, told.append)
    return told


def ended(event: JobEvent) -> str:
    """Return how the run of *event* ended, in one word."""
    if event.retried:
        return RETRIED
    return "stopped" if event.stopped else event.event.removeprefix("job_")


def assert_balanced(told: list[JobEvent]) -> None:
    """Fail unless each run that was told to start was told to end, once, before the next one."""
    running: list[str] = []
    for event in told:
        if event.event == "job_started":
            assert event.id not in running, told
            running.append(event.id)
        else:
            assert event.id in running, told
            running.remove(event.id)
    assert running == []


#: each scenario in one mode or another; all four modes of all take five minutes, and held, too
PLAYS = [
    (name, mode)
    for number, (name, scenario) in enumerate(SCENARIOS.items())
    for turn, mode in enumerate(MODES)
    if (number + turn) % 4 == 0 and is_played(number, scenario, mode)
]


@pytest.fixture(scope="module")
def stage() -> Iterator[str]:
    """Return the address of the one server on which all scenarios are played."""
    with EmbeddedServer() as server:
        yield server.url


@pytest.mark.parametrize(("name", "mode"), PLAYS)
def test_every_run_begins_and_ends(name: str, mode: str, stage: str, heard: list[JobEvent]) -> None:
    """Whatever a job does, and whichever way stores its outcome: one start, one end."""
    play(SCENARIOS[name], MODES[mode][0], stage)
    # RQ cleans up after workers that are gone, too
    assert_balanced([event for event in heard if event.error != ABANDONED])


@pytest.mark.parametrize("name", ["abandoned", "abandoned with a retry"])
def test_what_rq_cleans_up_is_told(name: str, stage: str, heard: list[JobEvent]) -> None:
    """A job whose worker and pool are gone is failed by the next worker that cleans up."""
    play(SCENARIOS[name], MODES["alone"][0], stage)
    (event,) = [event for event in heard if event.error == ABANDONED]
    assert (event.event, event.worker) == ("job_failed", "dead")
    assert event.retried == (name != "abandoned")


def divide(left: int, right: int) -> float:
    """Return a quotient, if there is one."""
    return left / right


def again(times: int) -> Any:
    """Ask to be run again."""
    return Retry(max=times)


def report(_job: Job, _connection: Redis, *_about: Any) -> None:
    """Be a callback."""


def refuse(_job: Job, _connection: Redis, *_about: Any) -> None:
    """Be a callback that fails."""
    raise LookupError("nobody to tell")


#: what is enqueued, and how its runs end: (how, error, text)
RUNS: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "returns": ({"args": (6, 3)}, [("finished", "", "")]),
    "has a callback": (
        {"args": (6, 3), "on_success": Callback(report)},
        [("finished", "", "")],
    ),
    "its callback fails": (
        {"args": (6, 3), "on_success": Callback(refuse)},
        [("failed", "LookupError", "nobody to tell")],
    ),
    "raises": ({"args": (1, 0)}, [("failed", "ZeroDivisionError", "division by zero")]),
    "raises and is retried": (
        {"args": (1, 0), "retry": Retry(max=1)},
        [
            (RETRIED, "ZeroDivisionError", "division by zero"),
            ("failed", "ZeroDivisionError", "division by zero"),
        ],
    ),
    "asks for a retry": (
        {"f": again, "args": (1,)},
        [
            (RETRIED, "", ""),
            ("failed", "", "it returned Retry more often than its max allows"),
        ],
    ),
    "takes too long": (
        {"f": nested_jobs.nap, "args": (60,), "job_timeout": 1},
        [
            (
                "failed",
                "rq.timeouts.JobTimeoutException",
                "Task exceeded maximum timeout value (1 seconds)",
            )
        ],
    ),
}


class Odd(Worker):
    """A class of the user's own: RQ's own code runs its jobs and stores how they end."""

    def perform_job(self, *args: Any, **kwargs: Any) -> bool:
        """Run a job as RQ does."""
        return bool(super().perform_job(*args, **kwargs))


@pytest.mark.parametrize("kind", [Worker, Odd, worker_class("rq.worker.SimpleWorker")])
@pytest.mark.parametrize("name", RUNS)
def test_an_event_says_how_a_run_ended(
    name: str, kind: type[Worker], redis: Redis, queue: Queue, heard: list[JobEvent]
) -> None:
    """With the facts of the job, the exception, and whether it runs again; by any worker class."""
    options, ends = RUNS[name]
    function = options.get("f", divide)
    job = queue.enqueue(function, **{k: v for k, v in options.items() if k != "f"})
    empty(kind([queue], connection=redis, name="w"))

    assert_balanced(heard)
    told = [(ended(event), event.error, event.text) for event in heard if event.event[4] == "f"]
    assert told == ends
    place = f"{function.__module__}.{function.__name__}"
    facts = {(event.id, event.function, event.queue, event.worker) for event in heard}
    assert facts == {(job.id, place, "default", "w")}
    assert all(0 <= event.seconds < 50 for event in heard)
    assert heard[-1].seconds > 0


def test_a_stopped_job_has_failed_by_a_stop(
    redis: Redis, queue: Queue, heard: list[JobEvent]
) -> None:
    """It is told as RQ counts it: as failed, with the status stopped, and never retried."""
    play(SCENARIOS["stopped by command"], MODES["alone"][0], url_of(redis))
    (last,) = [event for event in heard if event.event == "job_failed"]
    assert (last.stopped, last.retried, last.error) == (True, False, "")
    assert "stopped by user" in last.text


def url_of(redis: Redis) -> str:
    """Return the address of a server."""
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"


def test_jobs_inside_jobs_are_told(redis: Redis, queue: Queue, heard: list[JobEvent]) -> None:
    """One that waits starts before, and ends after, those that run inside it."""
    queue.enqueue(nested_jobs.fib, 3)
    empty(Worker([queue], connection=redis))
    assert_balanced(heard)
    assert len(heard) == 10
    assert heard[0].id == heard[-1].id
    assert {ended(event) for event in heard} == {"started", "finished"}


def test_a_job_that_ends_with_the_one_around_it_is_told(
    redis: Redis, queue: Queue, heard: list[JobEvent]
) -> None:
    """Its failure callback is called, and the exception handlers, as if its worker had died."""
    queue.enqueue(nested_jobs.wait_for, "1", job_id="0", job_timeout=1)
    child = queue.enqueue(
        nested_jobs.nap, 60, job_id="1", on_failure=Callback(note_failure), at_front=False
    )
    calls: list[Any] = []
    worker = Worker([queue], connection=redis, exception_handlers=[lambda *it: calls.append(it)])
    worker._nest.patience = 0.01
    empty(worker)
    assert_balanced(heard)
    ends = {event.id: event for event in heard if event.event == "job_failed"}
    assert ends["0"].error == "rq.timeouts.JobTimeoutException"
    assert "Job 0, inside which this job ran, exceeded its 1 s" in ends["1"].text
    assert child.get_status() is JobStatus.FAILED
    assert redis.get("callback") == b"AbandonedJobError"
    assert [(job.id, kind.__name__) for job, kind, *_ in calls] == [
        ("1", "AbandonedJobError"),
        ("0", "JobTimeoutException"),
    ]


def note_failure(_job: Job, connection: Redis, kind: type[Exception], *_rest: Any) -> None:
    """Be a callback of a failure."""
    connection.set("callback", kind.__name__)


def test_items_of_a_pipeline_are_told(redis: Redis, heard: list[JobEvent]) -> None:
    """One event for an item that is done, in the name of its stage."""
    try:
        stage = pysplash.Stage("told", lambda _stage, _data: None, connection=redis)
        stage.push(b"x")
        empty(Worker(["told"], connection=redis))
    finally:
        STAGES.pop("told", None)
    assert [(ended(event), event.function) for event in heard] == [
        ("started", "pysplash.items.told"),
        ("finished", "pysplash.items.told"),
    ]


def test_a_job_that_was_deleted_meanwhile_is_told(
    redis: Redis, queue: Queue, heard: list[JobEvent]
) -> None:
    """It ends as it ended, though nothing of it is stored."""
    queue.enqueue(delete_me)
    empty(Worker([queue], connection=redis))
    assert [ended(event) for event in heard] == ["started", "failed"]


def test_a_job_whose_outcome_cannot_be_stored_is_told(
    redis: Redis, queue: Queue, heard: list[JobEvent]
) -> None:
    """It is set aside for a person to find, and has failed."""
    job = queue.enqueue(divide, 6, 3)
    worker = Worker([queue], connection=redis, name="w")
    worker._outcomes.give_up(job, queue, ValueError("no room"))
    (event,) = heard
    assert (ended(event), event.id) == ("failed", job.id)
    assert "its outcome cannot be stored (ValueError: no room)" in event.text


def delete_me() -> None:
    """Delete the job, and fail."""
    nested_jobs.me().delete()
    raise ValueError("gone")


def test_a_worker_is_told_when_it_takes_jobs(redis: Redis, queue: Queue) -> None:
    """It is on RQ's list by then."""
    told: list[tuple[WorkerEvent, int]] = []
    pysplash.on(
        "worker_started",
        lambda event: told.append((event, len(SimpleWorker.all(connection=redis)))),
    )
    empty(Worker([queue], connection=redis, name="w"))
    assert told == [(WorkerEvent("worker_started", "w", os.getpid()), 1)]


def test_a_listener_that_ends_the_process_costs_no_job(
    redis: Redis, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """All jobs are run and stored, whatever listeners do."""

    def leave(_event: JobEvent) -> None:
        raise SystemExit("enough")

    jobs = [queue.enqueue(divide, 1, right) for right in (1, 0, 2)]
    for name in JOB_EVENTS:
        pysplash.on(name, leave)
    empty(Worker([queue], connection=redis))
    statuses = [job.get_status() for job in jobs]
    assert statuses == [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.FINISHED]
    assert "leave, called for job_started, failed" in caplog.text
