"""RQ's settings, in the environment or in a config module: where Redis is, and logging."""

from __future__ import annotations

import importlib
import logging.config
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from redis import Redis

from pysplash.errors import ConfigError, ImportFailed, LoggingConfigError
from pysplash.log import NAME, redact

from .clients import in_words_of
from .foreign import check_client_class


def read_module(name: str) -> dict[str, Any]:
    """Return the settings in a config module; raise :class:`ImportFailed` if there is none."""
    try:
        importlib.invalidate_caches()
        return dict(_rqs_way().read_config_file(name))
    except Exception as error:
        raise ImportFailed(
            f"config module {name!r} cannot be imported ({type(error).__name__}: {error}): "
            "check the name and --path"
        ) from error


def apply_dict_config(config: Any) -> None:
    """Set up logging as the DICT_CONFIG of a config module says.

    PySplash's own loggers stay enabled where it disables those that are there already. Raises
    :class:`~pysplash.errors.LoggingConfigError` for a configuration that is wrong.
    """
    try:
        logging.config.dictConfig(config)
    except Exception as error:
        causes = [error]
        while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception):
            causes.append(cause)
        why = "; ".join(redact(f"{type(each).__name__}: {each}") for each in causes)
        raise LoggingConfigError(
            f"DICT_CONFIG of the config module is wrong ({why}): "
            "see logging.config.dictConfig in Python's documentation"
        ) from error
    for name, each in logging.Logger.manager.loggerDict.items():
        if isinstance(each, logging.Logger) and (name + ".").startswith(NAME + "."):
            each.disabled = False


def from_settings(settings: Mapping[str, Any], redis_class: type[Redis] = Redis) -> Redis:
    """Return a client from RQ's REDIS_* settings; raise :class:`ConfigError` for bad ones."""
    check_client_class(redis_class)
    named = dict(settings)
    if isinstance(named.get("REDIS_URL"), str):
        named["REDIS_URL"] = in_words_of(redis_class, named["REDIS_URL"])
    try:
        client: Redis = _rqs_way().get_redis_from_config(named, redis_class)
        options = client.connection_pool.connection_kwargs
        if "path" not in options:
            options["port"] = int(options.get("port") or 6379)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the REDIS_* settings are wrong ({redact(str(error))}): check REDIS_URL, REDIS_HOST, "
            "REDIS_PORT, REDIS_DB and REDIS_SSL"
        ) from error
    return client


def _rqs_way() -> ModuleType:
    """Return where RQ reads its own settings."""
    from rq.cli import helpers  # noqa: PLC0415 -- it takes long, and who gives a URL needs it not

    return helpers


def from_environment(redis_class: type[Redis] = Redis) -> Redis:
    """Return a client from the environment's REDIS_* variables, else for localhost."""
    return from_settings(os.environ, redis_class)
