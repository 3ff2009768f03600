"""What the pool says and hears in Redis for its workers, replayed."""

from __future__ import annotations

from pysplash.control.model import Reason
from pysplash.jobs.commands import Command
from pysplash.supervisor.heartbeats import Pulse
from pysplash.supervisor.job_stops import GRACE
from pysplash.supervisor.loop import Supervisor
from pysplash.supervisor.pool import Pool
from pysplash.testing import World


def test_a_heartbeat_every_few_seconds_names_what_runs() -> None:
    """All living workers in one call, with the execution whose lease is to be renewed."""
    world = World()
    supervisor = Pool(["default"], min_procs=2).supervise(world.devices())
    supervisor.tick()
    first, second = world.alive
    world.busy(first, "job")
    world.pass_time(5)
    supervisor.tick()
    assert world.pulses[-1] == [Pulse(first, "job", "execution"), Pulse(second)]
    spoken = len(world.pulses)
    world.pass_time(1)
    supervisor.tick()
    assert len(world.pulses) == spoken


def test_workers_that_speak_for_themselves_are_left_alone() -> None:
    """RQ's own classes have their heartbeats and their subscription."""
    world = World(listens=False)
    supervisor = Pool(["default"], min_procs=1).supervise(world.devices())
    supervisor.tick()
    (name,) = world.alive
    world.busy(name)
    world.commands = [Command(name, "stop-job", "job"), Command(name, "shutdown")]
    world.pass_time(5)
    supervisor.tick()
    assert not any(world.pulses)
    assert not world.followed
    assert not world.asked_of("interrupt")
    assert not world.asked_of("stop")


def test_commands_reach_the_worker_they_are_for() -> None:
    """A shutdown is a warm stop; a job is stopped by name, also one that is about to begin."""
    world = World()
    supervisor = Pool(["default"], min_procs=4).supervise(world.devices())
    supervisor.tick()
    busy, other, third, idle = world.alive
    world.busy(busy, "job")
    world.busy(other, "another")
    world.busy(third, "a third")
    supervisor.tick()
    assert world.followed == set(world.alive)
    world.commands = [
        Command(busy, "stop-job", "job"),
        Command(other, "kill-horse"),
        Command(third, "stop-execution", "a third", "its execution"),
        Command(idle, "kill-horse"),
        Command(idle, "stop-job", "a fourth"),
        Command(idle, "shutdown"),
        Command("a stranger", "shutdown"),
    ]
    supervisor.tick()
    slots = world.alive
    assert world.to_stop == [
        (slots[busy], "job"),
        (slots[other], ""),
        (slots[third], "its execution"),
        (slots[idle], "a fourth"),
    ]
    assert world.asked_of("interrupt") == [busy, other, third, idle]
    assert world.asked_of("stop") == [idle]


def test_a_worker_that_is_gone_is_followed_no_more() -> None:
    """Nobody hears commands for a name that will not come back."""
    world = World()
    supervisor = Pool(["default"], min_procs=1).supervise(world.devices())
    supervisor.tick()
    (name,) = world.alive
    supervisor.tick()
    world.exit(name, 9)
    supervisor.tick()
    assert name not in world.followed


def test_commands_are_heard_before_a_worker_has_started() -> None:
    """Whoever sees a worker take its first job may stop that job at once."""
    world = World(ready_at_once=False, listens=False)
    supervisor = Pool(["default"], min_procs=2).supervise(world.devices())
    supervisor.tick()
    assert world.followed == set(world.alive)
    supervisor.tick()
    assert world.followed == set(world.alive)


def one_busy() -> tuple[World, Supervisor, str]:
    """Return a pool of one worker that runs a job, and the worker's name."""
    world = World()
    supervisor = Pool(["default"], min_procs=1, max_procs=1).supervise(world.devices())
    supervisor.tick()
    (name,) = world.alive
    world.busy(name, "job")
    supervisor.tick()
    return world, supervisor, name


def test_a_stopped_job_that_goes_on_costs_its_worker() -> None:
    """It gets some seconds; then its worker is killed, and the job settled as stopped."""
    world, supervisor, name = one_busy()
    world.commands = [Command(name, "stop-job", "job")]
    supervisor.tick()
    world.pass_time(GRACE - 0.1)
    supervisor.tick()
    assert not world.asked_of("kill")
    world.pass_time(0.2)
    supervisor.tick()
    assert world.asked_of("kill") == [name]
    supervisor.tick()
    (loss,) = world.losses
    assert (loss.ended_job, loss.is_stop, loss.suspect) == ("job", True, False)
    assert str(Reason.STOPPED) in loss.cause


def test_a_worker_that_heeds_a_stop_is_let_be() -> None:
    """Its job has ended, or is another: whatever runs now was not asked to end."""
    world, supervisor, name = one_busy()
    world.commands = [Command(name, "stop-job", "job")]
    supervisor.tick()
    world.heeding.add(world.alive[name])
    world.pass_time(2 * GRACE)
    supervisor.tick()
    world.heeding.clear()
    world.busy(name, "another")
    world.commands = [Command(name, "stop-job", "job"), Command(name, "kill-horse")]
    supervisor.tick()
    world.idle(name)
    world.busy(name, "a third")
    world.pass_time(2 * GRACE)
    supervisor.tick()
    assert not world.asked_of("kill")


def test_a_stopped_job_inside_another_is_seen_through() -> None:
    """The worker's row names the outermost job; Redis knows those inside it."""
    world, supervisor, name = one_busy()
    world.inside.add((name, "inner"))
    world.commands = [Command(name, "stop-job", "inner")]
    supervisor.tick()
    world.pass_time(2 * GRACE)
    supervisor.tick()
    assert world.asked_of("kill") == [name]


def test_a_shutdown_is_seen_through() -> None:
    """An idle worker that does not leave when told to is killed as one that hangs."""
    world = World()
    pool = Pool(["default"], min_procs=1, terminate_seconds=5)
    supervisor = pool.supervise(world.devices())
    supervisor.tick()
    (name,) = world.alive
    world.commands = [Command(name, "shutdown")]
    supervisor.tick()
    assert world.to_leave
    world.pass_time(6)
    supervisor.tick()
    assert world.asked_of("kill") == [name]


def test_workers_of_an_earlier_pool_are_settled() -> None:
    """What a killed pool of the same name has left is settled as its own dead workers' jobs are."""
    world = World(lost_before=["web-0123456789-1"])
    supervisor = Pool(["default"], min_procs=1).supervise(world.devices())
    supervisor.tick()
    assert [loss.worker for loss in world.losses] == ["web-0123456789-1"]
    assert world.settled_before == ["web-0123456789-1"]
