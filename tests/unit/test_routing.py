"""What a client believes of the pools, for how long, and how it is told to look again."""

from __future__ import annotations

import pytest

from pysplash.client.discovery import PoolFacts, Task
from pysplash.client.routing import BELIEVED, Routes
from pysplash.errors import NoWorkerError, UnknownTask

POOL = PoolFacts(
    "a", "host", 1, "0", 1.0, ("default",), None, (Task("add", "default", None, "()", ""),)
)


def test_what_was_read_is_believed_for_a_while() -> None:
    """A route is known until what was read is old, or a pool did not take a call."""
    routes = Routes(0.0)
    assert routes.believed("add", 10.0) is None
    routes.learn([POOL], 10.0)
    route = routes.find("add", 10.0, 10.0)
    assert route is not None
    assert routes.believed("add", 9.9 + BELIEVED) is route
    assert routes.believed("add", 10.0 + BELIEVED) is None
    assert (routes.is_newer(10.0), routes.is_newer(10.1)) == (True, False)
    routes.distrust()
    assert (routes.believed("add", 10.0), routes.is_newer(10.0)) == (None, False)


def test_a_task_nobody_is_known_to_have_is_looked_for() -> None:
    """What is believed never refuses a call: the pools are read first."""
    routes = Routes(0.0)
    routes.learn([POOL], 10.0)
    assert routes.believed("sub", 10.0) is None
    with pytest.raises(UnknownTask):
        routes.find("sub", 10.0, 10.0)


def test_patience_ends() -> None:
    """A call waits for a pool for as long as the client has patience, from when it was made."""
    routes = Routes(2.0)
    routes.learn([], 10.0)
    assert routes.find("add", 10.0, 11.9) is None
    with pytest.raises(NoWorkerError):
        routes.find("add", 10.0, 12.0)
    routes.learn([POOL], 13.0)
    assert routes.find("add", 10.0, 13.0) is not None
