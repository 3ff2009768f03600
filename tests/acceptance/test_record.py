"""A real pool's record: drawn, and decided again, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rq import Queue

from tests.acceptance import jobs
from tests.acceptance.command import QUICK, ROOT, Start
from tests.waiting import wait_until

#: seconds for a pool that has a busy machine for itself and other tests
ROOM = 60.0


@pytest.fixture
def record(pool: Start, queue: Queue, marks: Path) -> Path:
    """The record of a pool that grew, worked, and was stopped."""
    for _ in range(12):
        queue.enqueue(jobs.spin, str(marks), 0.2)
    command = pool(*QUICK, "--min-procs", "3", "--max-procs", "6", "--max-cpu", "100")
    wait_until(lambda: len(marks.read_text().splitlines()) == 12, ROOM, "twelve jobs")
    command.await_ticks(3)
    command.signal(15)
    assert command.wait(ROOM) == 0
    return command.record_file


def test_a_record_is_drawn_and_decided_again(splash: Start, record: Path) -> None:
    """The same limits make the same decisions; others make others, with the reason."""
    for out, begins in (("run.png", b"\x89PNG"), ("run.svg", b"<?xml")):
        plot = splash("plot", str(record), out)
        assert plot.wait(ROOM) == 0, plot.err
        assert (plot.folder / out).read_bytes().startswith(begins)
    ticks = len(record.read_text().splitlines())
    same = splash("replay", str(record))
    assert same.wait(ROOM) == 0, same.err
    assert f"{ticks} of {ticks} decisions are the same" in same.out, same.out
    other = splash("replay", str(record), "--min-procs", "1", "--max-procs", "1")
    assert other.wait(ROOM) == 0, other.err
    assert "max_procs 6 -> 1" in other.out
    assert "3 min, spawn 3  ->  1 min, spawn 1" in other.out


def test_bad_lines_are_counted(splash: Start, record: Path) -> None:
    """The rest is drawn."""
    text = record.read_text()
    record.write_text("garbage\n" + text + '{"t": 1, "cpu"')
    plot = splash("plot", str(record), "run.png")

    assert plot.wait(ROOM) == 0
    assert "2 lines skipped" in plot.err


def test_bad_input_is_one_line(splash: Start, tmp_path: Path) -> None:
    """No file, an empty one, no facts, no ending, no folder, a limit that is none."""
    (tmp_path / "empty").touch()
    tick = dict.fromkeys(("starting", "idle", "busy", "waiting", "stopping", "target"), 0)
    old = {"t": 1, "cpu": 1, "mem": 1, "mem_bytes": 1, "queued": 0, "reason": "steady"}
    (tmp_path / "old").write_text(json.dumps({**tick, **old, "actions": []}))
    for arguments, says in (
        (("plot", "absent", "x.png"), "'absent' cannot be read (No such file"),
        (("plot", "empty", "x.png"), "'empty': it is empty"),
        (("plot", "old", "x.gif"), "'x.gif' has no known ending"),
        (("plot", "old", "no/x.png"), "'no/x.png' cannot be written"),
        (("replay", "old"), "'old' holds no facts"),
        (("replay", "old", "--max-cpu", "x"), "not a valid float"),
    ):
        command = splash(*arguments)
        assert command.wait(ROOM) in (1, 2)
        assert says in command.err
        assert command.err.count("pysplash:") == 1
        assert "Traceback" not in command.err


def test_without_matplotlib_the_extra_is_named(splash: Start, record: Path) -> None:
    """The command is there all the same, and so are all others."""
    absent = record.parent / "absent"
    absent.mkdir()
    (absent / "matplotlib.py").write_text("raise ImportError('no matplotlib here')")
    path = f"{absent}:{ROOT}"
    plot = splash("plot", str(record), "run.png", PYTHONPATH=path)
    replay = splash("replay", str(record), PYTHONPATH=path)

    assert plot.wait(ROOM) == 1
    assert "pysplash: matplotlib is missing: pip install matplotlib" in plot.err
    assert replay.wait(ROOM) == 0
