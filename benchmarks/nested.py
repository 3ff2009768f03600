"""Jobs that wait for jobs: which trees end, with how many processes, how soon, at what cost.

``python benchmarks/nested.py`` brings its own server (``pysplash[embedded]``), makes a virtual
environment for each peer when it first needs one, and prints a table for each tree: fib(10),
fib(12) and fib(16), whose jobs wait for two others each down to the leaves, and one job that waits
for a thousand. Each job also sleeps 10 ms, so that there is work whose shortest time is known: the
number of jobs by 10 ms by the workers. Peers wait in their own best way: RQ by a blocking read of
each result, Celery with ``allow_join_result``.

A tree that stands still for ten seconds has not ended and will not. Processes are those that run
jobs, looked at five times a second. Round trips are reads of its sockets that the server counts,
the program's own taken off, by jobs; a thousand jobs enqueued at once take some dozen.

Then come three scenes for PySplash: fib(12) with one worker that also serves a second queue of
100,000 jobs; 200 jobs that wait for 20 each, where ``rq worker-pool`` is shown too; and a client
that waits for 1,000 jobs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import apps
from benchmarks.harness import LOOK, Session, Site, end_on_signals, open_site, take_turns
from benchmarks.peers import CELERY, PYSPLASH, RQ_POOL, Command, Peer
from benchmarks.report import Frozen, Table, notes, ratio, spread, write
from benchmarks.servers import add_server

#: seconds of work in each job
WORK = 0.01
#: seconds without a further result after which a tree is given up, and between two counts
STILL, GLANCE = 10.0, 0.2
#: seconds after which no further turn begins; quick: the same
BUDGET, QUICK_BUDGET = 1800.0, 150.0
#: foreign jobs; parents and the children of each; jobs a client waits for
CROWD, PARENTS, CHILDREN, WIDTH = 100_000, 200, 20, 1000
#: rounds of the scene with foreign jobs, waits of the client
SCENE_RUNS, WAITS = 3, 11

OURS = replace(PYSPLASH, app=apps.NESTED_PYSPLASH)
THEIRS = {
    "rq": replace(RQ_POOL, app=apps.NESTED_RQ),
    "celery": replace(CELERY, app=apps.NESTED_CELERY),
}
#: how many steps below the program that is started its workers are
DEPTH = {"pysplash": 2, "rq": 1, "celery": 1}


def fibonacci(n: int) -> int:
    """Return the n-th Fibonacci number, in one process."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@dataclass(frozen=True)
class Tree:
    """Roots to be enqueued together, how many jobs come of them, and what they return."""

    title: str
    kind: str
    sizes: tuple[int, ...]
    jobs: int
    answer: int
    seconds: float = WORK

    def ideal(self, workers: int) -> float:
        """Return the seconds it takes if no worker ever idles."""
        return self.jobs * self.seconds / workers


def fib(n: int, seconds: float = WORK) -> Tree:
    """Return the tree of a Fibonacci number."""
    return Tree(f"fib({n})", "fib", (n,), 2 * fibonacci(n + 1) - 1, fibonacci(n), seconds)


FLAT = Tree(f"One job that waits for {WIDTH:,}", "flat", (WIDTH,), WIDTH + 1, WIDTH)
FAMILIES = Tree(
    f"{PARENTS} jobs that wait for {CHILDREN} each",
    "flat",
    (CHILDREN,) * PARENTS,
    PARENTS * (CHILDREN + 1),
    CHILDREN,
)
TREES = (fib(10), fib(12), fib(16), FLAT)
QUICK_TREES = (fib(10), FLAT)


@dataclass(frozen=True)
class Run:
    """What came of one tree."""

    done: int
    seconds: float
    processes: int
    trips: float
    ended: bool


