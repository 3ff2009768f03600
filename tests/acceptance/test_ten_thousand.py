"""Ten thousand jobs while workers are signalled at random instants, and each is accounted for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from redis import Redis
from rq import Queue

from benchmarks.ledger import Run, read_runs
from benchmarks.network import TROUBLES
from benchmarks.storm import QUEUES, Settings, Storm, weathered
from benchmarks.storm_jobs import RUNS, run
from benchmarks.supervisors import ROOT, Supervisor
from benchmarks.weather import SIGNALS
from tests.acceptance import jobs
from tests.acceptance.command import READY
from tests.servers import PROGRAM
from tests.waiting import wait_until

#: signals of each kind without which a storm was none, and troubles
LEAST, FEW = 10, 3
#: what befalls connections; that they fall silent takes a while to be noticed
BAD = tuple(name for name in TROUBLES if name != "silence")


def test_ten_thousand_jobs_under_signals() -> None:
    """TERM, INT and KILL: each job in one place, no run too many or beside another, no orphan."""
    with weathered(Settings(jobs=10_000, seed=1, server=PROGRAM)) as storm:
        account = storm.account()
    assert account.faults == {}, storm.words[-5000:]
    assert (account.jobs, sum(account.places.values())) == (10_000, 10_000)
    assert min(storm.struck[name] for name in SIGNALS) > LEAST
    assert account.cut > 0


def test_polite_signals_cut_nothing_short() -> None:
    """TERM and INT alone: besides, no run is cut short and every attempt has its run."""
    with weathered(Settings(jobs=1_200, seed=2, signals=("TERM", "INT"), server=PROGRAM)) as storm:
        account = storm.account()
    assert account.faults == {}, storm.words[-5000:]
    assert (account.jobs, account.cut, account.blamed) == (1_200, 0, 0)
    assert min(storm.struck["TERM"], storm.struck["INT"]) > LEAST


def test_a_bad_network_costs_nothing() -> None:
    """Connections that are cut, slow or lose bytes: every job once, as if nothing had happened."""
    with weathered(Settings(jobs=700, seed=3, signals=(), troubles=BAD, server=PROGRAM)) as storm:
        account = storm.account()
    assert account.faults == {}, storm.words[-5000:]
    assert (account.jobs, account.cut, account.blamed) == (700, 0, 0)
    assert "died" not in storm.words
    assert min(storm.struck[name] for name in BAD) >= FEW


def test_signals_in_a_bad_network() -> None:
    """Both at once; and who left while Redis could not be told is not taken for alive there."""
    with weathered(Settings(jobs=350, seed=4, troubles=BAD, server=PROGRAM)) as storm:
        account = storm.account()
    assert account.faults == {}, storm.words[-5000:]
    assert min(storm.struck[name] for name in (*SIGNALS, *BAD)) >= FEW


# --- whether the checker sees ---


def test_planted_faults_are_told() -> None:
    """Jobs run in peace leave nothing wrong; a planted fault is told, and of its job alone."""
    with weathered(Settings(jobs=120, signals=(), server=PROGRAM)) as storm:
        assert storm.account().faults == {}
        told = plant(storm)
        assert storm.account().faults == told


def plant(storm: Storm) -> dict[str, Sequence[str]]:
    """Do one wrong of each kind; return what is to be told of it."""
    redis: Redis = storm.redis
    tasks = iter([task for task in storm.tasks if task.kind.name == "plain"])
    lost, double, stranded, odd = (next(tasks) for _ in range(4))
    twice = next(task for task in storm.tasks if task.kind.name == "failing")
    beside = next(task for task in storm.tasks if task.kind.name == "retry")
    for task in (lost, stranded):
        redis.zrem(f"rq:finished:{task.queue}", task.job_id)
    redis.zadd(f"rq:wip:{stranded.queue}", {f"{stranded.job_id}:gone": 9e9})
    redis.hset(f"rq:execution:{stranded.job_id}:gone", "id", "gone")
    redis.rpush(f"rq:queue:{QUEUES[0]}", double.job_id)
    redis.hset(f"rq:job:{odd.job_id}", "status", "started")
    redis.hset("rq:worker:ghost", "pid", 1)
    redis.sadd("rq:workers", "rq:worker:ghost")
    with (storm.folder / RUNS).open("a") as log:
        log.write(f"begin one {twice.job_id} alone\nend one raised\n")
        log.write(f"begin two {beside.job_id} beside\nend two raised\n")
    return {
        "lost": (lost.job_id,),
        "stranded": (stranded.job_id,),
        "left waiting": (double.job_id,),
        "in two places": (double.job_id,),
        "at odds": (odd.job_id,),
        "run too often": (twice.job_id,),
        "overlapping": (beside.job_id,),
        # the runs that returned of what is in no registry any more
        "unexplained": (lost.job_id, stranded.job_id),
        "ghosts": ["ghost"],
        "open executions": [f"rq:execution:{stranded.job_id}:gone"],
    }


def test_a_run_that_is_killed_counts_while_it_lives(tmp_path: Path) -> None:
    """A run beside one that never ends overlaps it; after its process was killed none does."""
    code = "import sys; from benchmarks.storm_jobs import run; run(sys.argv[1], 'plain-7', 600)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) as other:
        try:
            log = tmp_path / RUNS
            wait_until(lambda: log.exists() and log.stat().st_size, READY, "the other run")
            run(str(tmp_path), "plain-7")
            run(str(tmp_path), "plain-8")
        finally:
            other.kill()
    run(str(tmp_path), "plain-7")
    runs = read_runs(log.read_text().splitlines())
    assert runs == {
        "plain-7": [Run(end=""), Run(alone=False), Run()],
        "plain-8": [Run()],
    }


def test_a_process_that_outlives_its_supervisor_is_told(url: str, tmp_path: Path) -> None:
    """What a job has started in a session of its own is found after the supervisor's end."""
    with Redis.from_url(url) as redis:
        with Supervisor("pysplash", url, 1, QUEUES, tmp_path) as supervisor:
            Queue(QUEUES[0], connection=redis).enqueue(jobs.escape, str(tmp_path / "escaped"))
            wait_until((tmp_path / "escaped").exists, READY, "the escape")
            assert supervisor.stop() == 0
            (escaped,) = supervisor.left()
        wait_until(lambda: not escaped.is_running(), READY, "its end")
