"""A fork server that dies is started again: at once, later, or no more."""

from __future__ import annotations

import itertools

import pytest

from pysplash import Pool
from pysplash.errors import CrashLoop, ImportFailed, SplashError, WorkerBootError
from pysplash.supervisor.forkserver.client import Ready, ServerDied
from pysplash.supervisor.loop import Supervisor
from pysplash.testing import World


def started(world: World) -> Supervisor:
    """Return a supervisor over *world*, of a pool that stands."""
    return Pool(["default"]).supervise(world.devices())


def starts(world: World) -> int:
    """Return how often a fork server was started, by the supervisor's turns."""
    return world.asked.count(("renew", ""))


def test_a_proven_fork_server_is_replaced_at_once() -> None:
    """One death after long service costs no pause."""
    world = World(server_pids=())
    supervisor = started(world)
    world.happen(Ready(99, 1))
    supervisor.tick()
    for _ in range(20):
        world.pass_time(60)
        world.happen(ServerDied((), -9))
        supervisor.tick()
        world.happen(Ready(99, 1))
        supervisor.tick()
    assert starts(world) == 20


@pytest.mark.parametrize(
    ("text", "ready", "error", "tries"),
    [
        ("ImportError: no rq", False, ImportFailed, 5),
        ("", False, WorkerBootError, 5),
        ("", True, CrashLoop, 10),
        ("ImportError: no rq", True, CrashLoop, 10),
    ],
)
def test_fork_servers_that_die_young_are_started_less_and_less_often(
    text: str, ready: bool, error: type[SplashError], tries: int
) -> None:
    """Pauses grow, and after so many failures the pool ends with the reason."""
    world = World(server_pids=())
    supervisor = started(world)
    if ready:
        world.happen(Ready(99, 1))
        supervisor.tick()
    moments = [world.now]
    for number in range(tries):
        world.happen(ServerDied((), 4, text))
        before = starts(world)
        supervisor.tick()
        while number < tries - 1 and starts(world) == before:
            world.pass_time(0.5)
            supervisor.tick()
        moments.append(world.now)
    pauses = [after - before for before, after in itertools.pairwise(moments[:-1])]
    assert pauses == [min(30.0, 0.5 * 2**number) for number in range(tries - 1)]
    assert type(supervisor._fatal) is error
    assert (text or "status 4") in str(supervisor._fatal)
