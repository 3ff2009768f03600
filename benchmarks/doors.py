"""How long a call takes through each door, and how many there are a second, beside others.

``python benchmarks/doors.py`` brings its own server and needs ``pysplash[embedded,gateway]``. It
makes a virtual environment for each peer when it first needs one. One, 16 and 256 callers at once
each make one call after the other of a function that returns what it is given; a pool of as many
workers as there are cores stands behind all doors. Peers: a bare RQ enqueue with
``latest_result``, Celery's ``delay().get()``, and, as the physical neighbour, a
``ProcessPoolExecutor`` in this very process. Callers share this one process, so what they cost is
part of every figure; those by frames are bare sockets. The pool's own rate, with a full queue and
no callers, is measured beside. A series that takes less than a second is repeated with more calls.
``--quick`` shows that it runs, no more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import math
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import zmq
import zmq.asyncio

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.doors_app import echo
from benchmarks.harness import Session, Site, end_on_signals, open_site
from benchmarks.peers import LATENCY, PYSPLASH, Unavailable
from benchmarks.report import Frozen, Table, cores, notes, ratio, spread, write
from benchmarks.servers import add_server
from benchmarks.throughput import AIM, trial
from pysplash import AsyncClient, Client
from pysplash.framed import split_address

TEXT = "x" * 64
HANDLER = "benchmarks.doors_app:echo_bytes"
#: seconds until doors must be open, and a series be done
READY, SERIES = 30.0, 300.0
#: seconds that a series takes at least: one of some tenths says more of its ends than of its middle
LEAST = 1.0
#: what is set beside the pool's own rate
FRAMES, SIXTEEN = "frames over TCP", 16
#: calls before those that count, per caller
WARM = 2
#: one door: seconds of a series, and of each of its calls
Result = tuple[float, list[float]]
Door = Callable[[int, int], Result]
#: makes one caller's way to call, asked again and again
Caller = Callable[[], contextlib.AbstractAsyncContextManager[Callable[[], Awaitable[Any]]]]


def crowd(make: Caller, calls: int, callers: int) -> Result:
    """Let *callers* in one event loop make *calls* together."""

    async def run() -> Result:
        async def one(ready: asyncio.Barrier) -> list[float]:
            times = []
            async with make() as call:
                for _ in range(WARM):
                    await call()
                await ready.wait()
                for _ in range(calls // callers):
                    begin = time.perf_counter()
                    await call()
                    times.append(time.perf_counter() - begin)
            return times

        ready = asyncio.Barrier(callers + 1)
        tasks = [asyncio.create_task(one(ready)) for _ in range(callers)]
        await ready.wait()
        began = time.perf_counter()
        parts = await asyncio.gather(*tasks)
        return time.perf_counter() - began, [each for part in parts for each in part]

    return asyncio.run(asyncio.wait_for(run(), SERIES))


def threads(call: Callable[[], Any], calls: int, callers: int) -> Result:
    """Let *callers* in threads make *calls* together."""

    def one(_: int) -> list[float]:
        times = []
        for _ in range(calls // callers):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return times

    for _ in range(WARM):
        call()
    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        parts = list(pool.map(one, range(callers)))
        return time.perf_counter() - began, [each for part in parts for each in part]


def by_client(url: str, calls: int, callers: int) -> Result:
    """Call by ``Client``, one for all threads."""
    with Client(url) as client:
        return threads(lambda: client.echo(TEXT), calls, callers)


def by_async_client(url: str, calls: int, callers: int) -> Result:
    """Call by ``AsyncClient``, one for all."""
    shared: list[AsyncClient] = []

    @contextlib.asynccontextmanager
    async def caller() -> Any:
        if not shared:
            shared.append(AsyncClient(url))
        yield lambda: shared[0].echo(TEXT)

    return crowd(caller, calls, callers)


def by_frames(address: str, calls: int, callers: int) -> Result:
    """Call by frames, a connection for each call, over nothing but sockets."""
    target = split_address(address)
    frame = struct.pack("!I", len(TEXT)) + TEXT.encode()
    times: list[float] = []
    with selectors.DefaultSelector() as selector:

        def call() -> None:
            begin = time.perf_counter()
            connection = socket.socket()
            connection.connect(target)
            connection.sendall(frame)
            selector.register(connection, selectors.EVENT_READ, (begin, []))

        def series(count: int) -> float:
            """Make so many calls, as many at once as there are callers; return the seconds."""
            times.clear()
            began = time.perf_counter()
            for _ in range(callers):
                call()
            left = count - callers
            while selector.get_map():
                ready = selector.select(SERIES)
                assert ready, "no answer comes"
                for key, _ in ready:
                    if not _ended(selector, key, times):
                        continue
                    if left > 0:
                        left -= 1
                        call()
            return time.perf_counter() - began

        series(WARM * callers)
        return series(calls // callers * callers), times


def _ended(
    selector: selectors.BaseSelector, key: selectors.SelectorKey, times: list[float]
) -> bool:
    """Read what came of a call by frames; return whether it has ended, as it should."""
    connection: Any = key.fileobj
    begin, parts = key.data
    parts.append(connection.recv(65536))
    if parts[-1]:
        return False
    times.append(time.perf_counter() - begin)
    selector.unregister(connection)
    connection.close()
    assert b"".join(parts) == TEXT.encode()
    return True


CALL = json.dumps({"jsonrpc": "2.0", "method": "echo", "params": [TEXT], "id": 1}).encode()


def by_http(address: str, calls: int, callers: int) -> Result:
    """Call by JSON-RPC over HTTP, a connection for each caller."""
    host, port = split_address(address)
    head = f"POST /rpc HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(CALL)}\r\n\r\n".encode() + CALL

    @contextlib.asynccontextmanager
    async def caller() -> Any:
        reader, writer = await asyncio.open_connection(host, port)

        async def call() -> None:
            writer.write(request)
            told = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(told.partition(b"content-length:")[2].partition(b"\r")[0])
            assert b'"result"' in await reader.readexactly(length)

        yield call
        writer.close()

    return crowd(caller, calls, callers)


def by_zmq(address: str, calls: int, callers: int) -> Result:
    """Call by JSON-RPC over ZeroMQ, a REQ socket for each caller."""
    context = zmq.asyncio.Context()
    context.set(zmq.MAX_SOCKETS, 2048)

    @contextlib.asynccontextmanager
    async def caller() -> Any:
        with context.socket(zmq.REQ) as req:
            req.linger = 0
            req.connect(address)

            async def call() -> None:
                await req.send(CALL)
                assert b'"result"' in await req.recv()

            yield call

    try:
        return crowd(caller, calls, callers)
    finally:
        context.destroy(linger=0)


def by_processes(pool: ProcessPoolExecutor, calls: int, callers: int) -> Result:
    """Call by the standard library's process pool: no server, no network, nothing kept."""
    return threads(lambda: pool.submit(echo, TEXT).result(), calls, callers)


