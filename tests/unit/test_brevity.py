"""Which functions a worker takes for brief, and how many of their jobs make up a turn."""

from __future__ import annotations

from pysplash.worker.brevity import MOST_FUNCTIONS, Brevity


def test_a_function_is_brief_after_a_streak() -> None:
    """Each of its last jobs was; one that was not begins the count anew."""
    brevity = Brevity()
    for _ in range(brevity.streak):
        assert not brevity.is_brief("f")
        brevity.learn("f", 0.0001)
    assert brevity.is_brief("f")
    assert not brevity.is_brief("g")

    brevity.learn("f", brevity.brief_seconds)
    assert not brevity.is_brief("f")


def test_a_function_can_be_forgotten() -> None:
    """A job that is found to take long while it runs counts at once."""
    brevity = Brevity()
    for _ in range(brevity.streak):
        brevity.learn("f", 0.0)
    brevity.forget("f")
    brevity.forget("never seen")
    assert not brevity.is_brief("f")


def test_so_many_functions_are_remembered() -> None:
    """Names that never end, as of functions made by the job, do not fill the memory."""
    brevity = Brevity()
    for number in range(MOST_FUNCTIONS + 10):
        brevity.learn(f"f{number}", 0.0)
    brevity.learn("f0", 0.0)
    assert len(brevity.streaks) == MOST_FUNCTIONS
    assert brevity.streaks["f0"] == 2


def test_a_handful_is_what_a_turn_costs() -> None:
    """The briefer the jobs of late, the more of them; one at least, and no more than wanted."""
    brevity = Brevity()
    assert brevity.handful(8) == 1
    for _ in range(100):
        brevity.learn("f", 0.00009)
    assert brevity.handful(8) == 5
    for _ in range(100):
        brevity.learn("f", 0.0)
    assert brevity.handful(8) == 8
