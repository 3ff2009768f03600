"""The same tasks, called several times in one job: ``pysplash.bundled_tasks.math.add``."""

from collections.abc import Callable as _Callable

from .bundle import Bundle as _Bundle
from .registry import REGISTRY as _REGISTRY
from .registry import shelve as _shelve


def __getattr__(name: str) -> _Callable[..., str]:
    if name.startswith("_"):
        raise AttributeError(name)

    def call(*texts: str) -> str:
        return _Bundle(_REGISTRY.function(name), texts).run()

    _shelve(__name__, name)
    return call
