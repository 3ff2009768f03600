"""The real supervisor, over a world that is told what happens: histories, replayed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from pysplash.application.registry import TaskSpec
from pysplash.control.model import ANY, Lesson, Reason, WorkerState
from pysplash.errors import CrashLoop, ImportFailed, WorkerBootError
from pysplash.supervisor.forkserver.client import Event, PreloadFailed, Ready, ServerDied
from pysplash.supervisor.loop import Supervisor
from pysplash.supervisor.pool import Pool
from pysplash.testing import World

KILLED = int(signal.SIGKILL)
BOOT_FAILED = 3 << 8
IMPORT_FAILED = 4 << 8


def supervise(world: World, **arguments: object) -> Supervisor:
    """Return the supervisor of a small pool over *world*."""
    pool = Pool(["default"], name="p", **{"max_procs": 8, **arguments})  # type: ignore[arg-type]
    return pool.supervise(world.devices())


def run_until_empty(supervisor: Supervisor, world: World, ticks: int = 50) -> None:
    """Tick, with workers that obey, until the pool is empty."""
    for _ in range(ticks):
        supervisor.tick()
        for name in world.asked_of("stop"):
            if name in world.alive and world.rows[world.alive[name]].job_started is None:
                world.exit(name)
        world.pass_time(1)
        if not world.alive and not len(supervisor.table):
            return


def boot(world: World, supervisor: Supervisor) -> list[str]:
    """Take the first tick and return the names of the workers it started."""
    supervisor.tick()
    return list(world.alive)


History = Callable[[World, Supervisor], None]


def crash_then_respawn(world: World, supervisor: Supervisor) -> None:
    """A worker killed under a job: its job is settled and its slot refilled, in one tick."""
    (name,) = boot(world, supervisor)
    world.busy(name, "j1")
    supervisor.tick()
    world.exit(name, KILLED)
    supervisor.tick()


def idle_crash(world: World, supervisor: Supervisor) -> None:
    """A worker killed while idle: there is a key in Redis to end, but no job."""
    (name,) = boot(world, supervisor)
    world.idle(name)
    supervisor.tick()
    world.exit(name, KILLED)
    supervisor.tick()


def warm_exit(world: World, supervisor: Supervisor) -> None:
    """A worker that leaves as it should owes nothing."""
    (name,) = boot(world, supervisor)
    world.pass_time(10)
    supervisor.tick()
    world.exit(name, 0)
    supervisor.tick()


@pytest.mark.parametrize(
    ("history", "lost", "spawned", "failed"),
    [
        (crash_then_respawn, ["j1"], 2, 1),
        (idle_crash, [""], 2, 1),
        (warm_exit, [], 2, 0),
    ],
)
def test_exits(history: History, lost: list[str], spawned: int, failed: int) -> None:
    """Each way to go leaves exactly its own debts, and the pool is whole again."""
    world = World()
    supervisor = supervise(world)

    history(world, supervisor)

    assert [loss.job_id for loss in world.losses] == lost
    assert supervisor.accounting.spawned == spawned
    assert supervisor.accounting.failed == failed
    assert len(world.alive) == 1


def test_the_cause_is_told() -> None:
    """The loss says how the worker ended, and whether the pool itself did it."""
    world = World()
    supervisor = supervise(world)
    (name,) = boot(world, supervisor)
    world.busy(name, "j1", timeout=10)
    world.pass_time(11.5)
    supervisor.tick()
    world.pass_time(4)
    supervisor.tick()
    supervisor.tick()

    (loss,) = world.losses
    assert world.asked_of("stop") == [name]
    assert world.asked_of("kill") == [name]
    assert "SIGKILL" in loss.cause
    assert "overdue" in loss.cause
    assert loss.suspect


def test_a_backlog_grows_the_pool_in_doubling_steps() -> None:
    """1, 2, 4, 8: each step after the last has had its time."""
    world = World(queued=100, lessons={ANY: Lesson(jobs=9, cores=0.1, peak=1e7)})
    supervisor = supervise(world)
    sizes = []
    for _ in range(12):
        supervisor.tick()
        for name in world.alive:
            if world.rows[world.alive[name]].state is WorkerState.IDLE:
                world.busy(name)
        sizes.append(len(world.alive))
        world.pass_time(1)

    assert sizes[-1] == 8
    assert [b - a for a, b in pairwise(sizes) if b > a] == [1, 2, 4]


def test_idle_workers_retire_to_the_floor() -> None:
    """After the work, the pool falls back to its smallest size, by warm stops alone."""
    world = World(queued=100)
    supervisor = supervise(world, min_procs=1)
    for _ in range(10):
        supervisor.tick()
        for name in world.alive:
            world.busy(name)
        world.pass_time(2)
    world.queued = 0
    for name in list(world.alive):
        world.idle(name)
    for _ in range(30):
        supervisor.tick()
        for name in world.asked_of("stop"):
            if name in world.alive:
                world.exit(name)
        world.pass_time(1)

    assert len(world.alive) == 1
    assert world.asked_of("kill") == []


def test_a_boot_that_fails_backs_off_and_gives_up() -> None:
    """Workers that die at start are tried ever more slowly, then the pool ends and says why."""
    world = World(ready_at_once=False)
    supervisor = supervise(world, min_procs=2)
    times = []
    for _ in range(400):
        before = len(world.asked_of("spawn"))
        supervisor.tick()
        if len(world.asked_of("spawn")) > before:
            times.append(world.now)
        for name in list(world.alive):
            world.exit(name, BOOT_FAILED, "ValueError: boom")
        world.pass_time(0.1)
        if supervisor.finished:
            break

    gaps = [b - a for a, b in pairwise(times)]
    assert len(world.asked_of("spawn")) == 5
    assert gaps == sorted(gaps)
    with pytest.raises(WorkerBootError, match="boom"):
        supervisor.run()


def test_an_import_error_at_start_ends_the_pool_at_once() -> None:
    """A worker whose class cannot be imported will not be there next time either."""
    world = World(ready_at_once=False)
    supervisor = supervise(world)
    (name,) = boot(world, supervisor)
    world.exit(name, IMPORT_FAILED, "pysplash.errors.ImportFailed: worker class 'x' is absent")
    supervisor.tick()

    with pytest.raises(ImportFailed, match=r"^worker class 'x' is absent"):
        supervisor.run()


def test_workers_that_crash_again_and_again_end_the_pool() -> None:
    """Workers that once ran but now die without a job are a crash loop, in the end."""
    world = World()
    supervisor = supervise(world)
    for _ in range(2000):
        supervisor.tick()
        for name in list(world.alive):
            world.exit(name, KILLED)
        world.pass_time(0.5)
        if supervisor.finished:
            break

    assert len(world.asked_of("spawn")) == 10
    with pytest.raises(CrashLoop, match="SIGKILL"):
        supervisor.run()


def test_a_warm_stop_waits_for_jobs_until_its_deadline() -> None:
    """TERM stops everyone once; what still runs at the deadline is killed and settled."""
    world = World()
    supervisor = supervise(world, min_procs=2, terminate_seconds=5)
    quick, slow = boot(world, supervisor)
    world.busy(slow, "slow")
    world.signals.append(signal.SIGTERM)
    run_until_empty(supervisor, world)

    assert sorted(world.asked_of("stop")) == sorted([quick, slow])
    assert world.asked_of("kill") == [slow]
    assert [(loss.job_id, loss.suspect) for loss in world.losses] == [("slow", False)]


@pytest.mark.parametrize(("apart", "cold"), [(0.1, False), (1.0, True)])
def test_a_second_signal_is_a_cold_stop_unless_it_is_an_echo(apart: float, cold: bool) -> None:
    """Two INTs from one key press are one; a second press means now."""
    world = World()
    supervisor = supervise(world)
    (name,) = boot(world, supervisor)
    world.busy(name, "j")
    world.signals.append(signal.SIGINT)
    supervisor.tick()
    world.now += apart
    world.signals.append(signal.SIGINT)
    supervisor.tick()

    assert (world.asked_of("kill") == [name]) is cold


def test_ttin_and_ttou_move_the_floor_within_its_bounds() -> None:
    """One more, one fewer, never below none or above max_procs."""
    world = World()
    supervisor = supervise(world, max_procs=2)
    targets = []
    for number in (signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU, signal.SIGTTOU):
        world.signals.append(number)
        supervisor.tick()
        targets.append(len(world.alive))
    assert targets[:2] == [2, 2]
    world.pass_time(60)
    assert supervisor.tick().reason is Reason.IDLE


def test_hup_replaces_every_worker() -> None:
    """A fresh fork server, then new workers for old ones, warm, a few at a time."""
    world = World()
    supervisor = supervise(world, min_procs=3)
    supervisor.tick()
    world.happen(Ready(99, 1))
    supervisor.tick()
    old = set(world.alive)
    world.pass_time(1)
    world.signals.append(signal.SIGHUP)
    supervisor.tick()
    assert ("renew", "") in world.asked
    world.happen(Ready(100, 1))
    for _ in range(20):
        supervisor.tick()
        for name in world.asked_of("stop"):
            if name in world.alive:
                world.exit(name)
        world.pass_time(1)
        assert len(world.alive) >= 2

    assert len(world.alive) == 3
    assert not old & set(world.alive)


def test_a_preload_that_fails_at_start_ends_the_pool() -> None:
    """A module that cannot be preloaded is named, with what was wrong."""
    world = World(server_pids=())
    supervisor = supervise(world)
    world.happen(PreloadFailed("absent", "ModuleNotFoundError: No module named 'absent'"))

    with pytest.raises(ImportFailed, match="'absent' cannot be preloaded"):
        supervisor.run()


def test_the_death_of_the_fork_server_costs_its_workers_and_no_more() -> None:
    """Their jobs are settled and others are started."""
    world = World()
    supervisor = supervise(world, min_procs=2)
    names = boot(world, supervisor)
    world.busy(names[0], "j")
    supervisor.tick()
    world.alive.clear()
    world.happen(ServerDied(tuple(names), -9))
    supervisor.tick()

    assert sorted(loss.job_id for loss in world.losses) == ["", "j"]
    assert len(world.alive) == 2


def test_an_absent_redis_costs_nobody() -> None:
    """While the queues cannot be read, nobody is started, stopped or taken for dead."""
    world = World(queued=5)
    supervisor = supervise(world)
    boot(world, supervisor)
    world.asked.clear()
    world.queued = None
    for _ in range(60):
        world.now += 10
        assert supervisor.tick().reason is Reason.REDIS

    assert world.asked == []


def test_a_scheduler_is_kept_alive() -> None:
    """One scheduler a pool, started again after a pause, stopped with the pool."""
    world = World()
    supervisor = supervise(world, with_scheduler=True)
    supervisor.tick()
    assert world.asked_of("scheduler") == ["p-scheduler"]
    world.alive["p-scheduler"] = -1
    world.exit("p-scheduler", KILLED)
    supervisor.tick()
    assert len(world.asked_of("scheduler")) == 1
    world.pass_time(6)
    supervisor.tick()
    assert len(world.asked_of("scheduler")) == 2


def test_only_the_first_worker_cleans_registries() -> None:
    """RQ's maintenance runs once an interval, not at every start."""
    world = World()
    supervisor = supervise(world, min_procs=3)
    supervisor.tick()

    assert [name in world.maintaining for name in world.asked_of("spawn")] == [True, False, False]


