"""Which queue a call goes to, and for how long what was read of the pools is believed. No I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from pysplash.errors import CallError, NoWorkerError, UnknownTask

from .discovery import PoolFacts

#: seconds for which what was read of the pools is believed where nothing contradicts it
BELIEVED = 5.0
#: seconds between two looks for a pool
PAUSE = 0.1
#: how often a call whose pools have all just left looks for others
TRIES = 5


@dataclass(frozen=True, slots=True)
class Route:
    """How a task is reached now: its queue, its limit, and the keys of the pools that serve it."""

    task: str
    queue: str
    timeout: int | None
    serializer: str | None
    pools: tuple[str, ...]
    #: whether each pool that may take the job knows bundles of bytes
    takes_bytes: bool = False


def find_route(pools: Sequence[PoolFacts], name: str) -> Route:
    """Return how the task *name* is reached; of several definitions, the youngest pool's.

    Raises :class:`UnknownTask` if no pool knows it, :class:`NoWorkerError` if none serves it.
    """
    if not pools:
        raise NoWorkerError(
            f"no pool is alive that could serve task {name!r}: start one, such as "
            "pysplash default --preload mymodule, on the same Redis"
        )
    knowing = [(pool, task) for pool in pools if (task := pool.task(name)) is not None]
    if not knowing:
        known = sorted({task.name for pool in pools for task in pool.tasks})
        listed = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
        raise UnknownTask(f"no pool knows a task {name[:80]!r}: there is {listed or 'none at all'}")
    serving = [(pool, task) for pool, task in knowing if pool.open and task.queue in pool.queues]
    if not serving:
        queues = ", ".join(sorted({task.queue for _, task in knowing}))
        raise NoWorkerError(
            f"no pool is alive that serves task {name!r} on its queue {queues}: "
            "start one that serves this queue and preloads the task's module"
        )
    youngest, task = max(serving, key=lambda pair: pair[0].started)
    alike = [
        pool.key
        for pool, other in serving
        if other.queue == task.queue and pool.serializer == youngest.serializer
    ]
    takes_bytes = all(pool.takes_bytes for pool in pools if task.queue in pool.queues)
    serializer = youngest.serializer
    return Route(name, task.queue, task.timeout, serializer, tuple(alike), takes_bytes)


class Routes:
    """What one client knows of the pools; times are monotonic seconds.

    *patience* is seconds a call waits for a pool that serves it. Thread-safe.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._pools: Sequence[PoolFacts] = ()
        self._found: dict[str, Route] = {}
        self._read_at: float | None = None

    def believed(self, name: str, now: float) -> Route | None:
        """Return how a task is reached; None if the pools have to be read first."""
        read_at = self._read_at
        if read_at is not None and now - read_at < BELIEVED:
            with contextlib.suppress(CallError):
                return self._find(name)
        return None

    def is_newer(self, moment: float) -> bool:
        """Return whether the pools were read at *moment* or later."""
        return self._read_at is not None and self._read_at >= moment

    def learn(self, pools: Sequence[PoolFacts], now: float) -> None:
        """Note what was read of the pools."""
        self._pools, self._found = pools, {}
        self._read_at = now

    def distrust(self) -> None:
        """Have the pools read again before the next call, as they did not take one."""
        self._read_at = None

    def find(self, name: str, asked: float, now: float) -> Route | None:
        """Return how a task is reached; None if the call, made when *asked*, waits for a pool.

        Raises what :func:`find_route` does.
        """
        try:
            return self._find(name)
        except NoWorkerError:
            if now >= asked + self._patience:
                raise
        return None

    def _find(self, name: str) -> Route:
        found, pools = self._found, self._pools
        route = found.get(name)
        if route is None:
            route = found[name] = find_route(pools, name)
        return route


def not_taken(name: str) -> NoWorkerError:
    """Return the error for a call that no pool took, however often others were looked for."""
    return NoWorkerError(f"the pools that serve task {name!r} come and go: try again")
