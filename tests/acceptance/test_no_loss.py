"""Workers are stopped at any moment under load, and every job is accounted for."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from redis import Redis

from benchmarks.stops import WORKERS, Storm, inspect
from tests.acceptance.command import Start

#: polite stops in this test; ``python benchmarks/stops.py --stops 5000`` makes more of them
STOPS = 40
#: the same by SIGKILL
KILLS = 40


@pytest.mark.parametrize("seed", [1])
def test_no_job_is_lost_by_polite_stops(
    pool: Start, redis: Redis, tmp_path: Path, seed: int
) -> None:
    """SIGTERM to random workers under load: each job is in one place, each has run once."""
    size = ("-n", str(WORKERS), "--scale-frequency", "0.1", "--quiet-period", "0")
    command = pool("-q", *size, "high", "low")
    storm = Storm(redis, tmp_path / "marks", seed)
    storm.run(STOPS)
    assert storm.stops == STOPS
    command.signal(signal.SIGTERM)
    assert command.wait(10) == 0
    report = inspect(redis, storm.enqueued, storm.marks)
    assert report.clean(), report
    assert command.err == ""


@pytest.mark.parametrize("seed", [1])
def test_no_job_is_lost_by_kills(pool: Start, redis: Redis, tmp_path: Path, seed: int) -> None:
    """SIGKILL to workers at work: no job is lost or stuck, and no kill fails more than one."""
    size = ("-n", str(WORKERS), "--scale-frequency", "0.1", "--quiet-period", "0")
    command = pool("-q", *size, "high", "low")
    storm = Storm(redis, tmp_path / "marks", seed, signal.SIGKILL)
    storm.run(KILLS)
    assert storm.stops == KILLS
    command.signal(signal.SIGTERM)
    assert command.wait(10) == 0
    report = inspect(redis, storm.enqueued, storm.marks)
    assert (report.lost, report.stranded, report.double, report.ghosts) == ((), (), (), ())
    assert report.twice == ()
    assert len(report.failed) <= KILLS