def run_tree(session: Session, tree: Tree, crowd: int | None = None) -> Run:
    """Enqueue a tree and follow it until it has ended, rightly, or stands still.

    With *crowd* the workers are let go when so many foreign jobs wait beside it.
    """
    before, reads, looks = session.count(), _reads(session.site), 0
    done, processes = 0, 0
    begin = plant(session, tree, crowd)
    moved = glance = begin
    while done < tree.jobs and time.monotonic() - moved < STILL:
        time.sleep(LOOK)
        seen, now = session.count() - before, time.monotonic()
        looks += 1
        if seen > done:
            done, moved = seen, now
        if now >= glance:
            processes = max(processes, session.generation(DEPTH[session.peer.name]))
            glance = now + GLANCE
    ended = done == tree.jobs
    if ended and (wrong := set(session.ask("answers")) - {tree.answer}):
        raise SystemExit(f"{session.peer.title}: {tree.title} is {wrong}, not {tree.answer}")
    trips = (_reads(session.site) - reads - looks) / max(1, done)
    return Run(done, moved - begin, processes, trips, ended)


def plant(session: Session, tree: Tree, crowd: int | None) -> float:
    """Enqueue the roots; return when that began, or when the workers were let go."""
    begin = time.monotonic()
    roots = [(size, tree.seconds) for size in tree.sizes]
    if crowd is None:
        session.ask("plant", tree.kind, roots)
        return begin
    with session.held():
        session.ask("crowd", crowd)
        session.ask("plant", tree.kind, roots)
    return time.monotonic()


def _reads(site: Site) -> int:
    return int(site.broker.info("stats")["total_reads_processed"])


