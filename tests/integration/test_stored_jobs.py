"""Jobs that an earlier release has stored run on this one: the names in them stay.

``stored_jobs.json`` holds their hashes as they stood in Redis, by kind, each field in base64.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from base64 import b64decode

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

HERE = pathlib.Path(__file__)
HASHES: dict[str, dict[str, str]] = json.loads(HERE.with_name("stored_jobs.json").read_text())


def run_stored(redis: Redis, url: str, kind: str) -> Job:
    """Put a job of this *kind* back into Redis as it stood there, and have it run."""
    fields = dict(HASHES[kind])
    job_id, origin = fields.pop("id"), b64decode(fields["origin"]).decode()
    redis.hset(f"rq:job:{job_id}", mapping={name: b64decode(v) for name, v in fields.items()})
    Queue(origin, connection=redis).push_job_id(job_id)
    command = [sys.executable, "-m", "tests.integration.stored_application", url]
    subprocess.run(command, check=True, timeout=60, cwd=HERE.parents[2])
    return Job(job_id, connection=redis)


@pytest.mark.parametrize(
    ("kind", "function", "result"),
    [
        ("tasks", "pysplash.tasks.add", 11),
        ("tasks2", "pysplash.tasks.math.sub", -1),
        ("plain", "pysplash.plain_tasks.add", "15"),
    ],
)
def test_a_stored_call_runs(
    redis: Redis, url: str, kind: str, function: str, result: object
) -> None:
    """The task behind the name is found, and its result is stored."""
    job = run_stored(redis, url, kind)
    job.refresh()
    assert job.func_name == function
    assert job.return_value() == result


def test_a_stored_bundle_runs(redis: Redis, url: str) -> None:
    """Several calls in one job, with base64 texts in and out."""
    job = run_stored(redis, url, "bundle")
    job.refresh()
    assert job.func_name == "pysplash.bundled_tasks.mytasks.shout"
    assert json.loads(str(job.return_value()))[1:] == ["QUJD", "WFla"]


def test_a_stored_item_is_forwarded(redis: Redis, url: str) -> None:
    """An item of a stage goes where its handler says, and is gone."""
    job = run_stored(redis, url, "item")
    assert [item.args for item in Queue("out", connection=redis).jobs] == [(b"abab",)]
    assert not Job.exists(job.id, redis)
