"""Listeners of events: registered, told, refused, and never in the way."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import pysplash
from pysplash import events
from pysplash.control.model import Reason, WorkerState
from pysplash.errors import ConfigError
from pysplash.events import JOB_FAILED, JobEvent, Listening, ScaleEvent, WorkerEvent, tell
from pysplash.supervisor.callbacks import GRACE
from pysplash.supervisor.forkserver.client import Ready, ServerDied
from pysplash.supervisor.listeners import ListenerThread, deaf
from pysplash.supervisor.loop import Supervisor
from pysplash.supervisor.pool import Pool
from pysplash.testing import World
from tests.waiting import wait_until

KILLED = 9
#: the hash of a job with a failure callback that may take 7 seconds
WITH_CALLBACK = {b"failure_callback_name": b"app.report", b"failure_callback_timeout": b"7"}


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    """Let each test begin without listeners: other tests' modules may have registered some."""
    before = {name: [*listeners] for name, listeners in events._LISTENERS.items()}
    events._complaints.clear()
    for listeners in events._LISTENERS.values():
        listeners.clear()
    yield
    for name, listeners in events._LISTENERS.items():
        listeners[:] = before[name]


def failed(job_id: str = "j") -> JobEvent:
    """Return an event."""
    return JobEvent("job_failed", job_id, "app.f", "default", "w")


# --- registering ---


def test_a_function_is_registered_by_a_call_and_by_a_decorator() -> None:
    """Both return the function as it was, and both are told, in the order of registration."""
    heard: list[Any] = []
    assert pysplash.on("job_failed", heard.append) == heard.append

    @pysplash.on("job_failed")
    def second(event: JobEvent) -> None:
        heard.append(event.id)

    tell(JOB_FAILED, failed("1"))
    assert heard == [failed("1"), "1"]
    assert events.registered()[1][1].endswith("second")


def test_a_function_that_is_registered_twice_is_called_once() -> None:
    """The same function, and the same one of a module that is loaded once more."""
    heard: list[int] = []
    spaces: list[dict[str, Any]] = [{"__name__": "app", "heard": heard} for _ in range(2)]
    for number, space in enumerate(spaces):
        exec(f"def listen(event): heard.append({number})", space)
        pysplash.on("job_failed", space["listen"])
        pysplash.on("job_failed", space["listen"])
    tell(JOB_FAILED, failed())
    assert heard == [1]


def test_functions_without_a_name_of_their_own_are_all_called() -> None:
    """Two lambdas of one line are two functions."""
    heard: list[int] = []
    for number in range(2):
        pysplash.on("job_failed", lambda _, number=number: heard.append(number))
    tell(JOB_FAILED, failed())
    assert heard == [0, 1]


@pytest.mark.parametrize("name", ["job_finish", "worker_dead", 7, None])
def test_an_unknown_event_is_refused_with_the_list(name: Any) -> None:
    """A name with a slip in it is answered by all names, and the nearest first."""
    with pytest.raises(ConfigError, match="job_started, job_finished, job_failed, worker_") as told:
        pysplash.on(name, print)
    near = {"job_finish": "did you mean 'job_finished'?", "worker_dead": "'worker_died'?"}
    assert near.get(name, repr(name)) in str(told.value)


def test_what_cannot_be_called_is_refused() -> None:
    """A coroutine function would be made and never run."""

    async def listen(_event: JobEvent) -> None:
        """Never run."""

    wrong: list[tuple[Any, str]] = [(3, "cannot be called"), (listen, "coroutine function")]
    for what, why in wrong:
        with pytest.raises(ConfigError, match=why):
            pysplash.on("job_failed", what)
    assert JOB_FAILED == []


# --- telling ---


def test_a_listener_that_fails_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Others are told all the same; the next line on it comes in a minute at the earliest."""
    heard: list[str] = []

    @pysplash.on("job_failed")
    def broken(event: JobEvent) -> None:
        raise {"1": ValueError("no luck"), "2": SystemExit(3)}[event.id]

    pysplash.on("job_failed", lambda event: heard.append(event.id))
    for job_id in "12":
        tell(JOB_FAILED, failed(job_id))
    assert heard == ["1", "2"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "broken, called for job_failed, failed" in line
    assert "ValueError: no luck" in line


# --- in the pool ---


def supervise(world: World, **arguments: Any) -> Supervisor:
    """Return the supervisor of a pool of one worker."""
    pool = Pool(["default"], name="p", min_procs=1, max_procs=1, **arguments)
    return pool.supervise(world.devices())


def kill_under_a_job(world: World, supervisor: Supervisor) -> str:
    """Let the pool's worker die under a job; return its name."""
    supervisor.tick()
    (name,) = world.alive
    world.busy(name, "j1")
    supervisor.tick()
    world.exit(name, KILLED)
    supervisor.tick()
    return name


def test_a_death_is_told_with_what_was_done(caplog: pytest.LogCaptureFixture) -> None:
    """The event has the process, how it ended, and the fate of its job."""
    heard: list[WorkerEvent] = []
    pysplash.on("worker_died", heard.append)
    world = World()
    supervisor = supervise(world)
    name = kill_under_a_job(world, supervisor)
    supervisor._end()
    assert heard == [WorkerEvent("worker_died", name, 101, "killed by SIGKILL", {"j1": "failed"})]