@dataclass
class Figures:
    """The runs by tree, workers and peer; what they ran with; who was skipped."""

    trees: Sequence[Tree]
    runs: dict[tuple[str, int, str], list[Run]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    frozen: Frozen = field(default_factory=Frozen)

    def of(self, tree: Tree, number: int, peer: Peer) -> list[Run]:
        """Return the runs so far."""
        return self.runs.setdefault((tree.title, number, peer.name), [])


def measure(site: Site, peer: Peer, number: int, figures: Figures) -> None:
    """Let one peer grow all trees, with fresh workers after one that did not end."""
    for tree in figures.trees:
        figures.frozen.check()
        with Session(site, peer, number) as session:
            figures.versions[peer.title] = session.versions
            run = run_tree(session, tree)
        figures.of(tree, number, peer).append(run)
        end = f"{run.seconds:.2f} s" if run.ended else f"stands still after {run.done} jobs"
        print(f"{peer.title}, {number} workers, {tree.title}: {end}", file=sys.stderr)


def table(tree: Tree, numbers: Sequence[int], peers: Sequence[Peer], figures: Figures) -> Table:
    """Return the table of one tree."""
    header = ["workers", "ends", "processes", "seconds", "x shortest", "round trips a job"]
    rows = []
    for peer in peers:
        for number in numbers:
            if runs := figures.of(tree, number, peer):
                label = f"{peer.title}, {number}"
                rows.append([label, *cells(tree, number, runs)])
    return Table(f"{tree.title}: {tree.jobs:,} jobs", header, rows)


def cells(tree: Tree, number: int, runs: list[Run]) -> list[str]:
    """Return what is told of some runs of the same; times only if all of them have ended."""
    processes = str(max(run.processes for run in runs))
    if not all(run.ended for run in runs):
        done = min(run.done for run in runs)
        return [f"no, stands still after {done:,}", processes, "-", "-", "-"]
    seconds = [run.seconds for run in runs]
    ratios = [each / tree.ideal(number) for each in seconds]
    trips = [run.trips for run in runs]
    return ["yes", processes, spread(seconds, 2), spread(ratios, 2), spread(trips, 2)]


# --- scenes --------------------------------------------------------------------------------------


def families(site: Site, runs: int, figures: Figures) -> Table:
    """Measure many jobs that wait for some each, with fewer workers than jobs that wait."""
    scene = Figures((FAMILIES,), versions=figures.versions, frozen=figures.frozen)
    peers = [OURS, THEIRS["rq"]]
    take_turns(peers, [4], runs, BUDGET, lambda peer, n: measure(site, peer, n, scene))
    return table(FAMILIES, [4], peers, scene)


def crowded(site: Site, runs: int) -> Table:
    """Measure fib(12) without and with a second queue full of foreign jobs, one worker for both."""

    def both(number: int, url: str) -> list[Command]:
        return [[*command, "foreign"] for command in PYSPLASH.commands(number, url)]

    tree = fib(12, 0.0)
    times: dict[int, list[float]] = {0: [], CROWD: []}
    helped = 0
    for _ in range(runs):
        for crowd, found in times.items():
            with Session(site, replace(OURS, commands=both), 1) as session:
                found.append(run_tree(session, tree, crowd).seconds)
                helped += session.ask("helped")
    header = ["second queue", "seconds", "x without", "of it helped"]
    rows = [
        ["empty", spread(times[0], 2), "1", "-"],
        [f"{CROWD:,} jobs", spread(times[CROWD], 2), ratio(times[CROWD], times[0]), str(helped)],
    ]
    return Table(f"{tree.title}, one worker, jobs without work", header, rows)


def woken(site: Site, runs: int) -> Table:
    """Measure how soon a client that waits for many jobs is woken, and how often it asks."""
    with Session(site, OURS, 2) as session:
        found = [session.ask("wake", WIDTH) for _ in range(runs)]
    header = ["", "ms after the last result", "round trips"]
    rows = [
        [
            f"{runs} waits",
            spread([1e3 * seconds for seconds, _ in found], 1),
            spread([trips for _, trips in found]),
        ]
    ]
    return Table(f"A client that waits for {WIDTH:,} jobs, 2 workers", header, rows)


# --- the program ---------------------------------------------------------------------------------


def run(site: Site, options: argparse.Namespace, peers: list[Peer]) -> None:
    """Measure all, print, and write where that is wanted."""
    figures = Figures(QUICK_TREES if options.quick else TREES)
    budget = QUICK_BUDGET if options.quick else BUDGET
    dropped = take_turns(
        peers,
        options.workers,
        options.runs,
        budget,
        lambda peer, number: measure(site, peer, number, figures),
    )
    found = [table(tree, options.workers, peers, figures) for tree in figures.trees]
    found.append(families(site, options.runs, figures))
    found += [crowded(site, SCENE_RUNS), woken(site, WAITS)]
    figures.frozen.check()
    told = f"Medians of {options.runs} runs (least to most); of {SCENE_RUNS} with foreign jobs."
    below = [told, *notes(site.version(), figures.versions, dropped)]
    print("", *(f"{part.text()}\n" for part in found), *below, sep="\n")
    if options.write is not None:
        write(options.write, site.section("nested"), found, below)


def numbers(text: str) -> list[int]:
    """Read numbers of workers."""
    return [int(word) for word in text.split(",")]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=numbers, help="numbers of workers, 1,2,4,8 by default")
    parser.add_argument("--runs", type=int, default=1, help="rounds")
    parser.add_argument("--peers", default=",".join(THEIRS), help="whom to measure")
    parser.add_argument("--quick", action="store_true", help="fewer trees, 1 and 4 workers")
    parser.add_argument("--write", type=Path, help="document that gets the tables")
    add_server(parser)
    options = parser.parse_args()
    unknown = set(filter(None, options.peers.split(","))) - set(THEIRS)
    if unknown:
        parser.error(f"no such peers: {', '.join(sorted(unknown))}")
    options.workers = options.workers or ([1, 4] if options.quick else [1, 2, 4, 8])
    return options


def main() -> None:
    """Read the command line and run."""
    options = parse()
    end_on_signals()
    peers = [OURS, *(THEIRS[name] for name in options.peers.split(",") if name)]
    with open_site(options.server) as site:
        run(site, options, peers)


if __name__ == "__main__":
    main()
