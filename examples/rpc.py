"""Tasks called by name: from a thread, from asyncio, and from a shell.

    python examples/rpc.py            with the embedded server
    python examples/rpc.py --url redis://localhost:6379/0

The tasks run in a pool's workers; the callers know nothing of this file but the tasks' names.
While it runs with --serve, try in another shell, with the URL it prints:

    pysplash tasks -u URL
    pysplash call -u URL add 5 6
"""

from __future__ import annotations

import argparse
import asyncio
import threading

import pysplash


@pysplash.task
def add(a: int, b: int) -> int:
    """Return the sum of two numbers."""
    return a + b


@pysplash.task(name="text.count", timeout=10)
def count_words(text: str) -> dict[str, int]:
    """Return how often each word occurs."""
    words = text.lower().split()
    return {word: words.count(word) for word in sorted(set(words))}


@pysplash.task
def divide(a: float, b: float) -> float:
    """Return a quotient; the divisor may be nought, and then the caller hears of it."""
    return a / b


def call_from_a_thread(url: str) -> None:
    """Call tasks and wait for each answer."""
    with pysplash.Client(url, patience=30, timeout=30) as client:
        print("add(5, 6) =", client.add(5, 6))
        print("text.count:", client.text.count("to be or not to be"))
        print("sums:", client.map("add", range(5), range(5)))
        try:
            client.execute("divide", 1, 0, timeout=5)
        except pysplash.ExecutionError as error:
            print("divide(1, 0):", error.type)
        try:
            client.execute("os.system", "true")
        except pysplash.UnknownTask:
            print("os.system: no such task")


async def call_from_asyncio(url: str) -> None:
    """Have many calls in flight at once, over one connection."""
    async with pysplash.AsyncClient(url, patience=30) as client:
        calls = await client.submit_many("add", range(1000), range(1000))
        total = 0
        async for call in client.as_finished(calls):
            total += await call.result()
        print("1000 calls at once, together:", total)


def main() -> None:
    """Run a pool, call its tasks, stop it; or serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="use this Redis, not an embedded server")
    parser.add_argument("--serve", action="store_true", help="only serve, until stopped")
    arguments = parser.parse_args()

    with pysplash.open_server(arguments.url) as url:
        # Workers log the traceback of a task that fails; here the caller shows it.
        pool = pysplash.Pool(["rpc"], url=url, preload=["rpc"], logging_level="CRITICAL")

        def call() -> None:
            try:
                call_from_a_thread(url)
                asyncio.run(call_from_asyncio(url))
            finally:
                pool.stop()

        if arguments.serve:
            print("serving at", url, flush=True)
        else:
            threading.Thread(target=call).start()
        pool.start()


if __name__ == "__main__":
    main()
