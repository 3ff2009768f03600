"""A turn as it is sent: what does not depend on the moment is packed once.

A lone job's result waits for every word that is packed after the job's end.
"""

from __future__ import annotations

from collections.abc import Sequence

from pysplash.connections.direct import Word, packed
from pysplash.jobs.claim_one import NOTHING

#: words of a turn besides the queues
WORDS = 22


def bare(*words: Word) -> bytes:
    """Return *words* as they are sent within a command."""
    return packed(*words).partition(b"\n")[2]


#: the counters and the outcome of a turn that stores nothing
NONE = bare(0, 0, *NOTHING)


class Packer:
    """Packs the turns of one worker, which has its key for *idle_ttl* seconds."""

    def __init__(self, worker: str, idle_ttl: int) -> None:
        self._worker = worker
        self._idle_ttl = idle_ttl
        #: the script, the longest lease and the queues for which the parts that stay are packed
        self._kind: tuple[str, int, Sequence[str]] = ("", 0, ())
        self._begin = self._end = b""
        #: what stands after the moment in a turn that does not refresh the worker's key, or does
        self._middle = (b"", b"")

    def turn(
        self,
        kind: tuple[str, int, Sequence[str]],
        moment: tuple[str, str],
        refresh: bool,
        outcome: bytes,
        execution: str,
    ) -> bytes:
        """Return a turn of a *kind* (its script, its longest lease, the queues to claim from).

        *moment* is the time in seconds and as RQ writes it, *outcome* the worker's counters and
        what is stored, *execution* that by which a job is claimed.
        """
        if kind != self._kind:
            self._learn(*kind)
        now, stamp = moment
        text = f"${len(now)}\r\n{now}\r\n${len(stamp)}\r\n{stamp}\r\n"
        claim = f"${len(execution)}\r\n{execution}\r\n"
        parts = (self._begin, text.encode(), self._middle[refresh], outcome, claim.encode())
        return b"".join((*parts, self._end))

    def _learn(self, script: str, cap: int, queues: Sequence[str]) -> None:
        self._begin = b"*%d\r\n" % (WORDS + len(queues))
        self._begin += bare("EVALSHA", script, 0, self._worker)
        self._middle = (bare(cap, self._idle_ttl, 0), bare(cap, self._idle_ttl, 1))
        self._end = bare(*queues) if queues else b""
        self._kind = (script, cap, queues)
