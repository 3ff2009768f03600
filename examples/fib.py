"""A recursive job and its launcher: enqueue, then run a pool until all is done.

    python examples/fib.py            with the embedded server
    python examples/fib.py --url redis://localhost:6379/0

Jobs live at the top level of a module that workers can import; this file is that module, so the
job is named by its path, "fib.fib".
"""

from __future__ import annotations

import argparse

import redis
import rq

import pysplash

QUEUE = "fib"


def fib(n: int) -> int:
    """Return the n-th Fibonacci number: the sum of what two further jobs return."""
    return n if n < 2 else sum(pysplash.map_jobs(fib, (n - 1, n - 2)))


def main() -> None:
    """Enqueue fib(n), run a pool until it is done, print the answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="use this Redis, not an embedded server")
    parser.add_argument("-n", type=int, default=10, help="which number (default: 10)")
    arguments = parser.parse_args()

    pysplash.set_debug(False)
    with pysplash.open_server(arguments.url) as url:
        connection = redis.Redis.from_url(url)
        job = rq.Queue(QUEUE, connection=connection).enqueue("fib.fib", arguments.n)

        pysplash.Pool([QUEUE], url=url, scale_frequency=0.5, burst=True).start()

        answer = job.return_value(refresh=True)
        print(f"fib({arguments.n}) = {answer}" if answer is not None else "stopped too early")


if __name__ == "__main__":
    main()
