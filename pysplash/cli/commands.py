"""The command line. Nothing else in PySplash prints, configures logging or ends a process.

A command is imported when it is used, so that a pool starts without importing the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import click

from pysplash.errors import EXIT_CONNECTION, EXIT_OK, EXIT_USAGE, SplashError
from pysplash.log import redact
from pysplash.version import __version__

from . import output
from .options import EPILOG

#: the module that has each command, by its name
HOMES = {
    "call": "call",
    "daemon": "serve",
    "demo": "demo",
    "health": "status",
    "plot": "record",
    "purge": "purge",
    "replay": "record",
    "serve": "serve",
    "stages": "serve",
    "start": "start",
    "status": "status",
    "tasks": "call",
}


class CommandGroup(click.Group):
    """The commands; ``start`` may be omitted."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``start`` in front of arguments that begin with no command."""
        if args and args[0] not in HOMES and args[0] not in ("--help", "-h", "--version"):
            args = ["start", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name not in HOMES:
            return None
        command: click.Command = getattr(
            import_module(f".{HOMES[cmd_name]}", __package__), cmd_name
        )
        return command


@click.group(
    cls=CommandGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="pysplash")
def cli() -> None:
    """As many RQ workers as this machine can bear, and not one more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    output.replace_what_cannot_be_shown()
    try:
        status = _run(argv)
        output.flush()
    except OSError as error:
        if not output.is_of_writing(error):
            raise
        output.abandon()
        if isinstance(error, BrokenPipeError):  # whoever read it, `head` say, has seen enough
            return EXIT_CONNECTION
        return _complain(f"output cannot be written: {error.strerror}", EXIT_CONNECTION)
    return status


def _run(argv: Sequence[str] | None) -> int:
    try:
        status = cli.main(
            args=None if argv is None else list(argv), prog_name="pysplash", standalone_mode=False
        )
    except SplashError as error:
        return _complain(str(error), error.exit_status)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return EXIT_OK
    except click.ClickException as error:
        return _complain(error.format_message(), EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _complain("interrupted", EXIT_CONNECTION)
    return status if isinstance(status, int) else EXIT_OK


def _complain(message: str, status: int) -> int:
    line = " ".join(redact(message).split())
    click.echo(f"pysplash: {line}", err=True)
    return status
