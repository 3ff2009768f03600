"""What tests on a real server may ask for."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Queue


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """A queue of the test's own."""
    return Queue("default", connection=redis)
