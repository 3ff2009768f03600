"""Registered tasks as a job names them: ``pysplash.tasks.math.add`` is the task ``math.add``.

So every task is a function of its own to RQ and its tools, and to what the pool learns of it,
though a caller knows nothing of where it is defined. Nothing but names is to be found here: a
name that was not registered raises when it is called.
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from .application.registry import REGISTRY as _REGISTRY
from .application.registry import shelve as _shelve


def __getattr__(name: str) -> _Callable[..., _Any]:
    if name.startswith("_"):
        raise AttributeError(name)

    def call(*arguments: _Any, **named: _Any) -> _Any:
        return _REGISTRY.function(name)(*arguments, **named)

    _shelve(__name__, name)
    return call
