"""The shape of the package as far as import-linter does not hold it (``make lint``)."""

from __future__ import annotations

import ast
import pathlib
from collections import Counter

from . import source
from .source import PACKAGE

TESTS = pathlib.Path(__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
#: names by which a test would sleep or patch
TRICKS = {"sleep", "monkeypatch", "MagicMock", "patch"}


def hidden(module: pathlib.Path) -> list[int]:
    """Return the lines inside functions of *module* that import the package's own modules."""
    if not any(node.col_offset for node in source.imports(module)):
        return []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        node.lineno
        for function in source.nodes(module)
        if isinstance(function, functions)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.level or "pysplash" in (node.module or ""))
    ]


def test_no_import_hides_in_a_function() -> None:
    """No import of our own modules stands inside a function to dodge a cycle."""
    assert [(module.name, lines) for module in MODULES if (lines := hidden(module))] == []


def test_no_two_public_classes_share_a_name() -> None:
    """A class can be found by its name alone."""
    names = Counter(
        node.name
        for module in MODULES
        for node in source.nodes(module)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} == set()


def test_files_stay_readable() -> None:
    """No file is longer than 400 lines."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_unit_tests_neither_sleep_nor_patch() -> None:
    """Unit tests inject their doubles: no sleep, no monkeypatch, no mock."""
    suspects = [
        path
        for path in sorted(TESTS.glob("*.py"))
        if any(trick in path.read_text() for trick in TRICKS)
    ]
    found = [
        (path.name, name)
        for path in suspects
        for node in source.nodes(path)
        if (name := getattr(node, "attr", None) or getattr(node, "id", None)) in TRICKS
    ]
    assert found == []
