"""A pipeline of three stages: a text into lines, lines into words, words into counts.

    python examples/words.py            with the embedded server
    python examples/words.py --url redis://localhost:6379/0

The text is Python's own: what ``import this`` prints. Each stage is a queue, so any number of
pools, on any machines, may serve any of them: pysplash text lines words --preload words
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import re
from collections.abc import Iterator

from redis import Redis
from rq import get_current_job

import pysplash
from pysplash import Stage

COUNTS = "example:counts"


def to_lines(stage: Stage, text: bytes) -> Iterator[tuple[str, bytes]]:
    """Forward each line as soon as it is there."""
    for line in text.splitlines():
        if line:
            yield "lines", line


def to_words(stage: Stage, line: bytes) -> list[tuple[str, bytes]]:
    """Forward a line's words, all in one step."""
    return [("words", word.lower()) for word in re.findall(rb"[A-Za-z]+", line)]


def count(stage: Stage, word: bytes) -> None:
    """Be the end of it: forward nothing."""
    job = get_current_job()
    if job is not None:
        job.connection.hincrby(COUNTS, word.decode(), 1)


text = Stage("text", to_lines)
lines = Stage("lines", to_words)
words = Stage("words", count)


def zen() -> bytes:
    """Return the text, which prints itself when it is imported."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this  # noqa: PLC0415 -- importing is the point
    return codecs.decode(this.s, "rot13").encode()


def main(url: str | None) -> None:
    """Push the text, let a pool work until nothing is left, and show what came of it."""
    with pysplash.open_server(url) as address, Redis.from_url(address) as redis:
        redis.delete(COUNTS)
        Stage("text", url=address).push(zen())
        pysplash.Pool(
            ["words", "lines", "text"], url=address, preload=["words"], burst=True, max_procs=2
        ).start()
        found = {word.decode(): int(number) for word, number in redis.hgetall(COUNTS).items()}
        redis.delete(COUNTS)
    print(f"{sum(found.values())} words, {len(found)} different")
    for word, number in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:5]:
        print(f"{number:3} {word}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--url", help="use this server, not an embedded one")
    main(parser.parse_args().url)
