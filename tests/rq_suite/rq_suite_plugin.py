"""Plugin of pytest for RQ's own tests: replaces RQ's workers, and notes how each test ended.

Its settings are environment variables: ``RQ_SUITE_SIDE`` is ``peer`` (RQ's SimpleWorker takes the
place of its forking worker) or ``ours`` (PySplash's worker takes the place of both).
``RQ_SUITE_LOG`` is the file that takes a line for each test as it begins and as it ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rq.worker import SimpleWorker, Worker

from pysplash.worker.worker import Worker as OurWorker

#: seconds after which a test counts as hung; the process ends, as nothing else ends it for sure
HUNG = 60.0
LOG = os.environ["RQ_SUITE_LOG"]


def _replace() -> None:
    """Have every module of RQ name another class where it names a worker."""
    ours = os.environ["RQ_SUITE_SIDE"] == "ours"
    places: dict[Any, type] = {Worker: OurWorker if ours else SimpleWorker}
    if ours:
        places[SimpleWorker] = OurWorker
    for name, module in list(sys.modules.items()):
        if name == "rq" or name.startswith("rq."):
            for attribute, value in list(vars(module).items()):
                if isinstance(value, type) and value in places:
                    setattr(module, attribute, places[value])


def _note(test: str, outcome: str) -> None:
    with open(LOG, "a") as log:
        log.write(json.dumps([test, outcome]) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End the process where a test hangs."""
    _note(item.nodeid, "died")
    watch = threading.Timer(HUNG, os._exit, [70])
    watch.daemon = True
    watch.start()
    try:
        return (yield)
    finally:
        watch.cancel()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test has ended."""
    if report.when == "call" or report.outcome != "passed":
        _note(report.nodeid, report.outcome)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Remember the status."""
    _status.append(int(exitstatus))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave without waiting for what tests have left running."""
    sys.stdout.flush()
    os._exit(_status[0] if _status else 3)


_status: list[int] = []
_replace()
