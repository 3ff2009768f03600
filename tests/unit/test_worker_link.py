"""What the pool says and hears in Redis for its workers, replayed."""

from __future__ import annotations

from pysplash.jobs.commands import Command
from pysplash.supervisor.heartbeats import Pulse
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
