"""The limit of one script a job: plain processes that finish a job and claim the next, no more.

``python benchmarks/limit.py`` brings its own server and a queue of RQ's own jobs. Each process
sends PySplash's own script over a raw socket, once a job; the script stores the outcome of the
last job as RQ would and claims the next one. No function is called and no job object is made: no
worker that keeps RQ's records this way can be faster here. Method and medians are those of
``throughput.py``.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
import uuid
from base64 import b64encode
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from pickle import dumps
from typing import Any
from urllib.parse import urlsplit

import hiredis

QUEUE = "default"
#: seconds between two looks at an empty queue; seconds a result, and the worker's key, are kept
PAUSE, TTL = 0.002, 500
RESULT = b64encode(dumps(0)).decode()
NOTHING = ("",) * 10


def script() -> str:
    """Return PySplash's script; empty where there is none."""
    try:
        return str(import_module("pysplash.jobs.store_and_claim").SCRIPT)
    except (ImportError, AttributeError):
        return ""


def missing() -> str:
    """Say what this benchmark lacks; empty if it lacks nothing."""
    return "" if script() else "pysplash.turn has no script"


class Line:
    """One connection: a command out, a reply in."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def call(self, *words: Any) -> Any:
        """Send a command and wait for its reply."""
        self._socket.sendall(hiredis.pack_command(words))
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise SystemExit("the server has closed the connection")
            self._reader.feed(data)
        if isinstance(reply, Exception):
            raise SystemExit(str(reply))
        return reply


def serve(url: str) -> None:
    """Finish and claim jobs until this process is ended."""
    line, name = Line(url), uuid.uuid4().hex
    sha = line.call("SCRIPT", "LOAD", script())
    if marks := os.environ.get("BENCH_MARKS"):
        Path(marks, str(os.getpid())).touch()
    finish: tuple[Any, ...] = NOTHING
    count = 0
    while True:
        now = time.time()
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        claim = uuid.uuid4().hex
        head = (name, now, stamp, 0, TTL, 0, count, 0.0)
        reply = line.call("EVALSHA", sha, 0, *head, *finish, claim, QUEUE)
        if reply[0] == b"job":
            count += 1
            finish = (reply[2], claim, QUEUE, TTL, stamp, stamp, RESULT, now, now, "")
        else:
            finish = NOTHING
            time.sleep(PAUSE)


def measure(runs: int, numbers: list[int], program: str | None) -> None:
    """Print jobs a second for each number of processes."""
    sys.path.append(str(Path(__file__).parents[1]))
    # the processes that serve need none of this, and throughput.py needs this module
    from benchmarks import harness, peers, report  # noqa: PLC0415

    rates: dict[int, list[float]] = {number: [] for number in numbers}

    def turn(peer: peers.Peer, number: int) -> None:
        with harness.Session(site, peer, number) as session:
            jobs = round(session.measure("noop", 2_000) * 2.0)
            rates[number].append(session.measure("noop", jobs))

    harness.end_on_signals()
    with harness.open_site(program) as site:
        harness.take_turns([peers.BARE], numbers, runs, 120.0, turn)
        rows = [[f"{number} processes", report.spread(rates[number])] for number in numbers]
        print(report.Table("One script a job, and nothing else", ["", "jobs/s"], rows).text())
        print(f"Medians of {runs} runs (least to most). {report.machine(site.version())}.")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--server", metavar="PATH", help="the server's program; see throughput.py")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if reason := missing():
        print(f"skipped: {reason}")
    elif options.serve:
        serve(options.serve)
    else:
        measure(options.runs, [1, 2], options.server)


if __name__ == "__main__":
    main()
