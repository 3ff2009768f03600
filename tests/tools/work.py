"""Runs two jobs, one that returns and one that fails, on the server named; prints how they ended.

It is called in a process of its own, once a tool was set up there: tools patch RQ for good.
"""

from __future__ import annotations

import json
from typing import Any

from redis import Redis
from rq import Queue

import pysplash
from tests.tools import jobs


def work(url: str, worker_class: Any = pysplash.Worker, function: Any = jobs.fine) -> None:
    """Run the jobs, and print their statuses and the result of the first."""
    with Redis.from_url(url) as client:
        queue = Queue("default", connection=client)
        two = [queue.enqueue(function, 1), queue.enqueue(jobs.broken, 2)]
        worker_class([queue], connection=client).work(burst=True)
        statuses = [str(getattr(job.get_status(), "value", "")) for job in two]
        print(json.dumps({"statuses": statuses, "result": two[0].return_value()}))
