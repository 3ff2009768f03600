"""``pysplash purge``: settle what dead pools have left."""

from __future__ import annotations

import click

from pysplash.config import ON_CRASH
from pysplash.supervisor.purge import purge as purge_leftovers

from .place import Place, takes_place
from .table import printable


@click.command()
@takes_place
@click.option(
    "--on-crash",
    type=click.Choice(ON_CRASH),
    default="fail",
    show_default=True,
    help="What to do with a job whose worker is gone.",
)
@click.option(
    "--exception-handler",
    "exception_handlers",
    multiple=True,
    metavar="PATH",
    help="Exception handler to call for each job that fails by this; may be repeated.",
)
def purge(place: Place, on_crash: str, exception_handlers: tuple[str, ...]) -> None:
    """Settle the jobs and remove the workers that killed pools have left in Redis."""
    found = 0
    for leftover in purge_leftovers(place.open(), on_crash, exception_handlers):
        found += 1
        click.echo(printable(f"{leftover.worker or 'pool ' + leftover.pool}: {leftover.fate}"))
    if not found:
        click.echo("nothing to purge")
