"""What a plot shows of a recording; nobody compares pictures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from pysplash.control.model import Reason, WorkerState
from pysplash.control.simulation.workload import GIB
from pysplash.errors import ConfigError
from pysplash.recording.plot import NAMED, check_ending, compare, figure, plot, save
from pysplash.recording.reader import changes, means, parse, runs
from tests.unit.recorded import LIMITS, play, recording


def named(axes: Axes) -> set[str]:
    """Return what the legend of a panel names."""
    legend = axes.get_legend()
    return set() if legend is None else {text.get_text() for text in legend.get_texts()}


def test_the_panels_show_what_there_is() -> None:
    """CPU and memory with their limits, workers by state, backlog, reasons."""
    recorded = recording("wave")
    cpu, memory, workers, backlog, why = figure(recorded).axes

    assert "CPU" in cpu.get_ylabel()
    assert "limit 80 %" in named(cpu)
    assert "limit 80 %" in named(memory)
    assert {*map(str, WorkerState), "target"} <= named(workers)
    assert "waiting" in backlog.get_ylabel()
    reasons = {label.get_text() for label in why.get_yticklabels()}
    assert reasons == {str(tick.decision.reason) for tick in recorded.ticks}
    assert 1 <= len(why.texts) <= NAMED


def test_the_lines_are_the_record() -> None:
    """The thin line is the record's CPU, the dashed one its limit."""
    recorded = recording("spin", replace(LIMITS, max_cpu=55.0))
    thin, _, limit = figure(recorded).axes[0].get_lines()

    assert np.asarray(thin.get_ydata()).tolist() == [tick.cpu for tick in recorded.ticks]
    assert np.asarray(limit.get_ydata()).tolist() == [55.0, 55.0]


def test_a_budget_is_shown_in_bytes() -> None:
    """With a budget of its own the pool's memory is what counts."""
    memory = figure(recording("ramp", replace(LIMITS, mem_budget=GIB))).axes[1]

    assert "GiB" in memory.get_ylabel()
    assert "budget 1 GiB" in named(memory)


def test_panels_to_compare_share_their_axes() -> None:
    """With and without the fast loop: a panel each."""
    drawn = compare([("with", recording("wave")), ("without", recording("spin"))], "both")

    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["with", "without"]
    assert len({axes.get_ylim() for axes in drawn.axes}) == 1


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_is_written(tmp_path: Path, ending: str) -> None:
    """By its ending it is a PNG or an SVG."""
    out = tmp_path / f"run.{ending}"
    plot(recording("spin"), out, "a title")

    assert out.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_a_plot_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    """Both a wrong ending and a folder that is not there are named."""
    with pytest.raises(ConfigError, match=r"run\.gif.*\.png"):
        check_ending(Path("run.gif"))
    with pytest.raises(ConfigError, match=r"absent.*No such file"):
        save(figure(recording("spin")), tmp_path / "absent" / "run.png")


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "7", '{"t": 1}', "null", "[" * 100_000, '{"t": NaN, "reason": "steady"}'],
    ids=lambda line: line[:12],
)
def test_what_is_no_tick_is_counted(line: str) -> None:
    """One bad line costs that line."""
    lines = play("spin", seconds=20.0).lines
    recorded = parse([lines[0], line, *lines[1:]], "x")

    assert recorded.skipped == 1
    assert len(recorded.ticks) == len(lines)


@pytest.mark.parametrize("field", ["t", "cpu", "reason", "actions", "target", "busy", "view"])
def test_a_tick_with_a_wrong_field_is_counted(field: str) -> None:
    """Whatever stands in a field, it is no crash."""
    lines = play("spin", seconds=20.0).lines
    wrong: object
    for wrong in ("x", [], {}, [1], 1e999):
        bad = json.dumps({**json.loads(lines[1]), field: wrong})
        recorded = parse([lines[0], bad, *lines[2:]], "x")
        assert len(recorded.ticks) >= len(lines) - 1


@pytest.mark.parametrize(("lines", "says"), [([], "empty"), (["x", "y"], "none of its 2 lines")])
def test_a_file_without_a_tick_is_an_error(lines: list[str], says: str) -> None:
    """The name of the file, what is wrong, what to give."""
    with pytest.raises(ConfigError, match=rf"'run'.*{says}.*--record"):
        parse(lines, "run")


def test_changes_are_those_of_the_target() -> None:
    """Each has its time, both sizes, and the reason."""
    found = changes(recording("spin"))

    assert (found[0].before, found[0].after, found[0].reason) == (0, 1, Reason.MIN)
    assert any(change.reason is Reason.BACKLOG for change in found)
    assert all(one.after == two.before for one, two in pairwise(found))


def test_a_gap_parts_runs_and_means_do_not_look_ahead() -> None:
    """A pool that was away is drawn as away."""
    ticks = [json.loads(line) for line in play("spin", seconds=20.0).lines]
    later = [{**tick, "t": tick["t"] + 600} for tick in ticks]
    recorded = parse(map(json.dumps, [*ticks, *later]), "x")

    assert [len(part) for part in runs(recorded)] == [len(ticks), len(ticks)]
    assert means(recorded.ticks[:1], 10) == [recorded.ticks[0].cpu]
    unknown = [replace(tick, cpu=None) for tick in recorded.ticks[:2]]
    assert all(map(math.isnan, means(unknown, 10)))
    figure(recorded)
