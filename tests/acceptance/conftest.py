"""What acceptance tests may ask for: the command, a pool, a queue."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from tests.acceptance.command import Command, Start


@contextlib.contextmanager
def starter(folder: Path, *always: str) -> Iterator[Start]:
    """Yield what starts the command; fail if anything it started outlives the block."""
    started: list[Command] = []

    def start(*arguments: str, **environment: str) -> Command:
        started.append(Command(folder, *always, *arguments, **environment))
        return started[-1]

    yield start
    left = [process for command in started for process in command.end()]
    assert not left, "processes outlived the command: " + "; ".join(left)


@pytest.fixture
def splash(tmp_path: Path) -> Iterator[Start]:
    """Starts ``pysplash`` with arguments and, by keyword, variables; nothing outlives the test."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def pool(tmp_path: Path, url: str) -> Iterator[Start]:
    """Starts a pool on the test's own server, with the record in its ``record_file``."""
    with starter(tmp_path, "-u", url, "--record", "record.jsonl") as start:
        yield start


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """The queue ``default`` of the test's own server."""
    return Queue(connection=redis)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A file in which jobs leave a line for each of their runs."""
    path = tmp_path / "marks"
    path.touch()
    return path
