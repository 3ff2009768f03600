"""The command that starts a pool: settings from flags, environment and a config module."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from redis import Redis

from pysplash.application.registry import parse_parameters
from pysplash.connections.clients import from_url
from pysplash.connections.environment import (
    apply_dict_config,
    from_environment,
    from_settings,
    read_module,
)
from pysplash.embedded import open_server
from pysplash.errors import ConfigError
from pysplash.log import configure
from pysplash.supervisor.forkserver.boot import resolve, worker_class
from pysplash.supervisor.pool import Pool

from .options import EPILOG, key, start_options

#: settings that are the command line's own, not the pool's
_OWN = {
    "connection_class",
    "disable_job_desc_logging",
    "embedded",
    "num_workers",
    "path",
    "pid",
    "queues",
    "quiet",
    "url",
    "verbose",
}


@click.command(epilog=EPILOG)
@click.argument("queues", nargs=-1)
@start_options
@click.pass_context
def start(ctx: click.Context, /, **given: Any) -> int:
    """Serve QUEUES, in this order of priority, until stopped.

    Each option has an environment variable, and a name in capitals in the module given with
    --config. The command line overrides the environment, and the environment the module.
    """
    for path in given["path"]:
        sys.path.append(path)
    file = read_module(given["config"]) if given["config"] else {}
    settings = _merge(ctx, given, file)
    _configure_logging(ctx, settings, file)
    _check_classes(settings)
    with _pid_file(settings["pid"]), _connection(settings, file) as connection:
        return _pool(settings, connection).start()


def _merge(ctx: click.Context, given: dict[str, Any], file: dict[str, Any]) -> dict[str, Any]:
    """Use the config module for options that neither command line nor environment sets."""
    settings = dict(given)
    for option in ctx.command.params:
        if not isinstance(option, click.Option) or option.name in (None, "url", "config"):
            continue
        silent = ctx.get_parameter_source(option.name) is ParameterSource.DEFAULT
        if silent and key(option) in file:
            settings[option.name] = option.type_cast_value(ctx, file[key(option)])
    settings["queues"] = list(settings["queues"]) or _queues(file.get("QUEUES", ["default"]))
    if settings["num_workers"] is not None:
        for name in ("min_procs", "max_procs"):
            if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise ConfigError(
                    f"-n is {settings['num_workers']} and --{name.replace('_', '-')} is "
                    f"{settings[name]}: give a fixed size or a range, not both"
                )
            settings[name] = settings["num_workers"]
    return settings


def _queues(named: Any) -> list[Any]:
    """Return the queues a config module names; one name is one queue."""
    if isinstance(named, str):
        return [named]
    if not isinstance(named, list | tuple):
        raise ConfigError(f"QUEUES is {named!r}: give a list of names, such as ['default']")
    return list(named)


def _configure_logging(ctx: click.Context, settings: dict[str, Any], file: dict[str, Any]) -> None:
    """Set up logging; with a DICT_CONFIG its levels hold unless one is given."""
    if settings["verbose"] and settings["quiet"]:
        raise ConfigError("-v and -q are both given: give one of them")
    if settings["verbose"]:
        settings["logging_level"] = "DEBUG"
    elif settings["quiet"]:
        settings["logging_level"] = "WARNING"
    elif file.get("DICT_CONFIG") and not _is_given(ctx, "logging_level", file):
        settings["logging_level"] = None
    else:
        settings["logging_level"] = settings["logging_level"].upper()
    if file.get("DICT_CONFIG"):
        apply_dict_config(file["DICT_CONFIG"])
    configure(settings["logging_level"], settings["log_format"], settings["date_format"])


def _is_given(ctx: click.Context, name: str, file: dict[str, Any]) -> bool:
    """Return whether the option *name* is on the command line, in environment or config module."""
    option = next(each for each in ctx.command.params if each.name == name)
    in_file = isinstance(option, click.Option) and key(option) in file
    return in_file or ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _check_classes(settings: dict[str, Any]) -> None:
    """Import the classes that are named, so that an error is shown before anything starts."""
    worker_class(settings["worker_class"])
    for name in ("job_class", "queue_class", "connection_class"):
        resolve(settings[name], name.replace("_", " "))
    if settings["serializer"] not in (None, "json", "pickle"):
        resolve(settings["serializer"], "serializer")
    for handler in settings["exception_handlers"]:
        resolve(handler, "exception handler")


@contextlib.contextmanager
def _connection(settings: dict[str, Any], file: dict[str, Any]) -> Iterator[Redis]:
    redis_class: type[Redis] = resolve(settings["connection_class"], "connection class")
    if settings["embedded"]:
        if settings["url"]:
            raise ConfigError("--embedded and a URL are both given: give one of them")
        with open_server(None) as url:
            click.echo(f"embedded server at {url}", err=True)
            yield from_url(url, redis_class)
    elif settings["url"]:
        yield from_url(settings["url"], redis_class)
    elif settings["config"]:
        yield from_settings(file, redis_class)
    else:
        yield from_environment(redis_class)


@contextlib.contextmanager
def _pid_file(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    file = Path(path).expanduser()
    try:
        file.write_text(str(os.getpid()))
    except OSError as error:
        raise ConfigError(
            f"pid file {path!r} cannot be written ({error.strerror}): give a path that is yours"
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _pool(settings: dict[str, Any], connection: Redis) -> Pool:
    arguments = {name: value for name, value in settings.items() if name not in _OWN}
    arguments["params"] = parse_parameters(settings["params"])
    return Pool(
        settings["queues"],
        connection=connection,
        log_job_description=not settings["disable_job_desc_logging"],
        **arguments,
    )
