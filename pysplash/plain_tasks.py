"""The same tasks, with their results as JSON text: for callers that must not unpickle any.

``pysplash.plain_tasks.math.add`` runs the task ``math.add``. A result that has no form in JSON is
the task's failure.
"""

from asyncio import iscoroutine as _iscoroutine
from asyncio import run as _run
from collections.abc import Callable as _Callable
from json import dumps as _dumps
from typing import Any as _Any

from .application.registry import REGISTRY as _REGISTRY
from .application.registry import shelve as _shelve


def __getattr__(name: str) -> _Callable[..., str]:
    if name.startswith("_"):
        raise AttributeError(name)

    def call(*arguments: _Any, **named: _Any) -> str:
        value = _REGISTRY.function(name)(*arguments, **named)
        return _dumps(_run(value) if _iscoroutine(value) else value, allow_nan=False)

    _shelve(__name__, name)
    return call
