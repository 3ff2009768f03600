"""The demonstration, for somebody who has nothing installed but the package."""

from __future__ import annotations

import re

from tests.acceptance.command import Start

#: seconds for fib(8), 67 jobs that wait for each other, on a machine that runs other tests too
BOUND = 60.0


def test_demo_ends_by_itself_and_says_why(splash: Start) -> None:
    """The demo computes its number, says how many workers that took and why, and is gone."""
    demo = splash("demo", "-n", "8")
    assert demo.wait(BOUND) == 0, demo.err
    assert "fib(8) = 21" in demo.out.splitlines()
    most = re.search(r"^workers at most: (\d+)$", demo.out, re.MULTILINE)
    assert most is not None
    assert int(most[1]) >= 1
    why = demo.out.partition("why:\n")[2]
    assert re.search(r"\bmin: 0 -> 1", why)
    assert re.search(r"\bburst: \d+ -> 0", why)
    assert "Traceback" not in demo.err
    demo.await_gone(5)
