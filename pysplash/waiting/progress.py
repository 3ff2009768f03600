"""A picture of a wait, for a person at a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a wait has come: jobs in all, ended, ended badly, and where the others are."""

    total: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    queued: int = 0

    def text(self, seconds: float) -> str:
        """Return it as words, after *seconds* of waiting."""
        words = [f"{self.failed} failed"] if self.failed else []
        words += [f"{self.running} running", f"{self.queued} queued"]
        if seconds > 0 and self.done:
            words.append(f"{self.done / seconds:.1f}/s")
        return ", ".join(words)


Report = Callable[[Tally], None]


@contextlib.contextmanager
def bar(drawing: bool) -> Iterator[Report]:
    """Yield what shows a tally: a bar on standard error if *drawing*, else nothing."""
    if not drawing:
        yield lambda tally: None
        return
    from rich.console import Console  # noqa: PLC0415 -- workers wait too, and never draw
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (
        TextColumn("waiting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
    )
    started = time.monotonic()
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as drawn:
        task = drawn.add_task("", total=None, words="")

        def report(tally: Tally) -> None:
            words = tally.text(time.monotonic() - started)
            drawn.update(task, completed=tally.done, total=tally.total, words=words, refresh=True)

        yield report
