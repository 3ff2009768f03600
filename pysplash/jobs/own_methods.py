"""Whether a method of RQ's classes is as RQ or PySplash has written it, or patched by a tool."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import Any

import rq

#: where the methods of RQ and ours are written
_HOMES = tuple(f"{folder}/" for folder in (Path(rq.__file__).parent, Path(__file__).parents[1]))


def is_own(found: Any) -> bool:
    """Return whether *found* is a method as RQ or PySplash has written it."""
    if type(found) in (staticmethod, classmethod):
        found = found.__func__
    # by its true type: wrapt's wrappers say of themselves that they are what they wrap
    return type(found) is FunctionType and found.__code__.co_filename.startswith(_HOMES)


def has_patched(kind: type, name: str) -> bool:
    """Return whether *kind* or a class beneath it has a method *name* that is neither's."""
    return any(name in vars(each) and not is_own(vars(each)[name]) for each in kind.__mro__)
