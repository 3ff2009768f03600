"""The queue watch: one look at the queues for all idle workers of a pool.

Only for servers that do not tell of changed keys (``CLIENT TRACKING`` is refused). It looks often
while jobs come and seldom while none do, in a thread of its own with a connection of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from redis import Redis
from redis.exceptions import RedisError
from rq.suspension import WORKERS_SUSPENDED

from pysplash.log import logger
from pysplash.worker.notices import LONGEST_PAUSE, pause_after
from pysplash.worker.scoreboard import Scoreboard

from .backlog import QUEUE_KEY

#: seconds until its thread has ended, once it is told to
END = 5.0

log = logger("pool")


class QueueWatch:
    """Sends notices to the idle workers of *board* while jobs wait in *queues*."""

    def __init__(
        self,
        connection: Redis,
        queues: Sequence[str],
        board: Scoreboard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._keys = [QUEUE_KEY.format(name) for name in queues]
        self._board = board
        self._clock = clock
        self._came_at = clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no longer."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(END)
        self._connection.close()

    def _run(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = self.look()

    def look(self) -> float:
        """Look once; return the seconds until the next look."""
        idle = self._board.idle_before(self._board.slots)
        if idle:
            try:
                waiting = self._waiting()
            except RedisError as error:
                log.debug("the queues cannot be looked at: %s", error)
                return LONGEST_PAUSE
            if waiting:
                self._came_at = self._clock()
                self._board.notices.send(min(waiting, idle))
        return pause_after(self._clock() - self._came_at)

    def _waiting(self) -> int:
        """Return how many jobs wait; none do while RQ is suspended."""
        with self._connection.pipeline(transaction=False) as pipeline:
            for key in self._keys:
                pipeline.llen(key)
            pipeline.exists(WORKERS_SUSPENDED)
            *lengths, suspended = pipeline.execute(raise_on_error=False)
        if isinstance(suspended, Exception):
            raise suspended
        return 0 if suspended else sum(each for each in lengths if isinstance(each, int))
