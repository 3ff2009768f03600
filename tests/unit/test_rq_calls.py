"""RQ is the one our calls are made for; another is told apart, and one place is to be changed."""

from __future__ import annotations

import ast
import enum
import pathlib
import re

import pytest
from rq.version import VERSION

import pysplash
from pysplash.rq_calls import strange

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = pathlib.Path(pysplash.__file__).parent
#: RQ's methods that RQ 3 changes, or whose work it does elsewhere
CHANGED = {
    "handle_job_success",
    "handle_job_failure",
    "handle_job_retry",
    "cleanup_execution",
    "maintain_heartbeats",
    "get_current_job_id",
    "get_current_job",
}


class Three:
    """RQ's worker as it is announced: each method is handed the execution."""

    def handle_job_success(self, job, queue, execution): ...  # type: ignore[no-untyped-def]
    def handle_job_failure(self, job, queue, execution, exc_string=""): ...  # type: ignore[no-untyped-def]
    def handle_job_retry(self, job, queue, retry, execution): ...  # type: ignore[no-untyped-def]
    def handle_execution_ended(self, job, queue, heartbeat_ttl): ...  # type: ignore[no-untyped-def]
    def handle_exception(self, job, *exc_info): ...  # type: ignore[no-untyped-def]
    def cleanup_execution(self, job, execution, pipeline): ...  # type: ignore[no-untyped-def]
    def prepare_execution(self, job): ...  # type: ignore[no-untyped-def]
    def prepare_job_execution(self, job, remove_from_intermediate_queue=False): ...  # type: ignore[no-untyped-def]
    def perform_job(self, job, queue, execution): ...  # type: ignore[no-untyped-def]
    def execute_job(self, job, queue): ...  # type: ignore[no-untyped-def]


class ThreesStatus(enum.Enum):
    """The words that are new."""

    QUEUED = "queued"
    READY = "ready_to_enqueue"


def test_this_rq_is_the_one_meant() -> None:
    """The methods that are called or overridden take what they are given."""
    assert not strange(), f"RQ {VERSION}: " + "; ".join(strange())


def test_the_lowest_that_is_promised_is_tested() -> None:
    """What `make test-rq` installs first is the lowest that the package accepts."""
    versions = re.search(r"^RQ_VERSIONS \?= (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert versions is not None
    assert f'"rq>={versions[1]},<3"' in (ROOT / "pyproject.toml").read_text()


def test_rq_3_is_told_apart() -> None:
    """Each method that changes is named, with the place to change, and each new status."""
    lines = strange(Three, ThreesStatus)

    assert {line.partition(" ")[0] for line in lines[:-1]} == {
        "handle_job_success",
        "handle_job_failure",
        "handle_job_retry",
        "cleanup_execution",
        "perform_job",
        "get_current_job_id",
    }
    assert lines[0] == (
        "handle_job_success takes job queue execution, not job queue started_job_registry: "
        "adapt pysplash/rq_calls.py"
    )
    assert lines[-1] == "a job may be ready_to_enqueue: adapt pysplash/outcome.py"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.name))
def test_nobody_else_calls_them(path: pathlib.Path) -> None:
    """What RQ 3 changes is called from one module; an override may call what it overrides."""
    calls = [
        node.func
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    found = {
        call.attr
        for call in calls
        if call.attr in CHANGED and not ast.unparse(call.value).startswith("super()")
    }
    assert not found or path.name == "rq_calls.py"
