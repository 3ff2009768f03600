"""Imports go one way, and the core touches nothing: the shape of the package, held by tests."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

from . import source
from .source import PACKAGE

#: A module may import only from levels below its own, or from the modules named beside it.
LEVELS: dict[str, float] = {
    "version": 0,
    "errors": 0,
    "log": 0,
    "registry": 1,
    "forwarding": 4,
    "stage": 5,
    "items": 5.2,
    "coprocess": 3.1,
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
    "commons": 3,
    "accounts": 3,
    "parentage": 3,
    "pulses": 3,
    "shares": 3.3,
    "ending": 3,
    "porter": 3.6,
    "porters": 5.6,
    "exchange": 5.4,
    "rpc": 5.5,
    "door_tcp": 5.6,
    "door_http": 5.6,
    "door_zmq": 5.6,
    "doors": 5.65,
    "gateway": 5.7,
    "daemon_pool": 6,
    "daemon": 6,
    "serve_commands": 6.8,
    "tasks": 1.5,
    "plain_tasks": 1.5,
    "parts": 1,
    "bundle": 3.6,
    "bundled_tasks": 3.7,
    "bundles": 5.3,
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
    "rq_two": 3.1,
    "rq_three": 3.1,
    "rq_calls": 3.15,
    "capacity": 3.5,
    "sampling": 3.5,
    "presence": 3.8,
    "signals": 3.5,
    "backlog": 3.5,
    "row": 3.4,
    "scoreboard": 3.5,
    "slate": 3.4,
    "process": 3.5,
    "settlement": 3.8,
    "lessons": 3.5,
    "school": 5,
    "recorder": 3.5,
    "connection": 3.5,
    "embedded": 3.5,
    "outage": 3,
    "lane": 3.5,
    "turn": 3.5,
    "transactions": 3.05,
    "timeouts": 3.5,
    "restoring": 3.5,
    "payload": 3.5,
    "commands": 3.5,
    "heartbeats": 3.8,
    "liaison": 5,
    "packing": 3.6,
    "claims": 3.8,
    "batch": 3.7,
    "batching": 3.9,
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
    "dialing": 3.4,
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
    "place": 6,
    "door_commands": 6.5,
    "record_commands": 6.5,
    "start_command": 6.8,
    "demo_command": 6.8,
    "cli": 7,
    "__init__": 7,
    "__main__": 8,
}
FORBIDDEN_IN_CORE = {"os", "time", "signal", "socket", "subprocess", "psutil", "redis", "rq"}
TESTS = pathlib.Path(__file__).parent
MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
#: names by which a test would sleep or patch
TRICKS = {"sleep", "monkeypatch", "MagicMock", "patch"}


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yield (relative level, dotted name) of every import anywhere in *module*."""
    for node in source.imports(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif node.level and not node.module:
            yield from ((node.level, alias.name) for alias in node.names)
        else:
            yield node.level, node.module or ""


def internal(module: str) -> Iterator[str]:
    """Yield the names of the package's own modules that *module* imports."""
    for level, name in imports(module):
        if level:
            yield name.partition(".")[0]
        elif name.partition(".")[0] == "pysplash":
            yield name.partition(".")[2].partition(".")[0] or "__init__"


def hidden(module: str) -> list[int]:
    """Return the lines inside functions of *module* that import the package's own modules."""
    if not any(node.col_offset for node in source.imports(MODULES[module])):
        return []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        node.lineno
        for function in source.nodes(MODULES[module])
        if isinstance(function, functions)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.level or "pysplash" in (node.module or ""))
    ]


def test_every_module_has_a_level() -> None:
    """Who adds a module says where it stands."""
    assert sorted(MODULES.keys() - LEVELS.keys()) == []


def test_imports_point_down() -> None:
    """Every module imports only from lower levels, so devices never know one another."""
    wrong = [
        (module, name)
        for module in MODULES
        for name in internal(module)
        if LEVELS[name] >= LEVELS[module]
    ]
    assert wrong == []


def test_the_core_touches_nothing() -> None:
    """Levels 0 to 2 import neither clock, process, socket, psutil, redis nor rq."""
    wrong = [
        (module, name)
        for module in MODULES
        if LEVELS[module] < 3
        for level, name in imports(module)
        if not level and name.partition(".")[0] in FORBIDDEN_IN_CORE
    ]
    assert wrong == []


def test_no_import_hides_in_a_function() -> None:
    """No import of our own modules stands inside a function to dodge a cycle."""
    assert [(module, lines) for module in MODULES if (lines := hidden(module))] == []


def test_files_stay_readable() -> None:
    """No file is longer than 400 lines."""
    lengths = {path.stem: len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py")}
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
