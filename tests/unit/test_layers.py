"""Imports go one way, and the core touches nothing: the shape of the package, held by tests."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parents[2] / "pysplash"

#: A module may import only from levels below its own, or from the modules named beside it.
LEVELS: dict[str, float] = {
    "version": 0,
    "errors": 0,
    "log": 0,
    "registry": 1,
    "forwarding": 4,
    "stage": 5,
    "items": 5.2,
    "coprocess": 3,
    "wire": 2,
    "jsonrpc": 2,
    "handlers": 2,
    "framed": 3,
    "allocation": 3.5,
    "binding": 3.5,
    "logins": 3.5,
    "pace": 3.3,
    "farewells": 3.4,
    "peers": 3.5,
    "exchange": 5.4,
    "rpc": 5.5,
    "door_tcp": 5.6,
    "door_http": 5.6,
    "door_zmq": 5.6,
    "gateway": 5.7,
    "daemon_pool": 6,
    "daemon": 6,
    "serve_commands": 6.8,
    "tasks": 1.5,
    "plain_tasks": 1.5,
    "primitive": 2,
    "state": 1,
    "headroom": 2,
    "memory": 2.2,
    "learning": 2,
    "throttle": 2,
    "workload": 2,
    "trace": 2,
    "facts": 2,
    "recording": 2,
    "replay": 2.8,
    "simulated": 2.5,
    "plant": 2.8,
    "relief": 2.4,
    "policy": 2.5,
    "roster": 2,
    "accounting": 2,
    "render": 2,
    "config": 3,
    "dependents": 3,
    "rq_calls": 3.1,
    "capacity": 3.5,
    "sampling": 3.5,
    "presence": 3.8,
    "signals": 3.5,
    "backlog": 3.5,
    "scoreboard": 3.5,
    "process": 3.5,
    "settlement": 3.8,
    "lessons": 3.5,
    "school": 5,
    "recorder": 3.5,
    "connection": 3.5,
    "embedded": 3.5,
    "lane": 3.5,
    "turn": 3.5,
    "timeouts": 3.5,
    "restoring": 3.5,
    "payload": 3.5,
    "commands": 3.5,
    "heartbeats": 3.8,
    "liaison": 5,
    "claims": 3.8,
    "prefetch": 3.7,
    "prefetching": 3.9,
    "lookahead": 4.27,
    "watch": 4,
    "helping": 3.5,
    "descent": 3.7,
    "progress": 4,
    "mapping": 4.6,
    "clients": 4,
    "interrupts": 4.22,
    "nesting": 4.25,
    "waiter": 4.2,
    "leapfrog": 4.3,
    "quarantine": 3.2,
    "cleaning": 3.8,
    "supervised": 4,
    "rq_outcomes": 4.2,
    "worker": 4.3,
    "deadlock": 3.5,
    "terms": 2,
    "drafts": 3.8,
    "calls": 4,
    "mux": 3.5,
    "answers": 4.8,
    "outbox": 4.9,
    "client": 5,
    "desk": 4.8,
    "async_client": 5.2,
    "outcome": 4,
    "look": 4.1,
    "wait": 4.5,
    "boot": 4.5,
    "fastloop": 4.5,
    "forkserver": 5,
    "devices": 4.5,
    "senses": 5,
    "casualties": 5,
    "supervisor": 5.5,
    "pool": 5.8,
    "environment": 3.5,
    "demo": 6,
    "testing": 6,
    "options": 6,
    "samples": 5.9,
    "ghosts": 5,
    "plotting": 6,
    "door_commands": 6.5,
    "record_commands": 6.5,
    "cli": 7,
    "__init__": 7,
    "__main__": 8,
}
FORBIDDEN_IN_CORE = {"os", "time", "signal", "socket", "subprocess", "psutil", "redis", "rq"}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yield (relative level, dotted name) of every import anywhere in *module*."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level and not node.module:
                yield from ((node.level, alias.name) for alias in node.names)
            else:
                yield node.level, node.module or ""
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)


def internal(module: str) -> Iterator[str]:
    """Yield the names of the package's own modules that *module* imports."""
    for level, name in imports(module):
        if level:
            yield name.partition(".")[0]
        elif name.partition(".")[0] == "pysplash":
            yield name.partition(".")[2].partition(".")[0] or "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """Every module imports only from lower levels, so devices never know one another."""
    assert module in LEVELS, f"{module}.py has no level: give it one here"
    wrong = [name for name in internal(module) if LEVELS[name] >= LEVELS[module]]
    assert wrong == []


@pytest.mark.parametrize("module", [m for m in MODULES if LEVELS.get(m, 9) < 3])
def test_the_core_touches_nothing(module: str) -> None:
    """Levels 0 to 2 import neither clock, process, socket, psutil, redis nor rq."""
    outside = {name.partition(".")[0] for level, name in imports(module) if not level}
    assert outside & FORBIDDEN_IN_CORE == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_import_hides_in_a_function(module: str) -> None:
    """No import of our own modules stands inside a function to dodge a cycle."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    hidden = [
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.level or "pysplash" in (node.module or ""))
    ]
    assert hidden == []


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_readable(module: str) -> None:
    """No file is longer than 400 lines."""
    assert len((PACKAGE / f"{module}.py").read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "tests" / "unit").glob("*.py")), ids=str)
def test_unit_tests_neither_sleep_nor_patch(path: pathlib.Path) -> None:
    """Unit tests inject their doubles: no sleep, no monkeypatch, no mock."""
    names = {
        n.attr if isinstance(n, ast.Attribute) else n.id
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.Attribute | ast.Name)
    }
    assert names & {"sleep", "monkeypatch", "MagicMock", "patch"} == set()
