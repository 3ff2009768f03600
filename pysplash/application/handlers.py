"""A handler: one function from bytes to bytes, as a task that any serializer carries.

To callers of tasks it is a function from base64 text to base64 text. Neither side ever reads
another's objects: what a peer sends is bytes to the function, whatever it contains. Bundles, which
are pysplash's own on both sides, carry the bytes as they are: see :mod:`pysplash.jobs.bundles`.
"""

from __future__ import annotations

import binascii
import importlib
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import update_wrapper
from pathlib import PurePath
from typing import Any

from pysplash.errors import ConfigError, NotBytes

from .registry import REGISTRY, TaskSpec, check_name


class Handler:
    """A function from bytes to bytes, called with base64 text and returning such."""

    def __init__(self, function: Callable[[bytes], bytes]) -> None:
        update_wrapper(self, function, updated=())
        self._function = function

    def __call__(self, text: str) -> str:
        """Run the function; raise :class:`NotBytes` if it returns anything but bytes."""
        return encode(self.on_bytes(decode(text)))

    def on_bytes(self, data: bytes) -> bytes:
        """Run the function on bytes; raise :class:`NotBytes` if it returns anything else."""
        answer = self._function(data)
        if type(answer) is bytes:
            return answer
        if not isinstance(answer, bytes | bytearray):
            raise NotBytes(
                f"a handler returns bytes, not {type(answer).__name__}: encode what it returns"
            )
        return bytes(memoryview(answer))  # of no class of its own, which no gateway would read


def encode(data: bytes) -> str:
    """Return bytes as base64 text."""
    return b64encode(data).decode()


def decode(text: str) -> bytes:
    """Return the bytes of a base64 text; raise :class:`NotBytes` for anything else."""
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise NotBytes("a handler takes base64 text: encode the bytes") from None


def task_name(path: str) -> str:
    """Return the name of the task that the handler ``module:function`` is.

    Raises :class:`ConfigError` for what names no function of a module.
    """
    module, _, function = path.partition(":")
    if not function or not all(part.isidentifier() for part in [*module.split("."), function]):
        raise ConfigError(f"handler {path!r} is no module:function: give one such as app:echo")
    return check_name(f"{module}.{function}")


def handler_path(handler: str | Callable[..., Any]) -> str:
    """Return the place of a handler, ``"module:function"``; a function's own is looked up.

    A function of the program itself is found by the name of its file, so the program must be
    guarded by ``if __name__ == "__main__"``. Raises :class:`ConfigError` for what no other
    process can import.
    """
    if not isinstance(handler, str):
        name = getattr(handler, "__qualname__", "")
        module = getattr(handler, "__module__", "")
        handler = f"{program() if module == '__main__' else module}:{name}"
    try:
        task_name(handler)
    except ConfigError as error:
        raise ConfigError(f"{error}; it must be at the top level of a module") from None
    return handler


def program() -> str:
    """Return the name under which the program's own file can be imported, "" if there is none."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    return PurePath(getattr(main, "__file__", None) or "").stem


def load(path: str) -> None:
    """Import the handler ``module:function`` and register it as a task of bytes.

    Raises :class:`ConfigError` if the module has no such function.
    """
    name = task_name(path)
    module_name, _, attribute = path.partition(":")
    module = importlib.import_module(module_name)
    function: Any = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"module {module_name} has no function {attribute!r}: check --handler")
    first = (getattr(function, "__doc__", None) or "").strip().partition("\n")[0]
    REGISTRY.add(Handler(function), TaskSpec(name, signature="(base64: str) -> str", help=first))
