"""How many jobs a second ``map_jobs`` brings home from outside a pool, on several servers.

    python benchmarks/mapping.py --server /usr/bin/redis-server --server valkey-server

A pool of two workers runs on each server in turn, the embedded one always among them. Each round
maps a function that does nothing over so many numbers, from enqueueing to the last result, and
the servers take turns. Medians of the rounds, and what multiple of the embedded one's each is.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from redis import Redis
from rq import Queue

import pysplash
from benchmarks.harness import Session, Site, end_on_signals, open_site
from benchmarks.peers import PYSPLASH
from benchmarks.report import Frozen, Table, notes, ratio, spread, write

#: seconds in which a round must be over
BOUND = 300.0
#: jobs of the round before the first, which is not counted
WARM = 200


def mapped(site: Site, jobs: int) -> float:
    """Return jobs a second of one call of ``map_jobs``, from its start until it returns."""
    with Redis.from_url(site.url) as client:
        queue = Queue("default", connection=client)
        began = time.perf_counter()
        found = pysplash.map_jobs(
            "math.floor", range(jobs), queue=queue, max_wait=BOUND, progress=False
        )
        seconds = time.perf_counter() - began
    assert found == list(range(jobs))
    return jobs / seconds


def measure(sites: list[Site], options: argparse.Namespace) -> list[list[float]]:
    """Return the figures of each site, from rounds in turns."""
    rates: list[list[float]] = [[] for _ in sites]
    for _ in range(options.runs):
        for site, found in zip(sites, rates, strict=True):
            with Session(site, PYSPLASH, options.workers):
                mapped(site, min(WARM, options.jobs))
                found.append(mapped(site, options.jobs))
            print(f"{site.version()}: {found[-1]:,.0f} jobs/s", file=sys.stderr)
    return rates


def table(sites: list[Site], rates: list[list[float]], options: argparse.Namespace) -> Table:
    """Return a row for each server; the embedded one is the first."""
    names = [f"{site.version()}{', embedded' * (site.program is None)}" for site in sites]
    rows = [
        [name, spread(found), ratio(found, rates[0])]
        for name, found in zip(names, rates, strict=True)
    ]
    title = f"map_jobs over {options.jobs:,} no-ops, {options.workers} workers"
    return Table(title, ["jobs/s", "median", "is x the embedded one's"], rows)


def run(options: argparse.Namespace) -> None:
    """Measure all, print, and write where that is wanted."""
    frozen = Frozen()
    with ExitStack() as stack:
        programs = [None, *options.server]
        sites = [stack.enter_context(open_site(program)) for program in programs]
        rates = measure(sites, options)
        frozen.check()
        found = table(sites, rates, options)
        told = f"Medians of {options.runs} rounds in turns (least to most)."
        below = [told, *notes(" and ".join(site.version() for site in sites), {}, {})]
    print("", found.text(), "", *below, sep="\n")
    if options.write is not None:
        write(options.write, "mapping", [found], below)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs a round (default: 10000)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the pool (default: 2)")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--write", type=Path, help="document that gets the table")
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="PATH",
        help="a server's program, as /usr/bin/redis-server; may be repeated",
    )
    options = parser.parse_args()
    end_on_signals()
    run(options)


if __name__ == "__main__":
    main()
