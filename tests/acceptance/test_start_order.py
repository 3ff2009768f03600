"""Parts that are started apart: in whatever order, in whatever number."""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from redis import Redis

from benchmarks.pipeline_stages import FIRST, LAST, MIDDLE, OUT
from pysplash import Stage, framed
from pysplash.errors import EXIT_OK
from tests.acceptance.command import QUICK, READY, ROOT, Start
from tests.waiting import wait_until

#: seconds for one thing that has to happen, on a busy machine
BOUND = 30.0
TASKS = ("--preload", "tests.acceptance.door_tasks", "-q", *QUICK)
HANDLER = "tests.acceptance.handlers:echo"


def test_caller_gateway_and_pool_start_in_any_order(splash: Start, pool: Start, url: str) -> None:
    """A caller and a door that were there before any pool have their answers once one comes."""
    caller = splash("call", "-u", url, "--patience", "60", "add", "5", "6")
    door = ("--tcp", "127.0.0.1:0", "--handler", HANDLER, "--patience", "60")
    gateway = splash("serve", "-u", url, *door)
    opened = wait_until(lambda: re.search(r"framed door at (\S+)", gateway.out), READY, "a door")
    assert opened is not None
    with ThreadPoolExecutor(1) as peers:
        asked = peers.submit(framed.request, opened[1], b"early", 2 * BOUND)
        pool("-n", "1", "--handler", HANDLER, *TASKS, "default")
        assert asked.result(2 * BOUND) == b"early"
    assert caller.wait(BOUND) == EXIT_OK
    assert caller.out == "11\n"


MEETING = f"""\
import os, pathlib, sys
sys.path.append({str(ROOT)!r})
from tests.waiting import wait_until
here = pathlib.Path(__file__).parent
def meet(data):
    (here / f"met-{{os.getpid()}}").touch()
    wait_until(lambda: len(list(here.glob("met-*"))) == 2, 30)
    return str(os.getpid()).encode()
"""


def test_a_daemon_has_as_many_processes_as_wanted(splash: Start, tmp_path: Path) -> None:
    """Two requests that wait for each other are answered by two processes, on two cores."""
    (tmp_path / "app.py").write_text(MEETING)
    daemon = splash("daemon", "app:meet", "--port", "0", "--processes", "2")
    opened = wait_until(lambda: re.search(r"serving at (\S+)", daemon.out), READY, "a door")
    assert opened is not None
    address = opened[1]
    with ThreadPoolExecutor(2) as peers:
        asked = [peers.submit(framed.request, address, b"", BOUND) for _ in range(2)]
        assert len({one.result(BOUND) for one in asked}) == 2
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(BOUND) == 0


def test_two_pools_serve_one_pipeline(pool: Start, redis: Redis, url: str, tmp_path: Path) -> None:
    """Pools that know of each other nothing but Redis, as on two machines, each do their stages."""
    stages = ("-n", "1", "-q", *QUICK, "--preload", "benchmarks.pipeline_stages", "-P", str(ROOT))
    Stage(FIRST, url=url).push(*(b"%d" % number for number in range(20)))
    early = pool(*stages, FIRST, LAST)
    wait_until(lambda: redis.llen(f"rq:queue:{MIDDLE}") == 20, BOUND, "all at the middle")
    assert redis.llen(f"rq:queue:{OUT}") == 0
    pool(*stages, MIDDLE)
    wait_until(lambda: redis.llen(f"rq:queue:{OUT}") == 40, BOUND, "all at the end")
    assert early.process.poll() is None
