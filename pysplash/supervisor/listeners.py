"""Listeners of the pool's own events, called by a thread, so that none holds up the loop."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pysplash.events import OF_THE_POOL, registered, tell
from pysplash.log import Seldom, logger

#: events that wait for slow listeners at most, and seconds between two lines on lost ones
MOST, COMPLAIN = 1000, 60.0
#: seconds that listeners get at a pool's end
END = 5.0

log = logger("events")
_Listeners = Iterable[Callable[..., Any]]


class ListenerThread:
    """Tells listeners the pool's events in order; there is no thread until one is to be told."""

    def __init__(self) -> None:
        self._events: queue.Queue[tuple[_Listeners, object] | None] = queue.Queue(MOST)
        self._thread: threading.Thread | None = None
        self._complaint = Seldom(COMPLAIN)

    def tell(self, listeners: _Listeners, event: object) -> None:
        """Have *listeners* told of *event*; lost, with a line, while a thousand others wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pysplash-events", daemon=True)
            self._thread.start()
        try:
            self._events.put_nowait((listeners, event))
        except queue.Full:
            if self._complaint.due(time.monotonic()):
                log.error("events are lost, as a listener takes too long: %s", event)

    def _run(self) -> None:
        while (told := self._events.get()) is not None:
            tell(*told)

    def close(self, seconds: float = END) -> None:
        """Wait until all are told, *seconds* at most."""
        if self._thread is None:
            return
        try:
            self._events.put(None, timeout=seconds)
        except queue.Full:
            pass
        else:
            self._thread.join(seconds)
        if self._thread.is_alive():
            log.error("events are lost, as a listener takes longer than %.0f s", seconds)
        self._thread = None


def deaf(preloaded: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each function that listens where its event is never heard.

    *preloaded* are the events and functions that the fork server has, and so all workers.
    """
    here = registered()
    lines = [
        f"{place} listens to {event}, which happens in the pool's process, and its module is "
        "loaded in workers only: register it in the module of --config, or in the program that "
        "starts the pool"
        for event, place in preloaded
        if event in OF_THE_POOL and (event, place) not in here
    ]
    return lines + [
        f"{place} listens to {event}, which happens in workers, and they do not load the program "
        "that starts the pool: register it in a module of --preload"
        for event, place in here
        if event not in OF_THE_POOL and place.startswith("__main__.")
    ]
