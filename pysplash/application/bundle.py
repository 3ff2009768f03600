"""A bundle: several calls of one task as one job, for tasks so brief that a job costs more.

It begins no other call once it has taken as long as a job may that keeps others waiting; what it
has not begun, its caller sends again. Should one of them take long, fail, or be ended, those before
it have their answers all the same: see :mod:`pysplash.jobs.bundles`, also for its two forms.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any

from rq.job import Job
from rq.timeouts import BaseTimeoutException

from pysplash.connections.direct import DirectConnection
from pysplash.jobs.bundles import HELD, Keep, Words, commands, note
from pysplash.log import logger
from pysplash.waiting.offer import attached
from pysplash.worker.timeouts import TIMERS, StackingDeathPenalty

from .handlers import Handler, encode

#: seconds after which a bundle begins no other call, and after which it hands in what it has
ENOUGH, LATE = 0.002, 0.01

log = logger("worker")
_encode = json.JSONEncoder(allow_nan=False).encode


def keep(words: Words) -> bool:
    """Keep a note in memory that the pool reads if this process dies; False if it has no room."""
    slot = attached()
    return slot is None or slot.note(words)


class Bundle:
    """The calls of *function*, one with each of *payloads*, in *job*; *keep* keeps its notes.

    After *enough* seconds it begins no other. Payloads are base64 texts, or with *as_bytes* bytes;
    then a handler's answers stay bytes too. Any other task has base64 text in both forms.
    """

    def __init__(
        self,
        function: Callable[[str], Any],
        payloads: Sequence[Any],
        job: Job | None = None,
        keep: Keep = keep,
        enough: float = ENOUGH,
        *,
        as_bytes: bool = False,
    ) -> None:
        self._as_bytes = as_bytes
        self._call: Callable[[Any], Any] = function
        self._shown: Callable[[Any], str | bytes] = _encode
        if as_bytes:
            self._call, self._shown = _through(function)
        self._payloads = payloads
        self._job = job
        self._keep = keep
        self._enough = enough
        self._answers: list[str | bytes] = []
        self._handed_in = False

    def run(self) -> str | list[float | str | bytes]:
        """Return the seconds it took and the answers: a list in JSON, or *as_bytes* a list.

        If there is no room for its notes it makes no call.
        """
        began = time.monotonic()
        try:
            with self._watch():
                self._call_all(began + self._enough)
        except BaseException:
            self._hand_in()
            raise
        seconds = round(time.monotonic() - began, 6)
        if self._as_bytes:
            return [seconds, *self._answers]
        return f"[{','.join([f'{seconds:.6f}', *map(str, self._answers)])}]"

    def _call_all(self, until: float) -> None:
        if not self._note():
            return
        for payload in self._payloads:
            value = self._call(payload)
            if not isinstance(value, str | bytes) and asyncio.iscoroutine(value):
                value = asyncio.run(value)
            self._answers.append(self._shown(value))
            if not self._note() or self._handed_in or time.monotonic() > until:
                break

    def _note(self) -> bool:
        """Note what is done; return whether there was room."""
        if self._job is None or len(self._payloads) == 1:
            return True
        return self._keep(note(self._job.id, len(self._answers), *self._answers[-1:]))

    def _watch(self) -> AbstractContextManager[Any]:
        """Return a block in which a late call keeps no other waiting."""
        if len(self._payloads) == 1 or not TIMERS.in_force:
            return nullcontext()
        return _Late(self._hand_in)

    def _hand_in(self) -> None:
        """Let the caller have what is answered, and make elsewhere what is not begun, once.

        If that fails, all is noted once more: by the time this ends, what was may be wiped.
        """
        if self._handed_in or self._job is None or len(self._payloads) == 1:
            return
        self._handed_in = True
        # Not the connection that the function may be using at this moment.
        connection = DirectConnection(self._job.connection)
        try:
            connection.connect()
            for reply in connection.call_all(*commands(self._job.id, self._answers, HELD)):
                connection.checked(reply)
        except Exception as error:
            log.warning("job %s: its callers wait for all of it: %s", self._job.id, error)
            for count, answer in enumerate(("", *self._answers)):
                self._keep(note(self._job.id, count, answer))
        finally:
            connection.close()


def _through(
    function: Callable[[str], Any],
) -> tuple[Callable[[bytes], Any], Callable[[Any], str | bytes]]:
    """Return how a task is called with bytes, and how its answer is kept."""
    if isinstance(function, Handler):
        return function.on_bytes, bytes
    return (lambda data: function(encode(data))), _encode


class _Late(StackingDeathPenalty):
    """A timer that ends nothing: it does something once."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__(LATE, BaseTimeoutException)
        self._do = do

    def ring(self, frame: FrameType | None) -> None:
        """Do it."""
        self.remind()
        if not self._told:
            self._told = True
            self._do()
