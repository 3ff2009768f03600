"""The same tasks, called several times in one job: ``pysplash.bundled_tasks.math.add``.

Both forms of :mod:`pysplash.jobs.bundles` are understood: jobs of earlier gateways have texts.
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from rq.job import get_current_job as _job

from .application.bundle import Bundle as _Bundle
from .application.registry import REGISTRY as _REGISTRY
from .application.registry import shelve as _shelve


def __getattr__(name: str) -> _Callable[..., _Any]:
    if name.startswith("_"):
        raise AttributeError(name)

    def call(*payloads: _Any, as_bytes: bool = False) -> _Any:
        function = _REGISTRY.function(name)
        return _Bundle(function, payloads, _job(), as_bytes=as_bytes).run()

    _shelve(__name__, name)
    return call
