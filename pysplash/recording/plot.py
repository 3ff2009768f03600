"""Plots of recordings: what the pool did, and why, on one page. Needs the extra ``plot``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pysplash.control.model import Kill, Reason, WorkerState
from pysplash.errors import ConfigError, PlotUnavailable

from .reader import Recording, TargetChange, Tick, changes, means, runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "matplotlib is missing: pip install matplotlib"
ENDINGS = (".png", ".svg")
#: inches, and dots an inch: 1200 x 800
SIZE, DOTS = (12.0, 8.0), 100
#: seconds over which CPU is averaged, and the same where waves are to be seen
MEAN, SHORT_MEAN = 10.0, 5.0
#: moves of the target that are named, the largest first, and the part of the width between two
NAMED, APART = 10, 0.06
GIB = 2**30

#: colours that colour-blind people can tell apart (Okabe and Ito), each state also its own grey
COLOURS = {
    WorkerState.BUSY: "#0072B2",
    WorkerState.WAITING: "#CC79A7",
    WorkerState.IDLE: "#A6D8F0",
    WorkerState.STARTING: "#F0E442",
    WorkerState.STOPPING: "#D55E00",
}
INK, FAINT, LIMIT, QUEUE, MEMORY = "#222222", "#9CC3DD", "#D55E00", "#7A7A7A", "#009E73"


def plot(recording: Recording, path: Path, title: str = "") -> None:
    """Draw a recording into *path*, a PNG or an SVG by its ending.

    Raises :class:`~pysplash.errors.PlotUnavailable` without matplotlib and
    :class:`~pysplash.errors.ConfigError` if the file cannot be written.
    """
    save(figure(recording, title), path)


def save(drawn: Figure, path: Path) -> None:
    """Write a figure; ConfigError if that cannot be."""
    try:
        drawn.savefig(check_ending(path), dpi=DOTS)
    except OSError as error:
        raise ConfigError(
            f"plot {str(path)!r} cannot be written ({error.strerror}): "
            "give a path in a folder that exists and is yours"
        ) from error


def check_ending(path: Path) -> Path:
    """Return *path*; ConfigError if its ending names no format."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"plot {str(path)!r} has no known ending: give a .png or a .svg")
    return path


def figure(recording: Recording, title: str = "") -> Figure:
    """Return CPU, memory, workers, backlog and reasons over time, below one another."""
    drawn = _figure()
    drawn.suptitle(title or _summary(recording), fontsize=13, x=0.01, ha="left", color=INK)
    rows = drawn.subplots(5, 1, sharex=True, height_ratios=[3, 2, 3, 1.5, 2])
    for axes, draw in zip(rows, (_cpu, _memory, _workers, _backlog, _reasons), strict=True):
        _dress(axes)
        draw(axes, recording)
    rows[-1].set_xlabel("seconds")
    rows[-1].set_xlim(0, max(recording.seconds, 1.0))
    drawn.align_ylabels(rows)
    return drawn


def compare(recordings: Sequence[tuple[str, Recording]], title: str) -> Figure:
    """Return the CPU of several recordings, a panel each, on the same axes."""
    drawn = _figure()
    drawn.suptitle(title, fontsize=13, x=0.01, ha="left", color=INK)
    panels = drawn.subplots(len(recordings), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, recording) in zip(panels, recordings, strict=True):
        _dress(axes)
        _cpu(axes, recording, SHORT_MEAN)
        axes.set_title(name, fontsize=11, loc="left", color=INK)
    panels[-1].set_xlabel("seconds")
    panels[-1].set_xlim(0, max(recording.seconds for _, recording in recordings))
    return drawn


# --- the panels --------------------------------------------------------------------------------


def _cpu(axes: Axes, recording: Recording, width: float = MEAN) -> None:
    for ticks in runs(recording):
        times = _times(recording, ticks)
        axes.plot(times, [_known(t.cpu) for t in ticks], color=FAINT, lw=1, label="each tick")
        axes.plot(
            times, means(ticks, width), color=COLOURS[WorkerState.BUSY], lw=2, label=f"{width:g} s"
        )
    if recording.limits is not None:
        _limit(axes, recording.limits.max_cpu, f"limit {recording.limits.max_cpu:g} %")
    axes.set_ylim(0, 105)
    axes.set_ylabel("CPU %")
    _legend(axes)


def _memory(axes: Axes, recording: Recording) -> None:
    limits = recording.limits
    budget = limits.mem_budget if limits else None
    for ticks in runs(recording):
        values = [_known(t.mem) if budget is None else _known(t.mem_bytes) / GIB for t in ticks]
        label = "in use" if budget is None else "the pool's"
        axes.plot(_times(recording, ticks), values, color=MEMORY, lw=2, label=label)
    if budget is not None:
        _limit(axes, budget / GIB, f"budget {budget / GIB:.3g} GiB")
    elif limits is not None:
        _limit(axes, limits.max_mem, f"limit {limits.max_mem:g} %")
    axes.set_ylim(0, 105 if budget is None else None)
    axes.set_ylabel("memory %" if budget is None else "memory GiB")
    _legend(axes)


