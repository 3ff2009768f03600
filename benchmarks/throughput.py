"""How many jobs a second workers do, beside those of others, in one run on one server.

``python benchmarks/throughput.py`` brings its own server (``pysplash[embedded]``), makes a virtual
environment for each peer when it first needs one, lets all take turns and prints medians with
their spread and the ratios of the medians. A peer that cannot be installed or does not run is
named and skipped.

The method is the same for everyone. The workers are started, and do jobs until every one of them
has done some. Then all their processes are held by SIGSTOP, the queue is filled, and they are let
go by SIGCONT. Every 10 ms the number of results that the server holds is read; the figure is the
number of jobs between the first and the last result seen, by the time between the two: neither
starting nor enqueuing is part of it. Every job returns 0, so that every peer has a result to
store. Counts are chosen so that a measurement takes about two seconds, from a short trial in the
first round and from the last measurement after it; each worker process runs one job at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.harness import Session, Site, end_on_signals, open_site, take_turns
from benchmarks.limit import missing
from benchmarks.peers import BARE, PYSPLASH, THROUGHPUT, Peer
from benchmarks.report import Frozen, Table, notes, ratio, spread, write
from benchmarks.servers import add_server

KINDS = {"noop": "No-op jobs", "nap": "Jobs of 10 ms", "large": "Jobs with 64 KiB of arguments"}
#: most jobs of a kind in one measurement: what 64 KiB each come to must fit into memory
MOST = {"noop": 60_000, "nap": 60_000, "large": 3_000}
#: seconds that one measurement should take; quick: the same
AIM, QUICK_AIM = 2.0, 0.7
#: seconds after which no further turn begins; quick: the same
BUDGET, QUICK_BUDGET = 840.0, 150.0
#: seconds of work that a trial must see, and its first number of jobs
TRIAL, TRIAL_JOBS = 0.25, 20


@dataclass
class Figures:
    """Jobs a second by kind, workers and peer; what they ran with; who was skipped."""

    aim: float
    jobs: int | None
    rates: dict[tuple[str, int, str], list[float]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    frozen: Frozen = field(default_factory=Frozen)
    #: what other programs took of the machine, in per cent, in each measurement
    foreign: list[float] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def of(self, kind: str, number: int, peer: Peer) -> list[float]:
        """Return what was measured so far."""
        return self.rates.setdefault((kind, number, peer.name), [])

    def count(self, session: Session, kind: str) -> int:
        """Return how many jobs the next measurement should have."""
        if self.jobs is not None:
            return self.jobs
        known = self.of(kind, session.number, session.peer)
        rate = known[-1] if known else self._expected(session, kind)
        return max(session.number * 5, min(MOST[kind], round(rate * self.aim)))

    def _expected(self, session: Session, kind: str) -> float:
        noop = self.of("noop", session.number, session.peer)
        if kind == "nap" and noop:
            return min(noop[-1], 95.0 * session.number)
        return trial(session, kind)


def trial(session: Session, kind: str) -> float:
    """Return jobs a second, roughly."""
    jobs = TRIAL_JOBS
    rate = session.measure(kind, jobs)
    while jobs / rate < TRIAL and jobs < MOST[kind] / 5:
        jobs *= 5
        rate = session.measure(kind, jobs)
    return rate


def measure(site: Site, peer: Peer, number: int, figures: Figures) -> None:
    """Measure one peer with *number* workers."""
    with Session(site, peer, number) as session:
        figures.versions[peer.title] = session.versions
        for kind in peer.kinds:
            figures.frozen.check()
            rate = session.measure(kind, figures.count(session, kind))
            figures.of(kind, number, peer).append(rate)
            figures.foreign.append(session.foreign)
            told = f"{rate:,.0f} jobs/s, others took {session.foreign:.0f} % of the cores"
            print(f"{peer.title}, {number} workers, {kind}: {told}", file=sys.stderr)


def tables(peers: Sequence[Peer], workers: Sequence[int], figures: Figures) -> list[Table]:
    """Return a table for each kind of job: jobs/s, and PySplash in multiples of each."""
    header = ["jobs/s"]
    for number in workers:
        header += [f"{number} worker{'s' * (number > 1)}", "PySplash is x"]
    found = []
    for kind, title in KINDS.items():
        rows = []
        for peer in peers:
            row = [peer.title]
            for number in workers:
                theirs = figures.of(kind, number, peer)
                ours = figures.of(kind, number, PYSPLASH)
                row += [spread(theirs), "1" if peer is PYSPLASH else ratio(ours, theirs)]
            if kind in peer.kinds:
                rows.append(row)
        found.append(Table(title, header, rows))
    return found


def run(site: Site, options: argparse.Namespace, peers: list[Peer]) -> None:
    """Measure all, print, and write where that is wanted."""
    figures = Figures(QUICK_AIM if options.quick else AIM, options.jobs)
    budget = QUICK_BUDGET if options.quick else BUDGET
    figures.dropped = take_turns(
        peers,
        options.workers,
        options.runs,
        budget,
        lambda peer, number: measure(site, peer, number, figures),
    )
    figures.frozen.check()
    if reason := missing():
        print(f"{BARE.title}: skipped: {reason}")
    left = [peer for peer in peers if peer.name not in figures.dropped]
    found = tables(left, options.workers, figures)
    told = f"Medians of {options.runs} runs (least to most)."
    others = f"Other programs took {spread(figures.foreign)} % of the cores meanwhile."
    below = [f"{told} {others}", *notes(site.version(), figures.versions, figures.dropped)]
    print("", *(f"{table.text()}\n" for table in found), *below, sep="\n")
    if options.write is not None:
        write(options.write, site.section("throughput"), found, below)


def numbers(text: str) -> list[int]:
    """Read numbers of workers."""
    return [int(word) for word in text.split(",")]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, help="jobs a measurement, instead of a fitting number")
    parser.add_argument("--workers", type=numbers, help="numbers of workers, 1,2,4 by default")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--peers", default=",".join(THROUGHPUT), help="whom to measure")
    parser.add_argument("--quick", action="store_true", help="two workers, shorter measurements")
    parser.add_argument("--write", type=Path, help="document that gets the tables")
    add_server(parser)
    options = parser.parse_args()
    unknown = set(filter(None, options.peers.split(","))) - set(THROUGHPUT)
    if unknown:
        parser.error(f"no such peers: {', '.join(sorted(unknown))}")
    options.workers = options.workers or ([2] if options.quick else [1, 2, 4])
    return options


def main() -> None:
    """Read the command line and run."""
    options = parse()
    end_on_signals()
    peers = [PYSPLASH, *(THROUGHPUT[name] for name in options.peers.split(",") if name)]
    if not missing():
        peers.append(BARE)
    with open_site(options.server) as site:
        run(site, options, peers)


if __name__ == "__main__":
    main()
