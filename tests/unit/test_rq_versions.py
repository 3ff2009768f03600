"""RQ is the one our calls are made for; another is told apart, and one place is to be changed."""

from __future__ import annotations

import ast
import enum
import pathlib
import re

from rq.version import VERSION
from rq.worker import BaseWorker

from pysplash.jobs.rq import incompatibilities, succeed

from . import source
from .source import PACKAGE

ROOT = pathlib.Path(__file__).parents[2]
GENERATIONS = [PACKAGE / "jobs" / "rq2.py", PACKAGE / "jobs" / "rq3.py"]
#: RQ's methods that differ between RQ 2 and RQ 3, or whose work RQ 3 does elsewhere
CHANGED = {
    "handle_job_success",
    "handle_job_failure",
    "handle_job_retry",
    "cleanup_execution",
    "maintain_heartbeats",
    "perform_job",
    "get_current_job_id",
    "get_current_job",
    "execute_success_callback",
    "execute_failure_callback",
    "execute_stopped_callback",
}
#: and names that only one of them has
MOVED = {"_job_stack", "_current_job", "rq.callbacks", "current_job"}


class NextWorker(BaseWorker):
    """A worker of an RQ to come, two methods of which have changed."""

    def handle_job_success(self, job, outcome): ...  # type: ignore[no-untyped-def, override]
    def perform_job(self, task): ...  # type: ignore[no-untyped-def, override]


class NextStatus(enum.Enum):
    """A word that every RQ has, and one that is new."""

    QUEUED = "queued"
    MELTED = "melted"


def test_this_rq_is_the_one_meant() -> None:
    """The methods that are called or overridden take what they are given."""
    assert not incompatibilities(), f"RQ {VERSION}: " + "; ".join(incompatibilities())


def test_the_generation_is_the_installed_one() -> None:
    """RQ 2 is called as RQ 2, what came after it as RQ 3."""
    two = VERSION.startswith("2.")
    assert succeed.__module__ == f"pysplash.jobs.{'rq2' if two else 'rq3'}"


def test_the_lowest_that_is_promised_is_tested() -> None:
    """What `make test-rq` installs first is the lowest that the package accepts."""
    versions = re.search(r"^RQ_VERSIONS \?= (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert versions is not None
    assert f'"rq>={versions[1]},<4"' in (ROOT / "pyproject.toml").read_text()


def test_another_rq_is_told_apart() -> None:
    """Each method that has changed is named, with the place to change, and each new status."""
    lines = incompatibilities(NextWorker, NextStatus)

    assert {line.partition(" ")[0] for line in lines[:-1]} == {"handle_job_success", "perform_job"}
    assert lines[0].startswith("handle_job_success takes job outcome, not job queue started_job")
    assert lines[0].endswith(f": adapt {succeed.__module__}")
    assert lines[-1] == "a job may be melted: adapt pysplash.waiting.outcomes"


def interface(path: pathlib.Path) -> dict[str, str]:
    """Return the public names of a module, with what the functions take and return."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            taken = [argument.arg for argument in node.args.args]
            found[node.name] = f"{taken} {ast.unparse(node.returns) if node.returns else ''}"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found[ast.unparse(target)] = ""
    own = ("log", "MOST_TRIES")
    return {name: taken for name, taken in found.items() if name[0] != "_" and name not in own}


def test_both_generations_have_the_same_names() -> None:
    """Whatever is asked of one can be asked of the other."""
    two, three = map(interface, GENERATIONS)

    assert two == three
    assert "succeed" in two


def test_nobody_else_calls_them() -> None:
    """What differs is called from these modules; an override may call what it overrides."""
    calling = {path for path in PACKAGE.rglob("*.py") if differing_calls(path)}
    assert calling <= set(GENERATIONS)


def differing_calls(path: pathlib.Path) -> set[str]:
    """Return what the module at *path* names of all that differs between generations."""
    tree = source.nodes(path)
    calls = [
        node.func
        for node in tree
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    found = {
        call.attr
        for call in calls
        if call.attr in CHANGED and not ast.unparse(call.value).startswith("super()")
    }
    names = [node.name for node in tree if isinstance(node, ast.alias)]
    names += [node.value for node in tree if isinstance(node, ast.Constant) and node.value in MOVED]
    return found | MOVED.intersection(names)
