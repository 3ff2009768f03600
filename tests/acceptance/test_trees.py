"""Any forest of jobs that wait for jobs ends, and rightly, with any number of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from redis import Redis

from tests.acceptance.grove import Grove
from tests.acceptance.tree_jobs import Forest
from tests.acceptance.trees import forests
from tests.servers import own_server

#: forests for each number of workers; PYSPLASH_TREES=170 makes it more than 500 in all
EXAMPLES = int(os.environ.get("PYSPLASH_TREES", "30"))
#: finding the smallest forest that goes wrong takes minutes, which nobody has who runs all tests
PHASES = (Phase.generate, Phase.shrink) if "PYSPLASH_TREES" in os.environ else (Phase.generate,)


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda cap: f"{cap} workers")
def grove(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grove]:
    """A pool of so many workers."""
    with own_server() as server, Redis.from_url(server.url) as redis:
        grove = Grove(tmp_path_factory.mktemp("grove"), redis, server.url, request.param)
        yield grove
        left = grove.end()
    assert not left


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)
@given(forest=forests())
def test_every_forest_ends_rightly(grove: Grove, forest: Forest) -> None:
    """Each job runs as often as it may, by no more workers than allowed, and nothing is left."""
    wrong = grove.grow(forest)
    assert not wrong, "\n".join(wrong)
