"""Pickles of plain values only: written as any, read without ever importing or calling anything.

A door that answers strangers reads what workers stored with this: nothing but texts, bytes,
numbers, lists and mappings can come of it, whatever was stored.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


class PrimitiveSerializer:
    """A serializer for RQ, as its own pickle one, that reads plain values and nothing else."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Return *value* as a pickle."""
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def loads(data: bytes) -> Any:
        """Return the plain value in *data*; raise UnpicklingError for anything else."""
        return _Reader(io.BytesIO(data)).load()
