"""What a flood at one door does to callers at the others, and to the gateway's memory.

``python benchmarks/flood.py`` brings its own server and needs ``pysplash[embedded,gateway]``. A
gateway with three doors and its usual bounds, a pool of as many workers as there are cores. One
caller at each door calls an echo, first in peace, then while a crowd floods one of the doors; the
table shows how long calls take at the others, and the most memory (PSS) the gateway has had. The
crowd is on this machine too, so it is made to step back behind all others (``nice``); what the
system does for its connections it does all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.doors import Doors, by_frames, by_http, by_zmq, opened
from benchmarks.floods import FLOODS, flood
from benchmarks.harness import Site, end_on_signals, open_site
from benchmarks.report import Frozen, Table, cores, notes, write
from benchmarks.servers import add_server

MIB = 2**20
#: seconds a crowd gets to gather, and between two looks at the gateway's memory
GATHER, LOOK = 1.0, 0.05
#: how one caller calls at each kind of door
CALLERS: Mapping[str, Callable[[str, int, int], tuple[float, list[float]]]] = {
    "framed": by_frames,
    "HTTP": by_http,
    "ZeroMQ": by_zmq,
}


class Watch:
    """The most memory a process and what came of it have while the block lasts, in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.most = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(LOOK):
            self.most = max(self.most, held(self._process))


def held(process: psutil.Process) -> int:
    """Return the memory (PSS) that a process and those that came of it have now, in bytes."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_full_info().pss
    return total


@contextlib.contextmanager
def flooding(kind: str, name: str, address: str) -> Iterator[None]:
    """Flood a door for the length of the block."""
    crowd = multiprocessing.get_context("spawn").Process(
        target=flood, args=(kind, name, address), daemon=True
    )
    crowd.start()
    try:
        crowd.join(GATHER)
        if not crowd.is_alive():
            raise SystemExit(f"the flood {name} at {address} has ended by itself")
        yield
    finally:
        crowd.kill()
        crowd.join()


def called(doors: Doors, kinds: list[str], calls: int) -> dict[str, list[float]]:
    """Return how long each of so many calls took, for one caller at each of these doors."""
    with ThreadPoolExecutor(len(kinds)) as pool:
        asked = {kind: pool.submit(CALLERS[kind], doors.at[kind], calls, 1) for kind in kinds}
        return {kind: future.result()[1] for kind, future in asked.items()}


def p99(times: list[float]) -> float:
    """Return the time in ms within which 99 of 100 calls were answered."""
    return 1e3 * statistics.quantiles(times, n=100, method="inclusive")[98]


def run(site: Site, options: argparse.Namespace) -> None:
    """Measure all, print, and write where that is wanted."""
    frozen = Frozen()
    rows: list[list[str]] = []
    with opened(site, cores()) as doors:
        for kind, floods in FLOODS.items():
            others = [other for other in CALLERS if other != kind]
            for name in floods:
                if f"{kind}: {name}" not in (options.only or [f"{kind}: {name}"]):
                    continue
                with Watch(doors.gateway) as before:
                    idle = called(doors, others, options.calls)
                with flooding(kind, name, doors.at[kind]), Watch(doors.gateway) as during:
                    busy = called(doors, others, options.calls)
                times = [f"{p99(idle[other]):.1f} / {p99(busy[other]):.1f}" for other in others]
                worst = max(p99(busy[other]) / p99(idle[other]) for other in others)
                memory = f"{before.most / MIB:.0f} / {during.most / MIB:.0f}"
                rows.append([f"{kind}: {name}", *times, f"{worst:.1f}", memory])
                print(*rows[-1], sep="  ", file=sys.stderr)
    frozen.check()
    header = ["flood", "p99 at one other, ms", "at another, ms", "at most x", "PSS, MiB"]
    found = [Table("Before / during a flood at one door", header, rows)]
    below = [f"{options.calls} calls by one caller at each door.", *notes(site.version(), {}, {})]
    print("", *(f"{part.text()}\n" for part in found), *below, sep="\n")
    if options.write is not None:
        write(options.write, site.section("flood"), found, below)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1000, help="calls at each door")
    parser.add_argument("--only", action="append", help='one flood, such as "HTTP: small calls"')
    parser.add_argument("--write", type=Path, help="document that gets the table")
    add_server(parser)
    options = parser.parse_args()
    end_on_signals()
    with open_site(options.server) as site:
        run(site, options)


if __name__ == "__main__":
    main()
