"""What the fork server sets up before it forks: what the pool's process has, config and modules."""

from __future__ import annotations

import atexit
import importlib
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rq.utils import import_attribute

from pysplash.application.handlers import load as load_handler
from pysplash.connections.environment import apply_dict_config
from pysplash.errors import ConfigError

#: a warnings filter as text: action, message, category, module, line
WarningFilter = tuple[str, str | None, str, str | None, int]


def interpreter_flags() -> list[str]:
    """Return the flags this interpreter was started with, such as ``-W error``, for another one."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def warning_filters() -> tuple[WarningFilter, ...]:
    """Return this process's warnings filters, for another process to adopt."""
    return tuple(
        (
            action,
            _pattern(message),
            f"{kind.__module__}.{kind.__qualname__}",
            _pattern(module),
            line,
        )
        for action, message, kind, module, line in warnings.filters
        if isinstance(kind, type) and kind.__module__ != "__main__"
    )


def adopt_warning_filters(filters: tuple[WarningFilter, ...]) -> None:
    """Filter warnings as another process does; a category that cannot be imported is left out."""
    adopted: list[Any] = []
    for action, message, kind, module, line in filters:
        with suppress(Exception):
            category = import_attribute(kind)
            adopted.append((action, _compiled(message, re.I), category, _compiled(module), line))
    warnings.filters[:] = adopted  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def allow_forks() -> None:
    """Let this process fork while threads run in it, and whatever filters make of a warning.

    Python 3.12 and later warn at each such fork; which threads those are is told in the log.
    """
    warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)


def _pattern(found: Any) -> str | None:
    pattern: str | None = getattr(found, "pattern", found)
    return pattern


def _compiled(pattern: str | None, flags: int = 0) -> re.Pattern[str] | None:
    return None if pattern is None else re.compile(pattern, flags)


class Preloading:
    """Imports the config module and the modules to preload, and knows whether it is at it."""

    def __init__(self) -> None:
        #: whether modules are being preloaded in this process
        self.active = False
        self._of_config: list[Callable[..., Any]] = []

    @contextmanager
    def _at_it(self) -> Iterator[None]:
        self.active = True
        try:
            yield
        finally:
            self.active = False

    def load_config(self, name: str) -> None:
        """Import the config module *name*, and set up logging as its DICT_CONFIG says."""
        with self._at_it(), self._noting_exit_functions():
            module = importlib.import_module(name)
        config = getattr(module, "DICT_CONFIG", None)
        if config:
            apply_dict_config(config)

    def load(self, name: str) -> None:
        """Import a module, or register a handler ``module:function``."""
        with self._at_it():
            (load_handler if ":" in name else importlib.import_module)(name)

    def check_start(self) -> None:
        """Raise :class:`ConfigError` if a pool is started by a module that is being preloaded."""
        if self.active:
            raise ConfigError(
                "the module starts a pool when it is imported: "
                "start it below if __name__ == '__main__'"
            )

    @contextmanager
    def _noting_exit_functions(self) -> Iterator[None]:
        """Note what the block registers with atexit."""
        register = atexit.register

        def noting(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
            self._of_config.append(function)
            return register(function, *arguments, **named)

        atexit.register = noting
        try:
            yield
        finally:
            atexit.register = register

    def forget_exit_functions(self) -> None:
        """Leave out what the config module registered with atexit: the pool's process runs it."""
        for function in self._of_config:
            atexit.unregister(function)


#: the process's own
PRELOADING = Preloading()