def test_a_worker_that_leaves_well_has_not_died() -> None:
    """Nobody is alarmed by an ordinary end."""
    heard: list[WorkerEvent] = []
    pysplash.on("worker_died", heard.append)
    world = World()
    supervisor = supervise(world)
    supervisor.tick()
    (name,) = world.alive
    world.set_state(name, WorkerState.STOPPING, unsaid=True)
    world.pass_time(10)
    world.exit(name, 0)
    supervisor.tick()
    supervisor._end()
    assert [loss.worker for loss in world.losses] == [name]
    assert heard == []


def test_a_new_target_is_told_with_its_reason() -> None:
    """Once, as it changes."""
    heard: list[ScaleEvent] = []
    pysplash.on("scaled", heard.append)
    world = World(queued=3)
    supervisor = supervise(world)
    for _ in range(3):
        supervisor.tick()
    supervisor._end()
    (event,) = heard
    assert (event.before, event.after, event.pool) == (0, 1, "p")
    assert (event.reason, event.queued, event.workers) == (Reason.MIN, 3, 0)


def test_a_slow_listener_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    """Events wait for it; at the end it gets a while, and then a line says what is lost."""
    gate: list[bool] = []

    def slow(_event: object) -> None:
        wait_until(lambda: gate, 30, "the gate")

    thread = ListenerThread()
    for _ in range(1002):
        thread.tell([slow], failed())
    thread.close(0.01)
    gate.append(True)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == [
        "events are lost, as a listener takes too long",
        "events are lost, as a listener takes longer than 0 s",
    ]


def test_who_listens_in_the_wrong_process_is_told() -> None:
    """A line for what is registered where its event never happens, and none for the others."""
    here: dict[str, Any] = {"__name__": "__main__"}
    exec("def mine(event): pass\ndef loaded(event): pass", here)
    pysplash.on("job_failed", here["mine"])
    pysplash.on("worker_died", here["mine"])
    pysplash.on("job_failed", here["loaded"])
    preloaded = [
        Listening("worker_died", "app.alert", "app.py:alert"),
        Listening("worker_died", "launch.mine", "<string>:mine"),
        Listening("job_failed", "app.count", "app.py:count"),
        Listening("job_failed", "launch.loaded", "<string>:loaded"),
    ]
    lines = deaf(preloaded)
    assert [line.partition(",")[0] for line in lines] == [
        "app.alert listens to worker_died",
        "__main__.mine listens to job_failed",
    ]


# --- callbacks of a job whose worker died ---


def test_a_failure_callback_gets_a_process() -> None:
    """A process is asked for once the job is settled; a job without a callback needs none."""
    world = World()
    kill_under_a_job(world, supervise(world))
    assert world.called_back == {}

    world = World(job_fields=WITH_CALLBACK)
    kill_under_a_job(world, supervise(world))
    assert [job.id for job in world.called_back.values()] == ["j1"]


def test_handlers_and_listeners_get_one_too() -> None:
    """A job without a callback of its own, where the pool has handlers, or a module listens."""
    world = World(handled=True)
    kill_under_a_job(world, supervise(world))
    assert len(world.called_back) == 1

    world = World()
    supervisor = supervise(world)
    world.happen(
        Ready(99, 1, (), listeners=(Listening("job_failed", "app.count", "app.py:count"),))
    )
    kill_under_a_job(world, supervisor)
    assert len(world.called_back) == 1


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said of callbacks that may not have run."""
    return [
        record.getMessage().rpartition("again: ")[2]
        for record in caplog.records
        if record.levelno == logging.WARNING and "may not have run" in record.getMessage()
    ]


def test_a_callback_that_hangs_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    """It gets its timeout and a minute; then its process is killed, and the log names the job."""
    world = World(job_fields=WITH_CALLBACK)
    supervisor = supervise(world)
    kill_under_a_job(world, supervisor)
    (process,) = world.called_back
    world.pass_time(7 + GRACE - 1)
    supervisor.tick()
    assert ("kill", process) not in world.asked
    world.pass_time(2)
    supervisor.tick()
    assert ("kill", process) in world.asked
    supervisor.tick()
    assert warnings(caplog) == ["took too long"]
    assert len(world.called_back) == 1


def test_a_pool_waits_for_callbacks_and_says_which_did_not_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Five seconds at its end, not more; the log names the job."""
    world = World(job_fields=WITH_CALLBACK)
    supervisor = supervise(world)
    kill_under_a_job(world, supervisor)
    supervisor.stop()
    for _ in range(2):
        supervisor.tick()
        for name in list(world.alive):
            world.exit(name, 0)
    supervisor.tick()
    assert not len(supervisor.table)
    assert not supervisor.finished
    world.pass_time(6)
    assert supervisor.finished
    supervisor._end()
    assert warnings(caplog) == ["the pool has ended meanwhile"]


def test_a_callback_whose_fork_server_died_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """It is not run again: nobody knows how far it got."""
    world = World(job_fields=WITH_CALLBACK)
    supervisor = supervise(world)
    kill_under_a_job(world, supervisor)
    world.happen(ServerDied(tuple(world.called_back), KILLED))
    supervisor.tick()
    supervisor.tick()
    assert warnings(caplog) == ["its fork server died"]
    assert len(world.called_back) == 1


def test_jobs_of_one_worker_follow_one_another() -> None:
    """The innermost job's callback has ended before the next one's begins."""
    world = World(job_fields=WITH_CALLBACK)
    supervisor = supervise(world)
    kill_under_a_job(world, supervisor)
    (first,) = world.called_back
    job = world.called_back[first]
    supervisor._callbacks.add(job)
    supervisor.tick()
    assert [*world.called_back] == [first]
    supervisor._callbacks.note_exit(first, 0, "")
    supervisor.tick()
    assert len(world.called_back) == 2