def _workers(axes: Axes, recording: Recording) -> None:
    for ticks in runs(recording):
        times = _times(recording, ticks)
        heights = [[tick.states[state] for tick in ticks] for state in COLOURS]
        layers = axes.stackplot(
            times, heights, labels=list(COLOURS), colors=list(COLOURS.values()), step="post"
        )
        for layer in layers:
            layer.set_linewidth(0)
        axes.step(
            times,
            [tick.decision.target for tick in ticks],
            where="post",
            color=INK,
            lw=1.2,
            label="target",
        )
    most = max(max(sum(t.states.values()), t.decision.target) for t in recording.ticks)
    axes.set_ylim(0, 1.15 * max(1, most))
    axes.locator_params(axis="y", integer=True)
    axes.set_ylabel("workers")
    _legend(axes)


def _backlog(axes: Axes, recording: Recording) -> None:
    for ticks in runs(recording):
        queued = [_known(tick.queued) for tick in ticks]
        axes.fill_between(_times(recording, ticks), queued, color=QUEUE, step="post", lw=0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("jobs waiting")


def _reasons(axes: Axes, recording: Recording) -> None:
    """Draw, a row for each reason, when it held, and where it moved the target."""
    found = {tick.decision.reason for tick in recording.ticks}
    rows = {reason: -row for row, reason in enumerate(r for r in Reason if r in found)}
    for ticks in runs(recording):
        for reason, span in _spans(recording, ticks):
            axes.broken_barh([span], (rows[reason] - 0.32, 0.64), color="#D8D8D8", lw=0)
    moved = changes(recording)
    for up, marker in ((True, "^"), (False, "v")):
        some = [change for change in moved if (change.after > change.before) is up]
        axes.scatter(
            [change.at for change in some],
            [rows[change.reason] for change in some],
            marker=marker,
            s=34,
            color=COLOURS[WorkerState.BUSY if up else WorkerState.STOPPING],
            label="more" if up else "fewer",
            zorder=3,
        )
    _kills(axes, recording, rows)
    for change in _worth_naming(moved, recording.seconds):
        axes.annotate(
            f"{change.before}→{change.after}",
            (change.at, rows[change.reason]),
            (6, -3),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(list(rows.values()), [str(reason) for reason in rows])
    axes.set_ylim(min(rows.values()) - 0.7, 0.7)
    axes.grid(axis="y", lw=0)
    axes.set_ylabel("why")
    _legend(axes)


def _kills(axes: Axes, recording: Recording, rows: dict[Reason, int]) -> None:
    killed = [
        (tick.t - recording.ticks[0].t, rows[tick.decision.reason])
        for tick in recording.ticks
        if any(isinstance(action, Kill) for action in tick.decision.actions)
    ]
    if killed:
        times, heights = zip(*killed, strict=True)
        axes.scatter(times, heights, marker="x", s=40, color=INK, label="killed", zorder=4)


def _worth_naming(moved: Sequence[TargetChange], seconds: float) -> list[TargetChange]:
    """Return the largest moves, those in a row for one reason as one, so few that all are legible.

    A move ends where the next change for its reason is far enough for a number in between.
    """
    moves: dict[Reason, list[TargetChange]] = {}
    for change in moved:
        row = moves.setdefault(change.reason, [])
        if row and change.at - row[-1].at < APART * seconds:
            change = replace(change, before=row.pop().before)  # noqa: PLW2901
        row.append(change)
    found = [change for row in moves.values() for change in row]
    return sorted(found, key=lambda c: abs(c.after - c.before), reverse=True)[:NAMED]


def _spans(recording: Recording, ticks: Sequence[Tick]) -> list[tuple[Reason, tuple[float, float]]]:
    """Return when each reason began and how long it applied."""
    start, spans = recording.ticks[0].t, []
    ends = [*(after.t for _, after in pairwise(ticks)), ticks[-1].t + 1.0]
    pairs = zip(ticks, ends, strict=True)
    for reason, group in groupby(pairs, lambda pair: pair[0].decision.reason):
        held = list(group)
        begin = held[0][0].t
        spans.append((reason, (begin - start, held[-1][1] - begin)))
    return spans


# --- how they look -----------------------------------------------------------------------------


def _figure() -> Figure:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 -- an optional extra
    except ImportError as error:
        raise PlotUnavailable(MISSING) from error
    return Figure(figsize=SIZE, dpi=DOTS, layout="constrained")


def _dress(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="both", color="#E6E6E6", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.margins(x=0)


def _limit(axes: Axes, height: float, label: str) -> None:
    axes.axhline(height, color=LIMIT, lw=1.5, ls="--", label=label)


def _legend(axes: Axes) -> None:
    """Add a legend beside the panel."""
    handles: dict[str, Any] = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        handles.setdefault(label, handle)
    if handles:
        axes.legend(
            list(handles.values()),
            list(handles),
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            fontsize=9,
            frameon=False,
        )


def _times(recording: Recording, ticks: Sequence[Tick]) -> list[float]:
    return [tick.t - recording.ticks[0].t for tick in ticks]


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _summary(recording: Recording) -> str:
    most = max(sum(tick.states.values()) for tick in recording.ticks)
    return f"{recording.seconds:.0f} s of a pool: at most {most} worker{'s' * (most != 1)}"