def test_jobs_are_counted_once() -> None:
    """The accounting adds what live workers did to what departed ones did."""
    world = World()
    supervisor = supervise(world)
    (name,) = boot(world, supervisor)
    for _ in range(3):
        world.idle(name)
        supervisor.tick()
    assert supervisor.accounting.jobs == 3
    world.idle(name)
    world.exit(name)
    supervisor.tick()

    assert supervisor.accounting.jobs == 4


def test_a_burst_ends_by_itself() -> None:
    """When nothing is left to do for a while, everyone is let go and the status is 0."""
    world = World(queued=1)
    supervisor = supervise(world, burst=True)
    (name,) = boot(world, supervisor)
    world.queued = 0
    world.busy(name)
    supervisor.tick()
    world.pass_time(5)
    assert supervisor.tick().target == 1
    world.idle(name)
    run_until_empty(supervisor, world)

    assert supervisor.finished
    assert world.asked_of("kill") == []


def test_what_a_fork_server_loaded_is_offered() -> None:
    """A pool offers the tasks of its latest fork server, and is closed as soon as it stops."""
    world = World()
    supervisor = supervise(world)
    world.happen(Ready(99, 1, (TaskSpec("old"),)))
    supervisor.tick()
    assert (world.tasks, world.open) == (("old",), True)
    world.happen(Ready(100, 1, (TaskSpec("new"), TaskSpec("newer"))))
    supervisor.tick()
    assert (world.tasks, world.open) == (("new", "newer"), True)
    world.signals.append(signal.SIGTERM)
    supervisor.tick()
    assert world.open is False


