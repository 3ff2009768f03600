"""What becomes of ten thousand jobs while workers are signalled at random instants.

    python benchmarks/chaos.py --jobs 10000 --against pysplash
    python benchmarks/chaos.py --jobs 1000 --against rq
    python benchmarks/chaos.py --jobs 3000 --signals "" --troubles "cut,request lost,reply lost"

Three queues, four workers; jobs that do nothing, take a few milliseconds, go to the front, raise,
raise and are retried, or wait for another job. TERM, INT or KILL goes to one worker after another;
chance, with a seed, chooses signal, worker and pause. Jobs come in bursts between which the queues
may run dry. With ``--troubles`` connections to the server are cut, lose bytes, fall silent or are
slow. Then the supervisor is left in peace until nothing moves, it is stopped, and every job
is looked for.

The exit status is 1 if anything is wrong:

lost: in no queue and no registry. stranded: where nobody looks for it: in ``:intermediate``,
started with nobody to end it, ready and not enqueued, or deferred though the job it waits for has
finished. left waiting: in a queue, though nothing moved any more. in two places. at odds: its
status or its results say something else than the place it is in. run too often: more runs than one
and its retries. overlapping: a run began while another of the same job still lived. finished unrun.
unexplained: attempts that ended for no reason, beyond one for each KILL. orphans: processes that
outlived the supervisor. ghosts: workers that RQ takes for alive and that are not. open executions:
records of runs that nobody will end.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.ledger import FAULTS, Account
from benchmarks.network import TROUBLES
from benchmarks.servers import add_server
from benchmarks.storm import Settings, Storm, weathered
from benchmarks.supervisors import COMMANDS
from benchmarks.weather import SIGNALS

#: names told of one fault
TOLD = 5
ALL_FAULTS = (*FAULTS, "unexplained", "orphans", "ghosts", "open executions", "supervisor")


def summary(storm: Storm, account: Account) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"{'jobs':<18}{account.jobs:>8}"
    for name, number in storm.struck.items():
        yield f"{name:<18}{number:>8}"
    yield f"{'runs':<18}{account.runs:>8}"
    yield f"{'cut short':<18}{account.cut:>8}"
    yield f"{'ended by a kill':<18}{account.blamed:>8}"
    for place, number in account.places.items():
        yield f"in {place:<15}{number:>8}"
    for fault in ALL_FAULTS:
        who = account.faults.get(fault, ())
        yield f"{fault:<18}{len(who):>8}  {', '.join(who[:TOLD])}".rstrip()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs to enqueue")
    parser.add_argument("--against", choices=sorted(COMMANDS), default="pysplash")
    parser.add_argument("--seed", type=int, default=1, help="what chance begins with")
    parser.add_argument(
        "--seconds",
        type=float,
        default=300.0,
        help="time after which no more jobs and signals come",
    )
    parser.add_argument("--signals", default=",".join(SIGNALS), help="some of %(default)s")
    parser.add_argument("--log", type=Path, help="file that gets what the supervisor says")
    parser.add_argument(
        "--troubles",
        default="",
        help="what befalls connections, some of " + ",".join(TROUBLES),
    )
    add_server(parser)
    given = parser.parse_args()
    for option, known in (("signals", SIGNALS), ("troubles", TROUBLES)):
        named = tuple(name for name in getattr(given, option).split(",") if name)
        if unknown := set(named).difference(known):
            parser.error(f"--{option}: {', '.join(unknown)}: choose from {', '.join(known)}")
        setattr(given, option, named)
    return given


def main() -> int:
    """Measure and print; return the exit status."""
    given = arguments()
    began = time.monotonic()
    weather = (given.seconds, given.signals, given.troubles)
    settings = Settings(given.against, given.jobs, given.seed, *weather, given.server)
    with weathered(settings) as storm:
        account = storm.account()
    if given.log:
        given.log.write_text(storm.words)
    took = time.monotonic() - began
    print(f"{given.against} on {storm.server}, seed {given.seed}, {took:.0f} s")
    print("\n".join(summary(storm, account)))
    return int(bool(account.faults))


if __name__ == "__main__":
    sys.exit(main())
