"""Tables of a benchmark: printed, and kept in a document between two comments of its own."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import statistics
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

#: characters a line of a document may have, tables aside
WIDTH = 120
INTRODUCTION = """\
# Benchmarks

What PySplash does in a second and how soon it answers, beside others. Each table comes from one
run of one program, in which all took turns on the same machine and the same server; whoever runs
the program again gets their own. Ratios travel better than figures: compare within a table, never
across machines. Where a peer is faster, the table says so. Throughput also names the share of the
cores that other programs took meanwhile: unless it is near nothing, the ratios mean little.

Throughput is how many jobs a second a full queue is emptied with; latency is how long a lone job
takes when a worker idles. Jobs that do nothing show what the system costs, not what yours would
gain: a job of 10 ms hides most of it, and the table shows that too. Peers run with their usual
settings and one job at a time in each process; some could do more at once with threads or
coroutines. Dramatiq fetches 64 jobs ahead, since its default leaves a single thread waiting. They
promise different things as well: some forget the job a worker had when it was killed, and not all
keep the records RQ keeps.

Jobs of 64 KiB carry random bytes. RQ compresses arguments, in vain here, when it enqueues; that is
outside what is measured. The bare loop is no peer: plain processes that send the server one script
a job and never run one. It is the limit of any worker that keeps RQ's records this way.
"""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Return it for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        shown = [
            line[0].ljust(widths[0])
            + "".join(
                f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)
            )
            for line in lines
        ]
        return "\n".join([self.title, *shown])

    def markdown(self) -> str:
        """Return it for a document."""
        ruler = ["---", *("--:" for _ in self.header[1:])]
        lines = [f"| {' | '.join(line)} |" for line in (self.header, ruler, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median, and the least and the most."""
    if not values:
        return "-"
    low, middle, high = min(values), statistics.median(values), max(values)
    if len(values) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the ratio of the medians."""
    if not ours or not theirs:
        return "-"
    value = statistics.median(ours) / statistics.median(theirs)
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(server: str) -> str:
    """Say where this was measured."""
    return f"{cores()} cores, {platform.system()}, Python {platform.python_version()}, {server}"


def source() -> str:
    """Return a short hash of PySplash's own code: which of its states was measured."""
    found = find_spec("pysplash")
    assert found is not None
    digest = hashlib.sha256()
    for folder in found.submodule_search_locations or ():
        for path in sorted(Path(folder).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


class Frozen:
    """Watch that PySplash's code stays what it was: two states in one table mean nothing."""

    def __init__(self) -> None:
        self.source = source()

    def check(self) -> None:
        """Leave, without a table, if the code has changed."""
        if source() != self.source:
            raise SystemExit("PySplash's code has changed during the run: no table")


def command() -> str:
    """Return the command line of this program, without where to write."""
    words = sys.argv[1:]
    kept = [
        word
        for number, word in enumerate(words)
        if not word.startswith("--write") and (number == 0 or words[number - 1] != "--write")
    ]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *kept])


def versions(found: dict[str, dict[str, str]]) -> str:
    """Name packages and their versions; those that differ between environments by their owners."""
    told: dict[tuple[str, str], list[str]] = {}
    for owner, packages in found.items():
        for package, version in packages.items():
            told.setdefault((package, version), []).append(owner)
    several = {name for name, _ in told if sum(name == other for other, _ in told) > 1}
    return ", ".join(
        f"{name} {version}" + (f" ({', '.join(owners)})" if name in several else "")
        for (name, version), owners in sorted(told.items())
    )


def notes(server: str, found: dict[str, dict[str, str]], dropped: dict[str, str]) -> list[str]:
    """Return what belongs below the tables, a line each."""
    skipped = [f"Skipped: {name}: {reason}." for name, reason in dropped.items()]
    return [
        f"Measured with {machine(server)}.",
        (f"Versions: {versions(found)}. " if found else "") + f"PySplash's source: {source()}.",
        *skipped,
    ]


def wrapped(text: str) -> str:
    """Return a paragraph in lines that fit into a document."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def write(path: Path, marker: str, tables: Sequence[Table], below: Sequence[str]) -> None:
    """Put the tables into a document, in place of those that stand between its two comments."""
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    parts = [wrapped(f"`{command()}`"), *(table.markdown() for table in tables)]
    body = "\n\n".join([*parts, *map(wrapped, below)])
    block = f"{begin}\n{body}\n{end}"
    text = path.read_text() if path.exists() else INTRODUCTION
    if begin in text and end in text:
        span = re.escape(begin) + ".*?" + re.escape(end)
        text = re.sub(span, lambda _: block, text, flags=re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n## {marker[0].upper()}{marker[1:]}\n\n{block}\n"
    path.write_text(text)
