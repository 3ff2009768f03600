"""Which RQ is installed, and how it says what a worker is at."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq.version import VERSION

RQ_3 = not VERSION.startswith("2.")
since_3 = pytest.mark.skipif(not RQ_3, reason="RQ has this since 3.0")


def at_work_on(redis: Redis, worker: str) -> list[str]:
    """Return the ids of the jobs that *worker* is at, as Redis has it.

    RQ 3 keeps all of them, RQ 2 the innermost of those that run inside one another.
    """
    if RQ_3:
        entries: Any = redis.smembers(f"rq:worker:{worker}:executions")
        return sorted(entry.decode().rpartition(":")[0] for entry in entries)
    job_id: Any = redis.hget(f"rq:worker:{worker}", "current_job")
    return [job_id.decode()] if job_id else []