@dataclass(frozen=True)
class Doors:
    """Doors that are open: the gateway's process, and where each kind is."""

    gateway: psutil.Process
    at: Mapping[str, str]


@contextlib.contextmanager
def started(folder: str, *words: str) -> Iterator[tuple[int, Path]]:
    """Run one ``pysplash`` command for the length of the block; yield its id, what it says."""
    said = Path(folder) / f"{words[0]}.out"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pysplash", *words], cwd=Path(__file__).parents[1], stdout=out
        )
    try:
        yield process.pid, said
    finally:
        process.terminate()
        process.wait(READY)


@contextlib.contextmanager
def opened(site: Site, workers: int, *bounds: str) -> Iterator[Doors]:
    """Open all doors on one pool, with the gateway's *bounds*."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        served = ["--preload", "benchmarks.doors_app", "--handler", HANDLER, "-q"]
        url = ["-u", site.url]
        stack.enter_context(started(folder, "start", *url, "-n", str(workers), *served))
        ways = ["--tcp", "127.0.0.1:0", "--handler", HANDLER, "--http", "127.0.0.1:0"]
        ways += ["--zmq", f"ipc://{folder}/door", "--patience", str(READY)]
        pid, said = stack.enter_context(started(folder, "serve", *url, *ways, *bounds))
        until = time.monotonic() + READY
        while len(lines := said.read_text().splitlines()) < 3:
            if time.monotonic() > until:
                raise SystemExit("the doors do not open")
            time.sleep(0.05)
        with Client(site.url, patience=READY) as client:
            client.echo(TEXT)
        at = {line.split()[0]: line.split()[-1] for line in lines}
        yield Doors(psutil.Process(pid), at)


@contextlib.contextmanager
def doors(site: Site, workers: int) -> Iterator[dict[str, Door]]:
    """Yield all ways to call, by name."""
    bounds = ("--max-connections", "600", "--max-inflight", "600")
    with opened(site, workers, *bounds) as found, ProcessPoolExecutor(workers) as processes:
        yield {
            "Client": functools.partial(by_client, site.url),
            "AsyncClient": functools.partial(by_async_client, site.url),
            FRAMES: functools.partial(by_frames, found.at["framed"]),
            "JSON-RPC over HTTP": functools.partial(by_http, found.at["HTTP"]),
            "JSON-RPC over ZeroMQ": functools.partial(by_zmq, found.at["ZeroMQ"]),
            "ProcessPoolExecutor": functools.partial(by_processes, processes),
        }


#: seconds a call takes (p50, p99) and calls a second, by callers and way, one of each run
Figures = dict[tuple[int, str], list[tuple[float, float, float]]]


def series(door: Door, calls: int, callers: int) -> Result:
    """Make *calls*, or more where they take less than a second together."""
    result = door(max(calls, callers), callers)
    if result[0] >= LEAST:
        return result
    return door(math.ceil(calls * LEAST / result[0]), callers)


def note(figures: Figures, callers: int, name: str, result: Result) -> None:
    """Keep what one series gave."""
    seconds, times = result
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    figures.setdefault((callers, name), []).append((cuts[49], cuts[98], len(times) / seconds))
    rate = len(times) / seconds
    print(f"{name}, {callers}: {1e3 * cuts[49]:.2f} ms, {rate:,.0f}/s", file=sys.stderr)


def table(figures: Figures, callers: int, names: Sequence[str]) -> Table:
    """Return what was measured with so many callers; ratios to a bare RQ call."""
    anchor = [rate for _, _, rate in figures.get((callers, LATENCY["simple"].title), [])]
    rows = []
    for name in names:
        p50, p99, rates = ([each[i] for each in figures.get((callers, name), [])] for i in range(3))
        shown = [spread([1e3 * each for each in part], 2) for part in (p50, p99)]
        rows.append([name, *shown, spread(rates), ratio(rates, anchor)])
    header = ["", "p50, ms", "p99, ms", "calls/s", f"x {LATENCY['simple'].title}"]
    return Table(f"{callers} caller{'s' * (callers > 1)}", header, rows)


def noop(site: Site, workers: int) -> float:
    """Return how many jobs that do nothing such a pool does in a second from a full queue."""
    with Session(site, PYSPLASH, workers) as session:
        return session.measure("noop", round(trial(session, "noop") * AIM))


def beside(figures: Figures, jobs: Sequence[float]) -> str:
    """Say what frames by sixteen callers are beside *jobs*, what the pool does by itself."""
    rates = [rate for _, _, rate in figures.get((SIXTEEN, FRAMES), [])]
    told = f"The same pool does {spread(jobs)} jobs a second that do nothing, from a full queue"
    return f"{told}; frames over TCP by {SIXTEEN} callers are {ratio(rates, jobs)} of that."


def run(site: Site, options: argparse.Namespace) -> None:
    """Measure all, print, and write where that is wanted."""
    frozen, workers = Frozen(), cores()
    figures: Figures = {}
    jobs: list[float] = []
    dropped: dict[str, str] = {}
    versions: dict[str, dict[str, str]] = {}
    names: dict[str, None] = {}
    for _ in range(options.runs):
        with doors(site, workers) as open_doors:
            for callers in options.callers:
                for name, door in open_doors.items():
                    names[name] = None
                    note(figures, callers, name, series(door, options.calls, callers))
        jobs.append(noop(site, workers))
        for key in filter(None, options.peers.split(",")):
            peer = LATENCY[key]
            try:
                with Session(site, peer, workers) as session:
                    versions[peer.title] = session.versions
                    for callers in options.callers:
                        asked = ("crowd", max(options.calls, callers), callers)
                        result = session.ask(*asked, patience=SERIES)
                        note(figures, callers, peer.title, (result[0], result[1]))
                        names[peer.title] = None
            except Unavailable as error:
                dropped[peer.title] = str(error)
    frozen.check()
    found = [table(figures, callers, list(names)) for callers in options.callers]
    told = f"Medians of {options.runs} runs (least to most) of {options.calls} calls each, "
    told += "or of as many as take a second."
    below = [told, beside(figures, jobs), *notes(site.version(), versions, dropped)]
    print("", *(f"{part.text()}\n" for part in found), *below, sep="\n")
    if options.write is not None:
        write(options.write, site.section("doors"), found, below)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=2000, help="calls in each series")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--peers", default="simple,rq,celery", help="of simple, rq and celery")
    parser.add_argument("--quick", action="store_true", help="one short round, 1 and 16 callers")
    parser.add_argument("--write", type=Path, help="document that gets the tables")
    add_server(parser)
    options = parser.parse_args()
    options.callers = [1, 16] if options.quick else [1, 16, 256]
    if options.quick:
        options.calls, options.runs = min(options.calls, 160), 1
    if unknown := set(filter(None, options.peers.split(","))) - set(LATENCY):
        parser.error(f"no such peers: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    """Read the command line and run."""
    options = parse()
    end_on_signals()
    with open_site(options.server) as site:
        run(site, options)


if __name__ == "__main__":
    main()
