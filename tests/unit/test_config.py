"""Settings: what is refused, with which words, and what sizes mean."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysplash.config import check_queues, parse_size
from pysplash.errors import ConfigError
from pysplash.supervisor.pool import Pool, default_name

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"min_procs": 5, "max_procs": 2}, ["min_procs is 5", "max_procs is 2"]),
        ({"min_procs": -1}, ["min_procs is -1", "from 0"]),
        ({"min_procs": True}, ["min_procs is True"]),
        ({"max_procs": 0}, ["max_procs is 0"]),
        ({"max_procs": 2.5}, ["max_procs is 2.5", "whole"]),
        ({"max_procs": 10**9}, ["max_procs is 1000000000"]),
        ({"max_per_scale": 0}, ["max_per_scale is 0"]),
        ({"scale_frequency": NAN}, ["scale_frequency is nan"]),
        ({"scale_frequency": 0}, ["scale_frequency is 0"]),
        ({"scale_frequency": INFINITY}, ["scale_frequency is inf"]),
        ({"quiet_period_seconds": -1}, ["quiet_period_seconds is -1"]),
        ({"terminate_seconds": NAN}, ["terminate_seconds is nan"]),
        ({"zombie_timeout": 0}, ["zombie_timeout is 0"]),
        ({"max_cpu": 0}, ["max_cpu is 0", "from 1 to 100"]),
        ({"max_cpu": 101}, ["max_cpu is 101"]),
        ({"max_mem": "80"}, ["max_mem is '80'"]),
        ({"mem_budget": "lots"}, ["mem_budget is 'lots'", "2GB"]),
        ({"mem_budget": 0}, ["mem_budget is 0"]),
        ({"mem_budget": "1MB"}, ["mem_budget is 1048576", "at least 32MB"]),
        ({"max_jobs": 0}, ["max_jobs is 0"]),
        ({"max_job_memory": "-1MB"}, ["max_job_memory is '-1MB'"]),
        ({"max_age": 0}, ["max_age is 0"]),
        ({"max_nesting": 0}, ["max_nesting is 0", "from 1 to 500"]),
        ({"on_crash": "ignore"}, ["on_crash is 'ignore'", "fail, requeue"]),
        ({"dequeue_strategy": "lifo"}, ["dequeue_strategy is 'lifo'"]),
        ({"preload": ["not a module"]}, ["preload 'not a module'"]),
        ({"url": "nonsense"}, ["url 'nonsense' does not parse", "redis://"]),
        ({"url": "redis://:secret@h:x/"}, ["does not parse", "***"]),
        ({"port": 0}, ["port is 0"]),
        ({"db": -1}, ["db is -1"]),
        ({"worker_class": lambda: None}, ["worker class", "top level of a module"]),
    ],
)
def test_bad_settings(arguments: dict[str, Any], words: list[str]) -> None:
    """A wrong setting is refused in one line that names it, its value and a remedy."""
    with pytest.raises(ConfigError) as caught:
        Pool(["default"], **arguments)

    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    "names", [[], [""], ["  "], ["a", "a"], ["a\nb"], ["a\0"], ["x" * 256], [None], [7]]
)
def test_bad_queues(names: list[Any]) -> None:
    """No queue, an empty, repeated or absurd name is refused."""
    with pytest.raises(ConfigError):
        check_queues(names)


def test_queues_keep_their_order() -> None:
    """Order is priority; spaces and colons are RQ's users' own business."""
    assert check_queues(["high", "low:er", "a b"]) == ("high", "low:er", "a b")


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 2**30), ("512 MiB", 512 * 2**20), ("1.5k", 1536), (1024, 1024), ("7", 7)],
)
def test_sizes(text: str | int, size: int) -> None:
    """Sizes are bytes, or a number with a unit of 1024s."""
    assert parse_size(text) == size


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    """No text makes parse_size fail in any other way than by refusing it."""
    with contextlib.suppress(ConfigError):
        assert parse_size(text) >= 1


def test_names_of_pools_are_unique_and_safe_for_rq() -> None:
    """Two pools of one host never share a name, and RQ takes both."""
    first, second = default_name(), default_name()

    assert first != second
    assert all(c.isalnum() or c in "-_" for c in first + second)
