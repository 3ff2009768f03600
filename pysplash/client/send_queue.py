"""Calls of one event loop on their way to Redis: those that come while others are go together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from pysplash.connections.multiplexed import MultiplexedConnection
from pysplash.connections.scripts import ScriptCall
from pysplash.errors import CallError

from .async_transport import AnswerStream
from .requests import ENQUEUE

#: calls sent in one packet at most
MOST = 500
#: whoever waits for a call to be taken, and what ENQUEUE is given for it
Batch = Mapping[asyncio.Future[bool], ScriptCall]


class SendQueue:
    """Enqueues calls over the connection of *answers*, many in one packet."""

    def __init__(self, answers: AnswerStream) -> None:
        self._answers = answers
        self._waiting: dict[asyncio.Future[bool], ScriptCall] = {}
        self._sender: asyncio.Task[None] | None = None

    async def enqueue(self, call: ScriptCall) -> bool:
        """Send a call, as ENQUEUE takes it; return whether a pool was there to serve it.

        One that is given up before it was sent never is. Raises what
        :meth:`AnswerStream.talk` does.
        """
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[taken] = call
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
                await self._answers.talk(partial(self._ask, batch))
            except Exception as error:
                self._fail(batch, error)

    async def _ask(self, batch: Batch, connection: MultiplexedConnection) -> None:
        """Send the calls of a batch that were not given up; give each its result."""
        left = {taken: call for taken, call in batch.items() if not taken.done()}
        for taken in batch.keys() - left.keys():
            self._waiting.pop(taken, None)
        replies = await connection.script_for_all(ENQUEUE.text, list(left.values()))
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
