"""Commands that open doors, serve and daemon, and stages, which shows pipelines."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pysplash.application.forwarding import read_stages
from pysplash.client.discovery import read_pools
from pysplash.config import parse_size
from pysplash.errors import ConfigError
from pysplash.gateway.daemon import Daemon
from pysplash.gateway.gateway import Gateway
from pysplash.log import configure

from .place import Place, takes_place
from .table import print_table

TOKEN_VARIABLE = "PYSPLASH_TOKEN"

_token = click.option(
    "--token-file",
    type=click.Path(),
    help=f"File with the token that peers must show; else {TOKEN_VARIABLE}.",
)
_timeout = click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Most seconds a call may take."
)
_max_frame = click.option(
    "--max-frame", default="1MB", show_default=True, help="Most bytes of a request."
)
_verbose = click.option("-v", "--verbose", is_flag=True, help="Log more.")


@click.command()
@takes_place
@click.option("--tcp", help="HOST:PORT of a framed door; needs --handler.")
@click.option("--handler", help="module:function that answers frames, or the name of such a task.")
@click.option("--http", help="HOST:PORT of a door for JSON-RPC 2.0 at POST /rpc.")
@click.option("--zmq", help="Endpoint of a ZeroMQ door for JSON-RPC 2.0.")
@_token
@click.option("--curve-secret", type=click.Path(), help="File of the ZeroMQ door's secret key.")
@click.option("--curve-clients", type=click.Path(), help="Folder of the keys that may come in.")
@_timeout
@click.option(
    "--patience", type=float, default=0.0, help="Seconds to wait for a pool that serves a task."
)
@click.option(
    "--max-inflight", default=256, show_default=True, help="Most calls each door takes on."
)
@click.option(
    "--max-connections", default=256, show_default=True, help="Most connections of each door."
)
@_max_frame
@click.option("--max-memory", default="12MB", show_default=True, help="Most bytes peers may hold.")
@click.option(
    "--drain-seconds",
    default=25.0,
    show_default=True,
    help="Seconds running calls have at the end.",
)
@click.option("--tracebacks", is_flag=True, help="Show peers the tracebacks of tasks that failed.")
@_verbose
def serve(
    place: Place,
    token_file: str | None,
    max_inflight: int,
    max_connections: int,
    max_frame: str,
    max_memory: str,
    drain_seconds: float,
    verbose: bool,
    **given: Any,
) -> int:
    """Open doors for programs that do not speak RQ, until stopped.

    A framed door answers frames by one handler; JSON-RPC, over HTTP or ZeroMQ, calls every task
    that a living pool publishes. A pool serves a handler when it is started with the same
    --handler. A door that other machines can reach needs a token, or keys.
    """
    gateway = Gateway(
        **given,
        connection=place.client(),
        token=read_token(token_file),
        inflight=max_inflight,
        connections=max_connections,
        limit=parse_size(max_frame, "--max-frame"),
        memory=parse_size(max_memory, "--max-memory"),
        drain=drain_seconds,
    )
    configure("DEBUG" if verbose else "INFO")
    return gateway.run(_announce)


@click.command()
@click.argument("handler")
@click.option("--port", type=int, required=True, help="Port to listen on; 0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--processes", type=int, help="Workers; else as many as the machine can bear.")
@_token
@_timeout
@_max_frame
@click.option(
    "--terminate-seconds",
    default=25.0,
    show_default=True,
    help="Seconds running requests have at the end.",
)
@click.option("-P", "--path", multiple=True, default=["."], help="Import path, repeatable.")
@_verbose
def daemon(
    handler: str,
    port: int,
    host: str,
    processes: int | None,
    token_file: str | None,
    timeout: float,
    max_frame: str,
    terminate_seconds: float,
    path: tuple[str, ...],
    verbose: bool,
) -> int:
    """Run a TCP daemon around HANDLER, a module:function from bytes to bytes.

    It starts its own server and pool. A request is a frame (a length of 4 bytes in network order,
    then so many bytes), the answer is what the function returns, then the end of the connection.
    """
    sys.path.extend(path)
    served = Daemon(
        handler,
        port,
        processes,
        host=host,
        token=read_token(token_file),
        timeout=timeout,
        limit=parse_size(max_frame, "--max-frame"),
        terminate_seconds=terminate_seconds,
    )
    configure("DEBUG" if verbose else "INFO")
    return served.start(lambda address: click.echo(f"serving at {address}"))


@click.command()
@takes_place
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stages(place: Place, as_json: bool) -> None:
    """Show the items waiting at every pipeline stage, and who serves it; changes nothing."""
    redis = place.open()
    served: dict[str, list[str]] = {}
    for pool in read_pools(redis):
        for queue in pool.queues if pool.open else ():
            served.setdefault(queue, []).append(pool.name)
    found = read_stages(redis)
    if as_json:
        told = [{**asdict(one), "pools": served.get(one.name, [])} for one in found]
        click.echo(json.dumps(told, indent=2))
        return
    rows = [
        (
            one.name,
            str(one.waiting),
            str(one.running),
            str(one.failed),
            "" if one.oldest is None else f"{one.oldest:.0f} s",
            ", ".join(served.get(one.name, [])) or "nobody",
        )
        for one in found
    ]
    print_table(("stage", "waiting", "running", "failed", "oldest", "served by"), rows)


def read_token(file: str | None) -> str | None:
    """Return the token in *file*, or else the one in the environment."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {file!r} cannot be read ({error}): check it") from error


def _announce(gateway: Gateway) -> None:
    for kind, address in gateway.addresses.items():
        click.echo(f"{kind} door at {address}")
