"""How long from enqueuing a job until its result is seen, while workers idle, beside others.

``python benchmarks/latency.py`` brings its own server (``pysplash[embedded]``), makes a virtual
environment for each peer when it first needs one, lets all take turns and prints percentiles and
ratios of the medians. A peer that cannot be installed or does not run is named and skipped.

A client enqueues a job that does nothing and waits for its result by a blocking read of the
server, as ``job.latest_result(timeout=10)`` does; Celery's client is told by the server too. Then
it goes on with the next job: at once, and in two other series after a pause. In the longer one the
processor and its caches come to rest, after which no program's calls are as fast.
Each run of a peer gives its own percentiles; of these the median over the runs is shown, with the
least and the most. The last row is the part in it of RQ's own client: the same calls where the
result is there before, and nobody works.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.harness import Session, Site, end_on_signals, open_site, take_turns
from benchmarks.peers import LATENCY, PYSPLASH, Peer
from benchmarks.report import Frozen, Table, notes, ratio, spread, write
from benchmarks.servers import add_server

#: seconds between a result and the next job
PAUSES = (0.0, 0.003, 0.02)
#: jobs before those that count
WARM = 20
#: seconds a series may take, and after which no further turn begins
SERIES, BUDGET = 120.0, 600.0
PERCENTILES = (50, 95, 99)
#: the name under which stands what the client of RQ takes by itself
CLIENT = "client"


@dataclass(frozen=True)
class Case:
    """How many workers idle, and how many seconds are between a result and the next job."""

    workers: int
    pause: float

    @property
    def title(self) -> str:
        """What it is called."""
        idle = f"{self.workers} idle worker{'s' * (self.workers > 1)}"
        rest = f"{1e3 * self.pause:g} ms after the last one" if self.pause else "one after another"
        return f"{idle}, {rest}"


@dataclass
class Figures:
    """Percentiles in milliseconds by peer, case and per cent, one of each run."""

    values: dict[tuple[str, Case, int], list[float]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def of(self, name: str, case: Case, percent: int) -> list[float]:
        """Return what was measured so far."""
        return self.values.setdefault((name, case, percent), [])

    def take_in(self, name: str, case: Case, times: Sequence[float]) -> float:
        """Take in the seconds of a series; return their median in milliseconds."""
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        for percent in PERCENTILES:
            self.of(name, case, percent).append(1e3 * cuts[percent - 1])
        return 1e3 * cuts[49]


def measure(
    site: Site, peer: Peer, number: int, jobs: int, pauses: Sequence[float], figures: Figures
) -> None:
    """Measure one peer with *number* idle workers, with each of the *pauses* between jobs."""
    with Session(site, peer, number) as session:
        figures.versions[peer.title] = session.versions
        for pause in pauses:
            case = Case(number, pause)
            session.ask("roundtrip", WARM, pause, patience=SERIES)
            times = session.ask("roundtrip", jobs, pause, patience=SERIES)
            middle = figures.take_in(peer.name, case, times)
            print(f"{peer.title}, {case.title}: {middle:.2f} ms", file=sys.stderr)
            if peer is PYSPLASH:
                unaided = session.ask("unaided", jobs, pause, patience=SERIES)
                figures.take_in(CLIENT, case, unaided)


def table(peers: Sequence[Peer], case: Case, figures: Figures) -> Table:
    """Return percentiles of one case, and each peer in multiples of PySplash."""
    rows = []
    for peer in peers:
        ours, theirs = figures.of(PYSPLASH.name, case, 50), figures.of(peer.name, case, 50)
        times = "1" if peer is PYSPLASH else ratio(theirs, ours)
        rows.append([peer.title, *_percentiles(figures, peer.name, case), times])
    alone = _percentiles(figures, CLIENT, case)
    rows.append(["RQ's client, the result being there", *alone, "-"])
    header = ["ms", *(f"p{percent}" for percent in PERCENTILES), "p50 is x PySplash's"]
    return Table(f"Enqueue to result, {case.title}", header, rows)


def _percentiles(figures: Figures, name: str, case: Case) -> list[str]:
    return [spread(figures.of(name, case, percent), 2) for percent in PERCENTILES]


def run(site: Site, options: argparse.Namespace, peers: list[Peer]) -> None:
    """Measure all, print, and write where that is wanted."""
    frozen, figures = Frozen(), Figures()
    dropped = take_turns(
        peers,
        options.workers,
        options.runs,
        BUDGET,
        lambda peer, number: measure(site, peer, number, options.jobs, options.pauses, figures),
    )
    frozen.check()
    left = [peer for peer in peers if peer.name not in dropped]
    cases = [Case(number, pause) for number in options.workers for pause in options.pauses]
    found = [table(left, case, figures) for case in cases]
    told = f"Medians of {options.runs} runs (least to most) of {options.jobs} jobs each."
    below = [told, *notes(site.version(), figures.versions, dropped)]
    print("", *(f"{part.text()}\n" for part in found), *below, sep="\n")
    if options.write is not None:
        write(options.write, site.section("latency"), found, below)


def numbers(text: str) -> list[int]:
    """Read numbers of workers."""
    return [int(word) for word in text.split(",")]


def pauses(text: str) -> list[float]:
    """Read pauses."""
    return [float(word) for word in text.split(",")]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=300, help="jobs in each run")
    parser.add_argument("--workers", type=numbers, default=[1, 8], help="idle workers, 1,8")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument(
        "--pauses", type=pauses, default=PAUSES, help="seconds between two jobs, 0,0.003,0.02"
    )
    parser.add_argument("--peers", default="rq,simple", help="of rq, simple and celery")
    parser.add_argument("--write", type=Path, help="document that gets the tables")
    add_server(parser)
    options = parser.parse_args()
    unknown = set(filter(None, options.peers.split(","))) - set(LATENCY)
    if unknown:
        parser.error(f"no such peers: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    """Read the command line and run."""
    options = parse()
    end_on_signals()
    peers = [PYSPLASH, *(LATENCY[name] for name in options.peers.split(",") if name)]
    with open_site(options.server) as site:
        run(site, options, peers)


if __name__ == "__main__":
    main()
