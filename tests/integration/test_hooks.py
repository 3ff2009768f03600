"""Methods of RQ that a tool has patched are called, as RQ's own worker calls them."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
import rq.worker
from redis import Redis
from rq import Callback, Queue, Retry, SimpleWorker
from rq.job import Job, JobStatus
from rq.worker import BaseWorker

from pysplash.jobs.own_methods import is_own
from pysplash.waiting.wait import map_jobs, wait_jobs
from pysplash.worker import hooks
from pysplash.worker.hooks import find_hooks
from pysplash.worker.scoreboard import Scoreboard, Slot
from pysplash.worker.worker import Worker

#: what tools patch, in the classes where RQ has it
OF_WORKERS = (
    "perform_job",
    "prepare_job_execution",
    "handle_execution_ended",
    "handle_job_success",
    "handle_job_failure",
    "handle_job_retry",
    "handle_exception",
)
Calls = list[tuple[str, Any]]


def plain(number: int) -> int:
    """Return what is a result."""
    return number


def raises(number: int) -> int:
    """Fail."""
    raise ValueError(f"number {number}")


def again(number: int) -> Retry:
    """Ask to be run again."""
    return Retry(max=1)


def told(*_: Any, **__: Any) -> None:
    """Be a callback."""


def outer(count: int) -> list[Any]:
    """Wait for some jobs."""
    queue = Queue("default", connection=current().connection)
    children = [queue.enqueue(plain, number) for number in range(count)]
    wait_jobs(children, 30, True, progress=False)
    return [child.return_value() for child in children]


def current() -> Job:
    """Return the job that runs."""
    from rq import get_current_job  # noqa: PLC0415 -- patched in RQ 2's place, too

    job = get_current_job()
    assert job is not None
    return job


def patch(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, note: Callable[[str, Any], None]
) -> None:
    """Have *note* told of each call of a method."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def wrapper(self: Any, *arguments: Any, **settings: Any) -> Any:
        note(name, shape(self, arguments, settings))
        return inner(self, *arguments, **settings)

    monkeypatch.setattr(owner, name, wrapper)


