"""Scripts sent by their hash, and as text to a server that does not have them (any longer).

A server forgets its scripts when it starts anew, and at SCRIPT FLUSH. It then runs nothing of what
was sent, so that sending it again does nothing twice. The SCRIPT command is not needed: servers and
users may be without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from redis import Redis

#: a script's keys, which a server may track, and its other words
ScriptCall = tuple[Sequence[str], Sequence[Any]]


@lru_cache(maxsize=64)
def sha(text: str) -> str:
    """Return the hash under which the server keeps a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Script:
    """A script, for any client of redis-py."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def sha(self) -> str:
        """The hash under which the server keeps it."""
        return sha(self.text)

    def run(self, client: Redis, words: Sequence[Any], keys: Sequence[str] = ()) -> Any:
        """Run it and return its reply; raise redis's errors."""
        try:
            return client.evalsha(self.sha, len(keys), *keys, *words)
        except Exception as error:
            if not _is_unknown(error):
                raise
        return client.eval(self.text, len(keys), *keys, *words)

    def run_for_all(self, client: Redis, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run it once for each of *calls*, in one packet; return the replies, errors as they are.

        Raises redis's errors where no reply came.
        """
        replies: list[Any] = [None] * len(calls)
        left, known = list(range(len(calls))), True
        while left:
            with client.pipeline(transaction=False) as pipeline:
                for number in left:
                    keys, words = calls[number]
                    if known:
                        pipeline.evalsha(self.sha, len(keys), *keys, *words)
                    else:
                        pipeline.eval(self.text, len(keys), *keys, *words)
                    known = True
                for number, reply in zip(left, pipeline.execute(raise_on_error=False), strict=True):
                    replies[number] = reply
            left, known = [n for n in left if _is_unknown(replies[n])], False
        return replies


def _is_unknown(reply: Any) -> bool:
    """Return whether a reply says that the server lacks the script, by redis-py or its like."""
    return type(reply).__name__ == "NoScriptError"
