"""The examples of the page on events do what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from tests.acceptance import jobs
from tests.acceptance.callback_jobs import CALLED, die, fail
from tests.acceptance.command import QUICK, ROOT, Start
from tests.waiting import wait_until

PAGE = ROOT / "doc" / "howto" / "events.md"
BLOCK = re.compile(r"^```python\n# (\w+)\.py\n(.*?)^```", re.MULTILINE | re.DOTALL)
BOUND = 20.0


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path) -> None:
    """Write the modules of the page into the folder where the pool is started."""
    blocks = BLOCK.findall(PAGE.read_text())
    assert [name for name, _ in blocks] == ["alerts", "joblog", "counter"]
    for name, text in blocks:
        (tmp_path / f"{name}.py").write_text(text)


def test_the_death_of_a_worker_is_an_alert(pool: Start, queue: Queue) -> None:
    """In the pool's process: the line names worker, cause and job."""
    command = pool(*QUICK, "-n", "1", "-c", "alerts", "-P", ".")
    command.await_idle(1)
    job = queue.enqueue(die)
    line = f"ALERT: worker \\S+ died: killed by SIGKILL; jobs: {job.id} failed"
    wait_until(lambda: re.search(line, command.out), BOUND, line)


def test_a_line_is_written_when_a_job_ends(pool: Start, queue: Queue) -> None:
    """By the worker, with the seconds; a failure with what was raised."""
    command = pool(*QUICK, "-n", "1", "--preload", "joblog", "-P", ".")
    good = queue.enqueue("operator.add", 1, 2)
    command.says(rf"default: Job OK \({good.id}, 0\.\d+ s\)")
    bad = queue.enqueue(jobs.divide, 1, 0)
    command.says(rf"default: Job failed \({bad.id}\): ZeroDivisionError: division by zero")


def test_who_listens_where_nothing_happens_is_named(pool: Start) -> None:
    """A preloaded module is not loaded in the pool's process, where deaths are told."""
    command = pool(*QUICK, "-n", "1", "--preload", "alerts", "--preload", "joblog", "-P", ".")
    command.await_idle(1)
    command.says("alerts.alert listens to worker_died, which happens in the pool's process")
    assert command.err.count(" listens to ") == 1


def test_a_jobs_own_module_listens_from_its_first_job_on(
    pool: Start, queue: Queue, redis: Redis, url: str
) -> None:
    """It is loaded as the job begins, so the end of that job is heard already."""
    pool(*QUICK, "-n", "1", CALLED_URL=url)
    job = queue.enqueue(fail)
    wait_until(lambda: redis.llen(CALLED) == 1, BOUND, "the event")
    (line,) = redis.lrange(CALLED, 0, -1)
    assert json.loads(line)["job"] == job.id


def test_workers_count_together(pool: Start, queue: Queue, redis: Redis, url: str) -> None:
    """Each in its own process, in one place."""
    pool(*QUICK, "-n", "2", "--preload", "counter", "-P", ".", COUNTS_URL=url)
    for number in range(30):
        queue.enqueue(jobs.divide, 1, number % 3)
    expected = {
        b"tests.acceptance.jobs.divide finished": b"20",
        b"tests.acceptance.jobs.divide failed": b"10",
    }
    wait_until(lambda: redis.hgetall("counts") == expected, BOUND, "all jobs counted")