def shape(owner: Any, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """Return what can be compared of a call: kinds of arguments, whose job it is."""
    jobs = [each.id for each in (owner, *arguments, *settings.values()) if isinstance(each, Job)]
    return [type(each).__name__ for each in arguments], sorted(settings), jobs


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """The queue of these tests."""
    return Queue("default", connection=redis)


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """A scoreboard for one worker."""
    with contextlib.closing(Scoreboard(1)) as board:
        yield board


def run(kind: type[BaseWorker], queue: Queue, board: Scoreboard | None = None) -> None:
    """Have one worker do what there is; with a *board*, as one of a pool."""
    worker: Any = kind([queue], connection=queue.connection)
    if board is not None:
        worker.slot = Slot(board, 0, worker.name)
    worker.work(burst=True)


def enqueue_some(queue: Queue) -> list[Job]:
    """Enqueue a job of each kind of outcome."""
    queue.connection.flushdb()
    called_back = {"on_success": Callback(told), "on_failure": Callback(told)}
    return [
        queue.enqueue(plain, 1, job_id="plain"),
        queue.enqueue(raises, 2, job_id="raises"),
        queue.enqueue(again, 3, job_id="again"),
        queue.enqueue(plain, 4, job_id="plain-back", **called_back),
        queue.enqueue(raises, 5, job_id="raises-back", **called_back),
    ]


@pytest.mark.parametrize("names", [(name,) for name in OF_WORKERS] + [OF_WORKERS])
@pytest.mark.parametrize("owner", [BaseWorker, SimpleWorker])
def test_calls_are_rqs(
    queue: Queue,
    board: Scoreboard,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    names: tuple[str, ...],
) -> None:
    """The same methods, with the same arguments, in the same order, for each kind of outcome."""
    calls: Calls = []
    for name in names:
        patch(monkeypatch, owner, name, lambda *call: calls.append(call))
    patch(monkeypatch, Job, "perform", lambda *call: calls.append(call))
    patch(monkeypatch, SimpleWorker, "execute_job", lambda *call: calls.append(call))
    enqueue_some(queue)
    run(SimpleWorker, queue)
    expected = calls[:]
    calls.clear()
    for seat in (None, board):
        jobs = enqueue_some(queue)
        run(Worker, queue, seat)
        statuses = [job.get_status() for job in jobs]

        assert calls == expected
        assert statuses == ["finished", "failed", "failed", "finished", "failed"]
        calls.clear()


@pytest.mark.parametrize("owner", [SimpleWorker, Worker])
def test_each_job_of_a_batch_is_performed(
    queue: Queue, board: Scoreboard, monkeypatch: pytest.MonkeyPatch, owner: type
) -> None:
    """Jobs that are claimed and stored in batches are run through what is patched, too."""
    calls: list[str] = []
    patch(monkeypatch, owner, "perform_job", lambda name, _: calls.append(name))
    jobs = [queue.enqueue(plain, number) for number in range(60)]
    queue.connection.config_resetstat()
    run(Worker, queue, board)

    assert calls == ["perform_job"] * 60
    assert [job.return_value() for job in jobs] == list(range(60))
    commands: Any = queue.connection.info("commandstats")
    assert commands["cmdstat_evalsha"]["calls"] < 60


def test_nested_jobs_are_performed(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, board: Scoreboard
) -> None:
    """Jobs that run inside one that waits for them."""
    calls: list[str] = []
    patch(monkeypatch, BaseWorker, "perform_job", lambda name, _: calls.append(name))
    patch(monkeypatch, Job, "perform", lambda name, _: calls.append(name))
    job = queue.enqueue(outer, 5)
    run(Worker, queue, board)

    assert job.return_value() == [0, 1, 2, 3, 4]
    assert calls == ["perform_job", "perform"] * 6


def test_a_method_patched_by_a_job_is_called_for_the_next(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a module is imported with the first job that calls it."""
    calls: list[str] = []

    class Patches(Worker):
        def _perform(self, *arguments: Any, **settings: Any) -> None:
            super()._perform(*arguments, **settings)
            if not calls:
                calls.append("patched")
                patch(monkeypatch, Job, "perform", lambda name, _: calls.append(name))

    for number in range(3):
        queue.enqueue(plain, number)
    run(Patches, queue)
    assert calls == ["patched", "perform", "perform"]


class Wrapper:
    """A wrapper that is no function and says it is one, as wrapt makes them."""

    def __init__(self, inner: Any, calls: list[str]) -> None:
        self.inner, self.calls = inner, calls

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self.inner.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        bound = self.inner.__get__(owner, kind)

        def call(*arguments: Any, **settings: Any) -> Any:
            self.calls.append("wrapped")
            return bound(*arguments, **settings)

        return call


def test_wrappers_of_all_kinds_are_called(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor, around itself a second time; a method replaced on the worker alone."""
    calls: list[str] = []
    twice = Wrapper(Wrapper(vars(BaseWorker)["perform_job"], calls), calls)
    monkeypatch.setattr(BaseWorker, "perform_job", twice)
    job = queue.enqueue(plain, 3)
    run(Worker, queue)
    assert job.return_value() == 3
    assert calls == ["wrapped"] * 2

    calls.clear()
    worker = Worker([queue], connection=queue.connection)
    execute = MagicMock(wraps=worker.execute_job)
    monkeypatch.setattr(worker, "execute_job", execute)
    queue.enqueue(plain, 4)
    worker.work(burst=True)
    assert execute.call_count == 1


@pytest.mark.parametrize("when", ["before", "after", "instead"])
@pytest.mark.parametrize("owner", [BaseWorker, SimpleWorker])
def test_a_hook_that_raises(
    queue: Queue,
    board: Scoreboard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: type,
    when: str,
) -> None:
    """Before the job has run, it fails for that; after it, the outcome stands; the worker goes on.

    One that does not run the job has it fail as well.
    """
    name = "perform_job" if owner is BaseWorker else "execute_job"
    inner = vars(owner)[name]

    def hook(self: Any, *arguments: Any) -> Any:
        if when == "before":
            raise RuntimeError("the hook is broken")
        value = inner(self, *arguments) if when == "after" else None
        if when == "after":
            raise RuntimeError("the hook is broken")
        return value

    monkeypatch.setattr(owner, name, hook)
    jobs = [queue.enqueue(plain, number) for number in range(2)]
    with caplog.at_level(logging.ERROR):
        run(Worker, queue, board)
    if when == "after":
        assert [job.return_value() for job in jobs] == [0, 1]
        assert caplog.text.count("the outcome stands") == 2
    else:
        assert [job.get_status() for job in jobs] == [JobStatus.FAILED] * 2
        said = "the hook is broken" if when == "before" else "did not run the job"
        assert said in str(jobs[0].latest_result().exc_string)  # type: ignore[union-attr]


def test_what_nobody_has_patched(queue: Queue) -> None:
    """RQ's methods and ours are told from others; an unpatched worker has no hooks."""
    worker = Worker([queue], connection=queue.connection)
    assert find_hooks(worker) == hooks.Hooks()
    assert is_own(vars(BaseWorker)["perform_job"])
    assert not is_own(plain)
    assert not is_own(MagicMock())


def test_what_is_never_called_is_said(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A patched method of workers that fork is named in the log, once."""
    patch(monkeypatch, rq.worker.Worker, "fork_work_horse", lambda *_: None)
    for number in range(3):
        queue.enqueue(plain, number)
    with caplog.at_level(logging.WARNING):
        run(Worker, queue)
    assert caplog.text.count("fork_work_horse is patched and never called") == 1


@pytest.mark.parametrize("owner", [rq.worker.Worker, BaseWorker, SimpleWorker, Worker])
@pytest.mark.parametrize(
    "names",
    [
        ("perform_job",),
        ("main_work_horse",),
        ("execute_job",),
        ("main_work_horse", "perform_job"),
        ("handle_job_failure",),
    ],
)
def test_a_patch_of_any_worker_class_is_called(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, owner: type, names: tuple[str, ...]
) -> None:
    """The forking worker's, too, whose place ours takes; the worker goes on in its process."""
    if names == ("execute_job",) and owner is BaseWorker:
        pytest.skip("RQ's workers each have their own")
    calls: list[str] = []
    for name in names:
        patch(monkeypatch, owner, name, lambda name, _: calls.append(name))
    jobs = [queue.enqueue(plain, 1), queue.enqueue(raises, 2), queue.enqueue(plain, 3)]
    run(Worker, queue)

    statuses = [job.get_status() for job in jobs]
    assert statuses == [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.FINISHED]
    assert calls == list(names) * (1 if names == ("handle_job_failure",) else 3)


def doubled() -> list[Any]:
    """Map over numbers inside a job; return the results."""
    return map_jobs(plain, [1, 2, 3], progress=False)


def test_map_jobs_enqueues_through_a_patch(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a patch of enqueue_job adds to a job's meta reaches the job, and the order stays."""
    ran: list[Any] = []
    inner, perform = Queue.enqueue_job, Job.perform

    def enqueue_job(self: Queue, job: Job, **options: Any) -> Job:
        job.meta["trace"] = "here"
        return inner(self, job, **options)

    def performed(self: Job) -> Any:
        ran.append((self.args, self.meta.get("trace")))
        return perform(self)

    monkeypatch.setattr(Queue, "enqueue_job", enqueue_job)
    monkeypatch.setattr(Job, "perform", performed)
    job = queue.enqueue(doubled)
    run(Worker, queue)
    assert job.return_value() == [1, 2, 3]
    assert [tuple(args) for args, _ in ran[1:]] == [(1,), (2,), (3,)]
    assert {trace for _, trace in ran} == {"here"}
