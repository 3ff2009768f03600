"""The options that say where Redis is, the same in all commands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pysplash.connections.clients import address, check, from_url
from pysplash.connections.environment import from_environment, from_settings, read_module
from pysplash.connections.outage import said
from pysplash.connections.refusals import refusal
from pysplash.errors import ConnectionFailed

_OPTIONS = (
    click.option(
        "-u", "--url", envvar="RQ_REDIS_URL", show_envvar=True, help="URL of the Redis server."
    ),
    click.option(
        "-c",
        "--config",
        envvar="RQ_CONFIG",
        show_envvar=True,
        help="Module with RQ's REDIS_* or SENTINEL settings.",
    ),
    click.option("-P", "--path", multiple=True, default=["."], help="Import path, repeatable."),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where Redis is, as a command's options say; without any, RQ's environment variables do."""

    url: str | None
    config: str | None
    #: where the config module may be
    path: tuple[str, ...]

    def client(self) -> Redis:
        """Return a client that is not connected yet.

        Raises :class:`~pysplash.errors.ConfigError`, and :class:`~pysplash.errors.ImportFailed`
        for a config module that cannot be imported.
        """
        if self.url:
            return from_url(self.url)
        if self.config:
            sys.path.extend(self.path)
            return from_settings(read_module(self.config))
        return from_environment()

    def open(self) -> Redis:
        """Return a connected client; raise :class:`~pysplash.errors.ConnectionFailed`."""
        client = self.client()
        check(client)
        return client


def takes_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, and the :class:`Place` they mean as ``place``."""

    @functools.wraps(command)
    def run(*, url: str | None, config: str | None, path: tuple[str, ...], **rest: Any) -> Any:
        place = Place(url, config, path)
        try:
            return command(place=place, **rest)
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise ConnectionFailed(
                f"Redis at {address(place.client())} does not answer ({said(error)}): "
                "try again when it does"
            ) from error
        except RedisError as error:
            raise ConnectionFailed(refusal(address(place.client()), error)) from error

    for option in reversed(_OPTIONS):
        run = option(run)
    return run