def test_what_jobs_need_is_learned_and_kept() -> None:
    """Finished jobs become lessons that the policy sees and that outlive the pool."""
    world = World(queued=1, cores=0.4)
    supervisor = supervise(world)
    (name,) = boot(world, supervisor)
    for _ in range(6):
        world.set_state(
            name, WorkerState.BUSY, job_started=world.now, job_id="j", function="app.resize"
        )
        for _ in range(3):
            supervisor.tick()
            world.pass_time(1)
        world.idle(name)
        supervisor.tick()
        world.pass_time(1)
    world.pass_time(60)
    supervisor.tick()
    view, _ = world.record[-1]

    assert view.lessons["app.resize"].proven
    assert view.lessons["app.resize"].cores == pytest.approx(0.4)
    assert world.lessons["app.resize"] == view.lessons["app.resize"]


def test_a_job_that_is_held_has_its_time_nonetheless() -> None:
    """A worker is overdue when its job had its time, not when the clock says so."""
    world = World()
    supervisor = supervise(world)
    (name,) = boot(world, supervisor)
    world.busy(name, timeout=10)
    world.rows[world.alive[name]] = replace(world.rows[world.alive[name]], held_in_job=8.0)
    world.pass_time(17)
    supervisor.tick()
    assert world.asked_of("stop") == []
    world.pass_time(3)
    supervisor.tick()
    assert world.asked_of("stop") == [name]


