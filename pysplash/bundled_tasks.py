"""The same tasks, called several times in one job: ``pysplash.bundled_tasks.math.add``."""

from collections.abc import Callable as _Callable

from rq.job import get_current_job as _job

from .application.bundle import Bundle as _Bundle
from .application.registry import REGISTRY as _REGISTRY
from .application.registry import shelve as _shelve


def __getattr__(name: str) -> _Callable[..., str]:
    if name.startswith("_"):
        raise AttributeError(name)

    def call(*texts: str) -> str:
        return _Bundle(_REGISTRY.function(name), texts, _job()).run()

    _shelve(__name__, name)
    return call
