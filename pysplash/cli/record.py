"""Commands that read what ``--record`` has written: plot and replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from pysplash.config import check_limits, parse_size
from pysplash.control.model import Limits
from pysplash.errors import ConfigError
from pysplash.recording.plot import check_ending
from pysplash.recording.plot import plot as draw
from pysplash.recording.reader import Recording, parse
from pysplash.recording.replay import differences
from pysplash.recording.replay import replay as decide_again

from .options import SCALING

#: lines of differences that are printed unless all are asked for
MOST_LINES = 40
#: settings of a pool whose names among the limits are others
_NAMES = {"quiet_period_seconds": "quiet_period"}


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags of a pool that set limits, none of them given by default."""
    for option in reversed(SCALING):
        if option.name == "num_workers":
            continue
        flags = "/".join([option.opts[0], *option.secondary_opts])
        command = click.option(
            flags, option.name, type=option.type, default=None, help=option.help
        )(command)
    return command


@click.command()
@click.argument("file")
@click.argument("out")
@click.option("--title", default="", help="What stands above it.")
def plot(file: str, out: str, title: str) -> None:
    """Draw the record FILE into OUT, a .png or a .svg."""
    path = check_ending(Path(out).expanduser())
    recording = _read(file)
    draw(recording, path, title)
    click.echo(f"{out}: {len(recording.ticks)} ticks over {recording.seconds:.0f} s")


@click.command()
@click.argument("file")
@_limits
@click.option("--all", "everything", is_flag=True, help="Print every difference.")
def replay(file: str, everything: bool, **given: Any) -> None:
    """Decide the record FILE again, with other limits; say where and why that differs.

    Each tick is asked by itself: given all that really happened before it, what would have been
    decided? Limits that are not given are those of the record.
    """
    recording = _read(file)
    changed = {_NAMES.get(name, name): it for name, it in given.items() if it is not None}
    if "mem_budget" in changed:
        changed["mem_budget"] = parse_size(changed["mem_budget"], "mem_budget")

    def change(limits: Limits) -> Limits:
        return check_limits(replace(limits, **changed))

    found = decide_again(recording, change)
    if not found.ticks:
        raise ConfigError(f"record {file!r} holds no facts to decide on: record it anew")
    if found.lost:
        click.echo(f"{found.lost} ticks are left out: their facts are incomplete", err=True)
    click.echo(_told(changed, recording))
    lines = list(differences(found))
    for line in islice(lines, None if everything else MOST_LINES):
        click.echo(line)
    if len(lines) > MOST_LINES and not everything:
        click.echo(f"... and {len(lines) - MOST_LINES} more: --all prints them")
    same = sum(tick.same for tick in found.ticks)
    click.echo(f"{same} of {len(found.ticks)} decisions are the same")


def _told(changed: dict[str, Any], recording: Recording) -> str:
    if not changed or recording.limits is None:
        return "with the limits of the record"
    pairs = (f"{n} {getattr(recording.limits, n)} -> {it}" for n, it in changed.items())
    return "with " + ", ".join(pairs)


def _read(file: str) -> Recording:
    try:
        with Path(file).expanduser().open(encoding="utf-8", errors="replace") as lines:
            recording = parse(lines, file)
    except OSError as error:
        raise ConfigError(
            f"record {file!r} cannot be read ({error.strerror}): give a file of --record"
        ) from error
    if recording.skipped:
        click.echo(f"{file}: {recording.skipped} lines skipped: they are no ticks", err=True)
    return recording
