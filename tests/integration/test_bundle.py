"""A bundle whose calls go wrong, on a real server and where there is none."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from redis import Redis
from rq.job import Job

from pysplash.application.bundle import Bundle
from pysplash.application.handlers import Handler
from pysplash.jobs import bundles as parts


def upper(text: str) -> str:
    """Return it in capitals; fail for one."""
    if text == "c":
        raise LookupError(text)
    return text.upper()


def test_one_that_fails_is_told_with_the_answers_before_it(redis: Redis) -> None:
    """The list in Redis has them, and says that the call in hand is not to be made again."""
    with pytest.raises(LookupError):
        Bundle(upper, list("abcd"), Job("j", connection=redis)).run()

    entries: Any = redis.lrange("pysplash:parts:j", 0, -1)
    assert parts.read(entries) == parts.BundleProgress(["A", "B"], False)
    assert 0 < redis.ttl("pysplash:parts:j") <= parts.TTL


def flipped(data: bytes) -> bytes:
    """Return it with each bit turned; fail for none."""
    if not data:
        raise LookupError("nothing")
    return bytes(255 - each for each in data)


def test_bytes_are_told_as_they_are(redis: Redis) -> None:
    """Bytes that are no text in any encoding, and those that are."""
    payloads = [bytes(range(256)), b"=", b"", b"x"]
    with pytest.raises(LookupError):
        Bundle(Handler(flipped), payloads, Job("j", connection=redis), as_bytes=True).run()

    entries: Any = redis.lrange("pysplash:parts:j", 0, -1)
    assert parts.read(entries) == parts.BundleProgress([bytes(range(255, -1, -1)), b"\xc2"], False)


def test_without_redis_all_is_noted_once_more() -> None:
    """What was noted before may be wiped until somebody reads it."""
    kept: list[parts.Words] = []

    def keep(words: parts.Words) -> bool:
        kept.append(words)
        return True

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Redis(port=closed.getsockname()[1])
        bundle = Bundle(upper, list("abcd"), Job("j", connection=nobody), keep)
        with pytest.raises(LookupError):
            bundle.run()

    assert len(kept) == 6
    assert kept[3:] == [parts.note("j", 0), parts.note("j", 1, '"A"'), parts.note("j", 2, '"B"')]
