"""Commands about pools on a Redis: tasks, status, health, call, purge."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pysplash.application.registry import parse_parameters
from pysplash.client.client import Client
from pysplash.client.discovery import PoolFacts, read_pools
from pysplash.config import ON_CRASH
from pysplash.errors import ConfigError, ExecutionError, NoWorkerError
from pysplash.log import redact
from pysplash.supervisor.purge import purge as purge_leftovers

from .place import Place, takes_place

#: width of a table in characters where the output is no terminal
WIDTH = 160

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@takes_place
@_json
def tasks(place: Place, as_json: bool) -> None:
    """List the tasks that running pools publish, with the pools that serve them."""
    found = _offers(read_pools(place.open()))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (
            task["name"] + task["signature"],
            task["queue"],
            "" if task["timeout"] is None else f"{task['timeout']} s",
            ", ".join(task["pools"]) or "nobody",
            task["help"],
        )
        for task in found
    ]
    print_table(("task", "queue", "timeout", "served by", "what it does"), rows)


@click.command()
@takes_place
@_json
def status(place: Place, as_json: bool) -> None:
    """Show every pool on this Redis, on any host; changes nothing."""
    pools = read_pools(place.open())
    if as_json:
        click.echo(json.dumps([asdict(pool) for pool in pools], indent=2))
        return
    print_table(
        ("pool", "host", "pid", "queues", "up", "workers", "queued", "CPU", "memory", "why"),
        [_status_row(pool) for pool in pools],
    )


@click.command()
@click.argument("queues", nargs=-1)
@takes_place
@click.option("--pool", help="Name of a pool that must be alive.")
def health(queues: tuple[str, ...], place: Place, pool: str | None) -> None:
    """Check that a running pool serves each of QUEUES, or that any pool runs.

    Exit status 0: it does; 9: it does not; 1: no Redis answers.
    """
    alive = [found for found in read_pools(place.open()) if found.open]
    if pool is not None:
        alive = [found for found in alive if found.name == pool]
    if not alive:
        raise NoWorkerError(f"no pool is alive{f' by the name of {pool}' if pool else ''}")
    served = {queue for found in alive for queue in found.queues}
    missing = [queue for queue in queues if queue not in served]
    if missing:
        raise NoWorkerError(f"no pool that is alive serves {', '.join(missing)}")
    names = ", ".join(found.name for found in alive)
    click.echo(f"alive: {names}; serving {', '.join(sorted(served))}")


@click.command()
@click.argument("name")
@click.argument("arguments", nargs=-1)
@takes_place
@click.option("-k", "--keyword", multiple=True, help="key=value for the task, repeatable.")
@click.option("--timeout", type=float, help="Most seconds to wait for the answer.")
@click.option("--leave", is_flag=True, help="Leave the task to run after the timeout.")
@click.option(
    "--patience", type=float, default=0.0, help="Seconds to wait for a pool that serves the task."
)
@click.option("--traceback", is_flag=True, help="Show the remote traceback of a task that failed.")
def call(
    name: str,
    arguments: tuple[str, ...],
    place: Place,
    keyword: tuple[str, ...],
    timeout: float | None,
    leave: bool,
    patience: float,
    traceback: bool,
) -> None:
    """Call the task NAME with ARGUMENTS and print what it returns.

    Arguments that are JSON are read as JSON, others as text. The answer is printed as JSON, or as
    Python shows it if it has no JSON form. Put -- before arguments that begin with a dash.

    Exit status 7: the task failed; 8: no answer in time; 9: nobody serves it; 2: nobody knows it.
    """
    named = {key: parse_word(value) for key, value in parse_parameters(keyword).items()}
    terms = _checked(timeout, patience)
    with Client(
        connection=place.open(), on_timeout="leave" if leave else "cancel", **terms
    ) as client:
        try:
            value = client.call(name, tuple(map(parse_word, arguments)), named)
        except ExecutionError as error:
            if traceback:
                for line in error.traceback.splitlines():
                    click.echo(_plain(redact(line)), err=True)
            raise
    click.echo(show_value(value))


@click.command()
@takes_place
@click.option(
    "--on-crash",
    type=click.Choice(ON_CRASH),
    default="fail",
    show_default=True,
    help="What to do with a job whose worker is gone.",
)
def purge(place: Place, on_crash: str) -> None:
    """Settle the jobs and remove the workers that killed pools have left in Redis."""
    found = 0
    for leftover in purge_leftovers(place.open(), on_crash):
        found += 1
        click.echo(_plain(f"{leftover.worker or 'pool ' + leftover.pool}: {leftover.fate}"))
    if not found:
        click.echo("nothing to purge")


def parse_word(word: str) -> Any:
    """Return a command-line word as JSON if it is valid JSON, else as text."""
    try:
        return json.loads(word, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return word


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def show_value(value: Any) -> str:
    """Return *value* as one line of JSON, or its repr if it has no JSON form."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _checked(timeout: float | None, patience: float) -> dict[str, Any]:
    for name, value in (("timeout", timeout), ("patience", patience)):
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigError(f"--{name} is {value}: give seconds of at least 0")
    return {"timeout": timeout, "patience": patience}


def _offers(pools: Iterable[PoolFacts]) -> list[dict[str, Any]]:
    """Return each task with the pools that serve it, by name and queue."""
    offers: dict[tuple[str, str], dict[str, Any]] = {}
    for pool in pools:
        for task in pool.tasks:
            offer = offers.setdefault((task.name, task.queue), {**asdict(task), "pools": []})
            if pool.open and task.queue in pool.queues:
                offer["pools"].append(pool.name)
    return [offers[key] for key in sorted(offers)]


def _status_row(pool: PoolFacts) -> tuple[str, ...]:
    state = pool.state or {}
    kinds = ("starting", "idle", "busy", "waiting", "stopping")
    workers = " ".join(f"{state[kind]} {kind}" for kind in kinds if state.get(kind))
    return (
        pool.name,
        pool.host,
        str(pool.pid),
        ", ".join(pool.queues),
        f"{max(0.0, time.time() - pool.started):.0f} s",
        f"{workers or 'none'} of {state.get('target', '?')}",
        _number(state.get("queued")),
        _number(state.get("cpu"), " %"),
        _number(state.get("mem"), " %"),
        str(state.get("reason", "?")) if pool.open else "stopping",
    )


def _number(value: Any, unit: str = "") -> str:
    return "?" if value is None else f"{value:g}{unit}"


def print_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table, as wide as the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)


def _plain(cell: str) -> str:
    """Return *cell* without control characters: its text is from other programs."""
    return "".join(c if c.isprintable() else "?" for c in cell)
