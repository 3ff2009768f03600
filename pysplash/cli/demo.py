"""``pysplash demo``: a Fibonacci number computed by jobs that wait for jobs.

Every job above the leaves enqueues two more and waits for their results, so the pool has to
find room for a tree of waiting parents while it keeps the CPU at its target.
"""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rq import Queue

from pysplash.connections.clients import check, from_url
from pysplash.control.model import Decision, PoolView
from pysplash.embedded import open_server
from pysplash.errors import ConfigError, SplashError
from pysplash.recording.screen import History, explain, screen, tick_line
from pysplash.supervisor.pool import Pool
from pysplash.waiting.wait import map_jobs

QUEUE = "pysplash-demo"
#: seconds between two lines where there is no terminal
PLAIN_EVERY = 2.0


def fib(n: int) -> int:
    """Return the *n*-th Fibonacci number, the work of two further jobs for each n above 1."""
    return n if n < 2 else sum(map_jobs(fib, (n - 1, n - 2)))


class Show:
    """Draws each tick: in place on a terminal, as plain lines elsewhere."""

    def __init__(self, console: Console, max_cpu: float, max_mem: float) -> None:
        self.history = History()
        self._console = console
        self._limits = (max_cpu, max_mem)
        self._live: Live | None = None
        self._printed_at: float | None = None

    def __enter__(self) -> Show:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, view: PoolView, decision: Decision) -> None:
        """Draw one tick."""
        self.history.add(view, decision)
        if self._live is not None:
            lines = screen(view, decision, self.history, *self._limits)
            self._live.update(Text("\n".join(lines)), refresh=True)
        elif self._printed_at is None or view.now - self._printed_at >= PLAIN_EVERY:
            self._printed_at = view.now
            print(tick_line(view, decision, self.history), flush=True)


def serve_samples(url: str | None, max_procs: int, max_cpu: float) -> int:
    """Serve the sample tasks until stopped, and say how to call them; return the exit status."""
    with open_server(url) as address:
        print(f"serving at {address}; in another shell:", flush=True)
        for words in ("tasks", "call add 5 6", "call prime.factors 600851475143"):
            command, _, rest = words.partition(" ")
            print(f"  pysplash {command} -u {address} {rest}".rstrip(), flush=True)
        connection = from_url(address)
        check(connection)
        return Pool(
            ["default"],
            connection=connection,
            max_procs=max_procs,
            max_cpu=max_cpu,
            preload=["pysplash.cli.demo_tasks"],
        ).start()


def run(n: int, url: str | None, max_procs: int, max_cpu: float) -> int:
    """Compute fib(*n*) with a pool of its own and show how; return the exit status."""
    console = Console(file=sys.stdout)
    with open_server(url) as address:
        connection = from_url(address)
        check(connection)
        job = Queue(QUEUE, connection=connection).enqueue(fib, n, job_timeout=600)
        with Show(console, max_cpu, 80.0) as show:
            Pool(
                [QUEUE],
                connection=connection,
                max_procs=max_procs,
                max_cpu=max_cpu,
                scale_frequency=0.5,
                quiet_period_seconds=0.5,
                burst=True,
                observer=show,
            ).start()
        answer = job.return_value(refresh=True)
        status = job.get_status()
        connection.close()
    if answer is None:
        raise SplashError(f"fib({n}) has no answer: its job is {status}; was the demo stopped?")
    print(f"fib({n}) = {answer}")
    print(f"workers at most: {show.history.most}")
    print("why:")
    for line in explain(show.history):
        print(f"  {line}")
    return 0


@click.command()
@click.option("-n", "--number", default=12, show_default=True, help="Which Fibonacci number.")
@click.option("-u", "--url", envvar="RQ_REDIS_URL", help="Use this server, not an embedded one.")
@click.option("--max-procs", default=128, show_default=True, help="Most workers.")
@click.option("--max-cpu", default=80.0, show_default=True, help="Per cent of the cores in reach.")
@click.option("--tasks", is_flag=True, help="Serve sample tasks to call, until stopped.")
def demo(number: int, url: str | None, max_procs: int, max_cpu: float, tasks: bool) -> int:
    """Show a pool at work: a Fibonacci number, computed by jobs that wait for jobs."""
    if not 0 <= number <= 20:
        raise ConfigError(f"--number is {number}: give one from 0 to 20")
    if tasks:
        return serve_samples(url, max_procs, max_cpu)
    return run(number, url, max_procs, max_cpu)
