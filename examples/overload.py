"""The wave: jobs that sleep, then burn CPU, so that a pool that only looks at CPU is misled.

    python examples/overload.py       with the embedded server
    python examples/overload.py --url redis://localhost:6379/0 --record wave.jsonl

While the jobs sleep they look free, so workers are added; when they wake together they want far
more CPU than there is, so the pool takes workers back. Watch the targets and their reasons.
Stop it with Ctrl-C: once to let running jobs finish, twice to leave at once.
"""

from __future__ import annotations

import argparse
import time

import redis
import rq

import pysplash

QUEUE = "overload"


def overload(sleep: float, burn: float) -> None:
    """Sleep, then keep one core busy; both in seconds."""
    time.sleep(sleep)
    end = time.monotonic() + burn
    while time.monotonic() < end:
        pass


def main() -> None:
    """Enqueue the wave and run a pool until it is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="use this Redis, not an embedded server")
    parser.add_argument("--jobs", type=int, default=40, help="how many (default: 40)")
    parser.add_argument("--sleep", type=float, default=15.0, help="seconds asleep (default: 15)")
    parser.add_argument("--burn", type=float, default=5.0, help="seconds awake (default: 5)")
    parser.add_argument("--max-procs", type=int, default=32, help="most workers (default: 32)")
    parser.add_argument("--record", help="write one JSON line a tick to this file")
    arguments = parser.parse_args()

    pysplash.set_debug(False)
    with pysplash.open_server(arguments.url) as url:
        queue = rq.Queue(QUEUE, connection=redis.Redis.from_url(url))
        for _ in range(arguments.jobs):
            queue.enqueue("overload.overload", arguments.sleep, arguments.burn)

        pysplash.Pool(
            [QUEUE],
            url=url,
            max_procs=arguments.max_procs,
            record=arguments.record,
            burst=True,
        ).start()


if __name__ == "__main__":
    main()
