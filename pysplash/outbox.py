"""The outbox: calls on their way to Redis. Those that come while others are taken go together.

So a lone call goes at once, and of many that come one after the other each packet has several:
the server, the workers that it wakes and the client itself have less to do for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .answers import Answers
from .calls import ENQUEUE, Words
from .errors import CallError
from .mux import Mux

#: calls sent in one packet at most
MOST = 500
#: whoever waits for a call to be taken, and what ENQUEUE is given for it
Batch = Mapping[asyncio.Future[bool], Words]


class Outbox:
    """Enqueues calls over the connection of *answers*."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._waiting: dict[asyncio.Future[bool], Words] = {}
        self._sender: asyncio.Task[None] | None = None

    async def enqueue(self, words: Words) -> bool:
        """Send a call, as ENQUEUE takes it; return whether a pool was there to serve it.

        One that is given up before it was sent never is. Raises what :meth:`Answers.talk` does.
        """
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[taken] = words
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        try:
            return await taken
        finally:
            self._waiting.pop(taken, None)

    async def close(self) -> None:
        """Send nothing more; whoever waits gets an error."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        self._fail(self._waiting, CallError("the client was closed"))

    async def _send(self) -> None:
        while self._waiting:
            batch = dict(list(self._waiting.items())[:MOST])
            try:
                await self._answers.talk(lambda mux, batch=batch: self._ask(mux, batch))  # type: ignore[misc]
            except Exception as error:
                self._fail(batch, error)

    async def _ask(self, mux: Mux, batch: Batch) -> None:
        """Send what is still wanted of a batch, and tell each what became of it."""
        left = {taken: words for taken, words in batch.items() if not taken.done()}
        for taken in batch.keys() - left.keys():
            self._waiting.pop(taken, None)
        replies = await mux.script_for_all(ENQUEUE, list(left.values()))
        for taken, reply in zip(left, replies, strict=True):
            if isinstance(reply, Exception):
                self._fail([taken], self._answers.refused(reply))
            else:
                self._waiting.pop(taken, None)
                if not taken.done():
                    taken.set_result(bool(reply))

    def _fail(self, some: Any, error: Exception) -> None:
        for taken in list(some):
            self._waiting.pop(taken, None)
            if not taken.done():
                taken.set_exception(error)
