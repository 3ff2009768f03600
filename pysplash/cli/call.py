"""``pysplash tasks`` and ``call``: the tasks that pools serve, and a call of one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from pysplash.application.registry import parse_parameters
from pysplash.client.client import Client
from pysplash.client.discovery import PoolFacts, read_pools
from pysplash.errors import ConfigError, ExecutionError
from pysplash.log import redact

from .place import Place, takes_place
from .table import print_table, printable

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
                    click.echo(printable(redact(line)), err=True)
            raise
    click.echo(show_value(value))


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
