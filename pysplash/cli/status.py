"""``pysplash status`` and ``health``: the pools on a Redis."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import click

from pysplash.client.discovery import PoolFacts, read_pools
from pysplash.errors import NoWorkerError

from .place import Place, takes_place
from .table import print_table

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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
