"""A worker's connection for its scripts: named, told of changes, and the only one that claims.

What was sent over a lost connection and is not yet read could be a claim, made after somebody
looked for it. So the server is asked to close that connection. Where it may not (``CLIENT KILL`` is
refused), each script first looks whether its connection is declared lost, and does nothing then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from redis import Redis
from redis.exceptions import ResponseError

from pysplash.connections.abilities import Abilities, find_out
from pysplash.connections.clients import numbers
from pysplash.connections.direct import DirectConnection, Word, packed
from pysplash.jobs.store_and_claim import CLOSED, CLOSED_TTL, FENCE
from pysplash.log import logger

#: asks the server to tell of changes of what the next command looks at
CACHING = ("CLIENT", "CACHING", "YES")
_CACHING = packed(*CACHING)

log = logger("worker")


class ScriptConnection(DirectConnection):
    """The connection of one *worker* over which its scripts are run."""

    def __init__(self, client: Redis, worker: str) -> None:
        super().__init__(client)
        self._worker = worker
        self.abilities = Abilities()
        #: the digest of each script
        self._digests: dict[str, str] = {}
        #: the key that declares this connection lost, where no other connection may close it
        self._closed: tuple[str, ...] = ()
        #: numbers and keys of connections that were lost, until the server knows
        self._lost: set[int] = set()
        self._lost_keys: set[str] = set()

    def connect(self) -> None:
        """Connect; see that nothing sent over the connection before is done any more."""
        super().connect()
        self._digests.clear()
        self._lost.add(self.abilities.number)
        self._lost_keys.update(self._closed)
        self.abilities, self._closed = Abilities(), ()
        self.abilities = find_out(self, self._worker)
        for key in self._lost_keys:
            self.call("SET", key, "1", "EX", CLOSED_TTL)
        self._lost_keys.clear()
        lost = self._lost - {0, self.abilities.number}
        if not self.abilities.closing:
            self._closed = (CLOSED.format(f"{self._worker}:{os.urandom(8).hex()}"),)
        elif lost:
            self._cut_off(lost.__contains__)
        self._lost.clear()

    @property
    def caching(self) -> bytes:
        """What asks the server to tell of changes of what the next command reads; may be empty."""
        return _CACHING if self.abilities.tracking else b""

    def run(self, script: str, keys: Sequence[str] = ()) -> tuple[Word, ...]:
        """Return the words that run *script*, loaded if need be; its arguments follow.

        *keys* are those whose changes are to be told of: some servers remember no others.
        """
        digest = self._digests.get(script)
        if digest is None:
            text = script if self.abilities.closing else FENCE + script
            digest = self._digests[script] = self.call("SCRIPT", "LOAD", text).decode()
        declared = (*keys, *self._closed)
        return ("EVALSHA", digest, len(declared), *declared)

    def forget_scripts(self) -> None:
        """Load each script again before it is run: the server has lost them."""
        self._digests.clear()

    def cut_off_others(self) -> None:
        """Have the server close all other connections of this worker, if it may."""
        if not self.open:
            self.connect()
        self._cut_off(lambda number: number != self.abilities.number)

    def _cut_off(self, lost: Callable[[int], bool]) -> None:
        """Have the server close the connections of this worker whose numbers are *lost*."""
        try:
            for number in numbers(self.call("CLIENT", "LIST"), self._worker):
                if lost(number):
                    self.call("CLIENT", "KILL", "ID", number)
        except ResponseError as error:
            log.debug("worker %s: connections cannot be closed: %s", self._worker, error)
