"""A worker being set up, a client in a forked process, and what importing the package loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from redis import Redis

from pysplash.application.registry import REGISTRY
from pysplash.config import WorkerSettings
from pysplash.connections.clients import portable
from pysplash.supervisor.forkserver.boot import build_worker, showing_life
from pysplash.worker.scoreboard import Scoreboard, Slot
from tests.integration.door_pools import HandPool
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def test_a_worker_that_is_set_up_shows_life() -> None:
    """While setup hooks run the scoreboard hears of it, so loading is not taken for hanging."""
    REGISTRY.add_setup(test_a_worker_that_is_set_up_shows_life)
    board = Scoreboard(1)
    slot = Slot(board, 0, "w")
    first = board.read(0)
    assert first is not None
    with showing_life(slot):
        wait_until(lambda: (row := board.read(0)) and row.beat > first.beat, 20, "a sign of life")
    board.close()


def test_ages_differ_by_the_delta(redis: Redis) -> None:
    """Workers of one pool grow old at different times, none before its age or beyond the delta."""
    settings = WorkerSettings(
        queues=("default",), address=portable(redis), max_age=100, max_age_delta=50
    )
    ages = [build_worker(settings, f"w{number}", redis).max_age or 0 for number in range(5)]
    assert len(set(ages)) == 5
    assert all(100 <= age <= 150 for age in ages)


FORKS = """
import os, sys, pysplash
client = pysplash.Client(sys.argv[1])
assert client.ping()
child = os.fork()
if child == 0:
    os._exit(0 if all(client.ping() for _ in range(100)) else 1)
assert all(client.ping() for _ in range(100))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_client_may_be_made_before_a_fork(redis: Redis, url: str) -> None:
    """Parent and child use it side by side, each over connections of its own."""
    HandPool(redis).stay()
    subprocess.run([sys.executable, "-c", FORKS, url], check=True, timeout=60, cwd=ROOT)


def test_importing_the_package_loads_no_client() -> None:
    """Workers, which import the package, are spared what only callers need."""
    code = (
        "import sys, pysplash; "
        "late = {'client.client', 'client.async_client', 'client.async_transport', "
        "'client.transport', 'connections.multiplexed', 'cli.status'}; "
        "assert not {f'pysplash.{name}' for name in late} & set(sys.modules); "
        "assert pysplash.Client.__name__ == 'Client' and pysplash.AsyncClient"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def test_a_pool_that_starts_loads_no_other_command() -> None:
    """Whoever starts a pool, and names its server, waits for no tables, doors or RQ's commands."""
    code = (
        "import sys; from pysplash.cli import main; main(['start', '--help']); "
        "late = {'rich', 'rq.cli', 'pysplash.gateway.gateway', 'pysplash.client.client', "
        "'pysplash.recording.plot'}; "
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    run = [sys.executable, "-c", code]
    subprocess.run(run, check=True, timeout=60, cwd=ROOT, stdout=subprocess.DEVNULL)
