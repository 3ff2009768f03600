"""How real pools hold their limits, and how long mixes of jobs take beside peers' fixed sizes.

``python benchmarks/control.py`` runs every load on a server of its own and looks on from outside
the pool: CPU is the kernel's count of all programs, so whatever else runs is in it. Run it on a
machine that does nothing else. ``--pictures doc/`` draws the two pictures of the documents
instead; ``--scenario`` chooses loads (``mix`` is the comparison of makespans).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.harness import Session, Site, end_on_signals, open_site
from benchmarks.loads import (
    LOADS,
    MIXES,
    Run,
    celery_autoscale,
    first_rule,
    makespan,
    play,
    recorded,
    rq_pool,
)
from benchmarks.peers import Peer, Unavailable
from benchmarks.report import Frozen, Table, cores, notes, write
from benchmarks.servers import add_server
from pysplash.control.model import Spawn
from pysplash.recording.plot import compare, plot, save

#: fixed sizes to compare with, and those of a quick run
SIZES, QUICK_SIZES = (1, 2, 4, 8, 16, 32), (2, 8)
#: parts of the seconds and jobs of a full run that a quick one has
QUICK = 0.25
#: points by which the five-second mean may be away, and seconds before it counts
BAND, SETTLED = 8.0, 60.0
#: seconds a mix may take
PATIENCE = 900.0
#: seconds of the runs that are drawn
STEADY_PICTURE, WAVE_PICTURE = 60.0, 120.0
MIX = "mix"
#: what is told below the tables
HELD = "CPU is that of all programs, by the kernel; memory the pool's, each tenth of a second."
COMPARED = "With `--max-cpu 100`, as peers have no limit."


def row(run: Run, quick: bool) -> list[str]:
    """Return the figures of one load."""
    trace, limits = run.trace, run.recording.limits
    assert limits is not None
    after = SETTLED * (QUICK if quick else 1.0)
    target = limits.max_cpu
    settled = trace.settled(target - 5, target + 5, 30.0 * (QUICK if quick else 1.0))
    done = Counter(
        type(action).__name__
        for tick in run.recording.ticks
        for action in tick.decision.actions
        if not isinstance(action, Spawn)
    )
    budget = run.load.budget
    return [
        f"{run.load.name}: {run.load.says}",
        "-" if settled is None else f"{settled:.0f}",
        f"{trace.overshoot(target):.1f}",
        f"{trace.error(target, after):.1f}",
        f"{100 * trace.within(target - BAND, target + BAND, after):.0f}",
        f"{trace.seconds_above(target + 5):.0f}",
        "-" if budget is None else f"{trace.seconds_over(float('inf'), budget):.1f}",
        "-" if budget is None else f"{100 * trace.used(after, budget):.0f}",
        str(done["Kill"]),
        str(run.finished),
    ]


HEAD = (
    "",
    "settled s",
    "overshoot",
    "error",
    f"% within {BAND:g}",
    "s 5 over",
    "s over memory",
    "memory %",
    "killed",
    "jobs done",
)


def control(site: Site, names: list[str], quick: bool, found: dict[str, dict[str, str]]) -> Table:
    """Run loads one after the other."""
    rows = []
    for name in names:
        load = LOADS[name]
        run = play(site, load, load.seconds * (QUICK if quick else 1.0), cores())
        found["PySplash"] = run.versions
        rows.append(row(run, quick))
        print("  ".join(rows[-1]), file=sys.stderr)
    return Table("Limits held (CPU in points of per cent, means of 10 s)", HEAD, rows)


def mixes(site: Site, quick: bool, found: dict[str, dict[str, str]]) -> list[Table]:
    """Compare makespans, each mix by itself."""
    tables = []
    for name, (kind, each) in MIXES.items():
        jobs = max(2, round(each * cores() * (QUICK if quick else 1.0)))
        times: dict[str, float | str] = {"PySplash": _ours(site, kind, jobs, found)}
        peers = [(rq_pool(n), n) for n in (QUICK_SIZES if quick else SIZES)]
        peers += [(celery_autoscale(max(SIZES)), 1), (first_rule(), 1)]
        for peer, number in peers:
            times[peer.title] = took = _theirs(site, peer, number, kind, jobs, found)
            told = took if isinstance(took, str) else f"{took:.1f} s"
            print(f"{name}: {peer.title}: {told}", file=sys.stderr)
        tables.append(_ranked(f"Makespan of {jobs} jobs: {name}", times))
    return tables


def _ours(site: Site, kind: str, jobs: int, found: dict[str, dict[str, str]]) -> float:
    with recorded(site, ("--max-cpu", "100")) as (session, _):
        found["PySplash"] = session.versions
        return makespan(session, kind, jobs, PATIENCE)


def _theirs(
    site: Site, peer: Peer, number: int, kind: str, jobs: int, found: dict[str, dict[str, str]]
) -> float | str:
    try:
        with Session(site, peer, number) as session:
            found[peer.title.partition(" -n")[0]] = session.versions
            return makespan(session, kind, jobs, PATIENCE)
    except Unavailable as reason:
        return str(reason)


def _ranked(title: str, times: dict[str, float | str]) -> Table:
    known = {name: it for name, it in times.items() if isinstance(it, float)}
    best = min(known.values())
    rows = []
    for name, it in times.items():
        if isinstance(it, str):
            rows.append([name, "-", it[:80]])
        else:
            mark = " (best)" if it == best else ""
            rows.append([name, f"{it:.1f}{mark}", f"{it / best:.2f}"])
    return Table(title, ("", "seconds", "x the best"), rows)


def pictures(site: Site, folder: Path, quick: bool) -> None:
    """Draw CPU held at its limit, and sleepers that wake with and without the fast loop."""
    part = QUICK if quick else 1.0
    steady = play(site, LOADS["cpu"], STEADY_PICTURE * part, cores()).recording
    title = f"pysplash --max-cpu 80: jobs of one core on {cores()} cores"
    plot(steady, folder / "pct_80.png", title)
    waves = [
        (says, play(site, LOADS[name], WAVE_PICTURE * part, cores()).recording)
        for name, says in (("wave-slow", "--no-throttle"), ("wave", "with the fast loop"))
    ]
    title = f"Jobs that sleep 15 s, then compute 10 s, on {cores()} cores"
    save(compare(waves, title), folder / "wave.png")


def run(site: Site, options: argparse.Namespace) -> None:
    """Measure, print, and write where that is wanted."""
    frozen = Frozen()
    if options.pictures is not None:
        pictures(site, options.pictures, options.quick)
        return
    found: dict[str, dict[str, str]] = {}
    names = [name for name in options.scenario if name != MIX]
    if names:
        held = control(site, names, options.quick, found)
        frozen.check()
        _tell(site, options.write, "control", [held], HELD, found)
    if MIX in options.scenario:
        compared = mixes(site, options.quick, found)
        frozen.check()
        _tell(site, options.write, "mixes", compared, COMPARED, found)


def _tell(
    site: Site,
    path: Path | None,
    marker: str,
    tables: list[Table],
    told: str,
    found: dict[str, dict[str, str]],
) -> None:
    below = [told, *notes(site.version(), found, {})]
    print("", *(f"{table.text()}\n" for table in tables), *below, sep="\n")
    if path is not None:
        write(path, site.section(marker), tables, below)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    every = [*LOADS, MIX]
    parser.add_argument("--scenario", action="append", choices=every, help="repeatable")
    parser.add_argument("--quick", action="store_true", help="a quarter of the time")
    parser.add_argument("--write", type=Path, help="document that gets the tables")
    parser.add_argument("--pictures", type=Path, help="folder that gets the two pictures")
    add_server(parser)
    options = parser.parse_args()
    options.scenario = options.scenario or every
    return options


def main() -> None:
    """Read the command line and run."""
    options = parse()
    end_on_signals()
    with open_site(options.server) as site:
        run(site, options)


if __name__ == "__main__":
    main()
