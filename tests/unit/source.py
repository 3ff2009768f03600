"""The package's own source, read and parsed once for all tests that look at it."""

from __future__ import annotations

import ast
import functools
import pathlib

PACKAGE = pathlib.Path(__file__).parents[2] / "pysplash"


@functools.cache
def nodes(path: pathlib.Path) -> tuple[ast.AST, ...]:
    """Return every node of the file at *path*, the outer ones first."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path: pathlib.Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Return every import in it, wherever it stands."""
    return tuple(node for node in nodes(path) if isinstance(node, ast.Import | ast.ImportFrom))
