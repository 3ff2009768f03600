"""Jobs of which a fifth raise: the pool goes on, the failures are where RQ keeps them.

    python examples/flaky.py          with the embedded server
    python examples/flaky.py --url redis://localhost:6379/0

The counts printed at the end are what RQ's registries say.
"""

from __future__ import annotations

import argparse
import random
import time

import redis
import rq

import pysplash

QUEUE = "flaky"


def flaky(number: int) -> int:
    """Work for a moment, then return *number* or, one time in five, raise."""
    time.sleep(random.uniform(0.02, 0.2))
    if random.random() < 0.2:
        raise RuntimeError(f"job {number} had bad luck")
    return number


def main() -> None:
    """Enqueue jobs, run a pool until all are done, count what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="use this Redis, not an embedded server")
    parser.add_argument("--jobs", type=int, default=200, help="how many (default: 200)")
    arguments = parser.parse_args()

    pysplash.set_debug(False)
    with pysplash.open_server(arguments.url) as url:
        queue = rq.Queue(QUEUE, connection=redis.Redis.from_url(url))
        jobs = [queue.enqueue("flaky.flaky", number) for number in range(arguments.jobs)]

        # The workers' own log would show a traceback for each failure.
        pysplash.Pool([QUEUE], url=url, burst=True, logging_level="CRITICAL").start()

        statuses = [str(job.get_status()) for job in jobs]
        for status in sorted(set(statuses)):
            print(f"{status.rpartition('.')[2].lower()}: {statuses.count(status)}")


if __name__ == "__main__":
    main()
