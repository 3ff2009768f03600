"""The command that shows a pool at work."""

from __future__ import annotations

import click

from .demo import run, serve_samples
from .errors import ConfigError


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
