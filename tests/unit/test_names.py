"""Dotted names that somebody outside keeps: in Redis, in configuration, in the documentation."""

from __future__ import annotations

import ast
import importlib
import pathlib
import subprocess
import sys
import tomllib
import types

import pytest
from rq.utils import import_attribute

import pysplash
from pysplash.application.forwarding import entry
from pysplash.application.registry import REGISTRY
from pysplash.client.requests import ENTRY, PLAIN_ENTRY
from pysplash.jobs.bundles import PLACE

from .source import PACKAGE

#: written into jobs that are stored in Redis, and read by workers of other releases
STORED = ["tasks", "plain_tasks", "bundled_tasks", "items"]
#: the modules of the root, each known to somebody outside
ROOT_MODULES = {
    *STORED,
    *(
        "__init__",
        "__main__",
        "config",
        "embedded",
        "errors",
        "events",
        "framed",
        "log",
        "testing",
        "version",
    ),
}
#: in people's configuration, installed scripts and the reference
CONFIGURED = [
    "pysplash.worker.Worker",
    "pysplash.Worker",
    "pysplash.cli.main",
    "pysplash.version.__version__",
    "pysplash.framed.request",
    "pysplash.framed.pack",
    "pysplash.log.logger",
    "pysplash.log.set_debug",
    "pysplash.events.on",
    "pysplash.events.JobEvent",
    "pysplash.testing.World",
    "pysplash.testing.Plant",
    "pysplash.testing.Law",
    "pysplash.testing.workload",
    "pysplash.errors.SplashError",
]
#: what `import pysplash` alone makes reachable
REACHABLE = ["errors", "framed", "log", "testing", "workload"]


def test_the_root_holds_names_that_somebody_knows() -> None:
    """At most fourteen modules at the root, and twelve packages."""
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_MODULES
    assert len(list(PACKAGE.glob("*/__init__.py"))) <= 12


@pytest.mark.parametrize("name", CONFIGURED)
def test_names_in_configuration_resolve(name: str) -> None:
    """By RQ's own import, and by an ordinary one."""
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is import_attribute(name)


@pytest.mark.parametrize("name", REACHABLE)
def test_modules_after_a_plain_import(name: str) -> None:
    """``import pysplash`` is enough for ``pysplash.framed.request(...)``."""
    code = f"import pysplash; assert pysplash.{name}.__name__.startswith('pysplash.')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=PACKAGE.parent)


def test_what_the_project_file_names_is_there() -> None:
    """The installed command and the version are found where packaging looks for them."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["pysplash"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == (
        "pysplash.version.__version__"
    )


def test_names_in_redis_stay() -> None:
    """Jobs of older and newer releases are run by each other, so these are never written anew."""
    assert ENTRY == "pysplash.tasks.{}"
    assert PLAIN_ENTRY == "pysplash.plain_tasks.{}"
    assert PLACE == "pysplash.bundled_tasks."
    assert entry("input") == "pysplash.items.input"


@pytest.mark.parametrize("module", STORED)
@pytest.mark.parametrize("name", ["add", "math.add", "registry.server", "model", "application"])
def test_names_in_redis_resolve(module: str, name: str) -> None:
    """A user's task may have any name, that of one of our modules included."""
    found = import_attribute(f"pysplash.{module}.{name}")
    assert callable(found)
    assert not isinstance(found, types.ModuleType)


@pytest.mark.parametrize("module", STORED)
def test_modules_of_stored_names_offer_nothing_else(module: str) -> None:
    """They are single modules without a public name, so none can hide a task of a user."""
    path = pathlib.Path(PACKAGE / f"{module}.py")
    names = {
        alias.asname or alias.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert [name for name in names if not name.startswith("_")] == []


def test_a_stored_task_is_the_registered_one() -> None:
    """The function behind a stored name is the user's."""

    @pysplash.task(name="names.double")
    def double(value: int) -> int:
        return value * 2

    assert REGISTRY.function("names.double") is double
    assert import_attribute("pysplash.tasks.names.double")(21) == 42
    assert import_attribute("pysplash.plain_tasks.names.double")(21) == "42"
