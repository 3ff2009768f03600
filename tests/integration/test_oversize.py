"""Results that the server refuses for their size: the job fails and says so, the worker goes on."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

import pysplash
from pysplash.worker.oversize import LARGE

MB = 1 << 20


def run(redis: Redis, client: Redis, *sizes: int) -> list[Job]:
    """Run jobs that return so many bytes, and a last one that returns 1."""
    queue = Queue(connection=redis)
    jobs = [queue.enqueue(secrets.token_bytes, size) for size in sizes]
    jobs.append(queue.enqueue(abs, -1))
    pysplash.Worker([Queue(connection=client)], connection=client).work(burst=True)
    return jobs


def failure_of(job: Job) -> str:
    """Return why *job* failed."""
    result = job.latest_result()
    assert job.get_status() == "failed"
    assert result is not None
    return str(result.exc_string)


@pytest.mark.parametrize("name", ["proto-max-bulk-len", "client-query-buffer-limit"])
def test_a_result_over_a_limit_fails_its_job(redis: Redis, name: str) -> None:
    """The failure names size and limit; results below it and later jobs are stored."""
    redis.config_set(name, 2 * MB)
    small, large, last = run(redis, redis, MB, 3 * MB)
    assert (small.get_status(), last.return_value()) == ("finished", 1)
    assert f"Redis takes {2 * MB} ({name})" in failure_of(large)
    assert " bytes as it is stored" in failure_of(large)
    assert large.return_value() is None


def test_a_limit_that_is_not_told_is_found_out(redis: Redis, url: str) -> None:
    """Where CONFIG is refused, a large result is given up after a few tries."""
    redis.execute_command("ACL", "SETUSER", "meek", "on", ">pw", "~*", "&*", "+@all", "-config")
    redis.config_set("proto-max-bulk-len", MB)
    client = Redis.from_url(url, username="meek", password="pw")
    large, last = run(redis, client, 3 * MB)
    assert "did not take it in 5 tries" in failure_of(large)
    assert last.return_value() == 1


def test_a_result_larger_than_the_memory_left_fails_its_job(redis: Redis) -> None:
    """A server that has room for small values, and never for this one, is not waited for."""
    used: Any = redis.info("memory")
    redis.config_set("maxmemory", used["used_memory"] + 6 * MB)
    large, last = run(redis, redis, 10 * MB)
    assert "maxmemory" in failure_of(large) or "tries" in failure_of(large)
    assert last.return_value() == 1


def test_a_large_result_that_is_taken_is_stored(redis: Redis) -> None:
    """Most servers take up to 512 MB: there large results are results as any."""
    large, last = run(redis, redis, 2 * LARGE)
    assert len(large.return_value() or b"") == 2 * LARGE
    assert last.return_value() == 1
