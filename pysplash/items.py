"""Items of stages as a job names them: ``pysplash.items.input`` is one of the stage ``input``.

So every stage is a function of its own to RQ and its tools, and to what the pool learns of it.
"""

from collections.abc import Callable as _Callable

from .application.stage import work as _work


def __getattr__(name: str) -> _Callable[[bytes], object]:
    if name.startswith("_"):
        raise AttributeError(name)

    def call(data: bytes) -> object:
        return _work(name, data)

    return call
