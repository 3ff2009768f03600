"""The application whose jobs ``stored_jobs.json`` holds; run, it does what waits at a server."""

from __future__ import annotations

import sys

from redis import Redis

from pysplash import Stage, Worker, task
from pysplash.application.handlers import Handler


@task(name="add")
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@task(name="math.sub")
def subtract(a: int, b: int) -> int:
    """Subtract."""
    return a - b


@Handler
def shout(data: bytes) -> bytes:
    """Be the handler of a framed door."""
    return data.upper()


def main(url: str) -> None:
    """Run what waits."""
    task(name="mytasks.shout")(shout)
    Stage("letters", lambda stage, data: [("out", data * 2)])
    queues = ["default", "letters"]
    Worker(queues, connection=Redis.from_url(url)).work(burst=True, logging_level="ERROR")


if __name__ == "__main__":
    main(sys.argv[1])