def test_a_pool_killed_for_memory_is_settled_as_relief() -> None:
    """The newest leaf job's worker is asked, then killed, and its job is to be put back."""
    world = World(mem=10.0)
    supervisor = supervise(world, min_procs=2)
    names = boot(world, supervisor)
    for name in names:
        world.busy(name)
        world.pass_time(1)
    world.mem, world.pss = 85.0, 3 * 2**30
    for _ in range(4):
        supervisor.tick()
        world.pass_time(1)

    assert len(world.asked_of("kill")) == 1
    (loss,) = world.losses
    assert loss.relief
    assert len(world.alive) == 1


def test_the_last_job_of_a_worker_is_settled() -> None:
    """A worker that takes another job and dies, while exits are heard, loses that job."""
    world = World()
    supervisor = supervise(world)
    (name,) = boot(world, supervisor)
    world.busy(name, "first")
    supervisor.tick()

    def at_the_last_moment() -> Iterator[Event]:
        if name in world.alive:
            world.busy(name, "second")
            world.exit(name, KILLED)
        yield from heard()

    processes = supervisor._devices.processes
    heard = processes.events
    processes.events = at_the_last_moment  # type: ignore[method-assign]
    supervisor.tick()

    assert [loss.job_id for loss in world.losses] == ["second"]
