"""A pipeline while its workers are killed at random, and whether the one who counts can count."""

from __future__ import annotations

from collections import Counter

import pytest
from redis import Redis

from benchmarks.pipeline import Account, Pipeline, Settings, endured, judge
from benchmarks.pipeline_stages import FIRST, LAST, OUT, drips, parts
from pysplash import Stage
from tests.servers import PROGRAM

ITEMS = 700
#: kills without which nothing was shown
LEAST = 10


def test_a_pipeline_under_fire() -> None:
    """Workers are killed: each part leaves the last stage, and once where nothing is dripped."""
    with endured(Settings(items=ITEMS, seed=7, server=PROGRAM)) as pipeline:
        account = pipeline.account()
    assert account.faults == {}, pipeline.words[-5000:]
    assert account.left == 2 * ITEMS + account.repeated
    assert pipeline.struck["KILL"] >= LEAST


@pytest.mark.parametrize(
    ("left", "faults", "repeated"),
    [
        ({}, {}, 0),
        ({b"4a": 3}, {}, 2),
        ({b"5a": 2}, {"twice": ("5a",)}, 1),
        ({b"4b": 0, b"5b": 0}, {"lost": ("4b", "5b")}, 0),
        ({b"8a": 1, b"x": 2}, {"foreign": ("8a", "x")}, 1),
    ],
)
def test_what_is_wrong_is_told(
    left: dict[bytes, int], faults: dict[str, tuple[str, ...]], repeated: int
) -> None:
    """Of eight items: what is missing, what is there twice and should not be, what is strange."""
    assert drips(4)
    assert not drips(5)
    counts = Counter(part for number in range(8) for part in parts(number))
    counts.update({part: number - counts[part] for part, number in left.items()})
    assert judge(8, +counts) == Account(sum(left_all(counts)), repeated, faults)


def left_all(counts: Counter[bytes]) -> list[int]:
    """Return how often each part left."""
    return list((+counts).values())


def test_what_is_left_over_is_told(redis: Redis) -> None:
    """An item that waits, a run and a count of deaths are seen; what has left is not."""
    pipeline = Pipeline(redis, Settings(items=1))
    Stage(OUT, connection=redis).push(*parts(0))
    assert pipeline.account() == Account(2, 0, {})
    (waiting,) = Stage(FIRST, connection=redis).push(b"7")
    redis.hset(f"rq:execution:{waiting}:run", "id", "run")
    redis.set("pysplash:deaths:gone", 1)
    redis.lpush(f"rq:queue:{LAST}", "gone")
    assert pipeline.account().faults == {
        "left over": [
            f"rq:execution:{waiting}:run",
            f"rq:job:{waiting}",
            "pysplash:deaths:gone",
        ]
    }
