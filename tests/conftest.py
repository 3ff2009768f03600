"""What every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from pysplash.embedded import EmbeddedServer
from tests.servers import own_server, version


def pytest_report_header() -> str:
    """Say which server the tests run on."""
    return f"server: {version()}"


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server of the test's own."""
    with own_server() as server:
        yield server


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    """The address of the test's own server."""
    return server.url


@pytest.fixture
def redis(url: str) -> Iterator[Redis]:
    """A client of the test's own server."""
    with Redis.from_url(url) as client:
        yield client
