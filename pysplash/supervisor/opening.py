"""Opening the real devices of a pool: everything outside its own process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from redis import Redis

from pysplash.config import WorkerSettings
from pysplash.connections.clients import address, own
from pysplash.control.model import Limits
from pysplash.host.capacity import Host
from pysplash.host.sampling import Sampler
from pysplash.host.signals import SignalQueue
from pysplash.jobs.commands import CommandListener
from pysplash.log import logger
from pysplash.recording.writer import Recorder
from pysplash.worker.notices import LONGEST_PAUSE, SHORTEST_PAUSE
from pysplash.worker.scoreboard import Scoreboard

from .backlog import Backlog
from .devices import Devices
from .forkserver.client import ForkServerPlan, Processes
from .forkserver.preloading import warning_filters
from .heartbeats import Heartbeats
from .lessons import LessonStore
from .presence import Presence
from .queue_watch import QueueWatch
from .settlement import Settlement

log = logger("pool")

#: seconds Redis has to answer the loop; a hung Redis must not hold it up
GLANCE = 0.4


def open_devices(
    connection: Redis,
    settings: WorkerSettings,
    *,
    slots: int,
    preload: tuple[str, ...],
    terminate: float,
    on_crash: str,
    record: str | Path | None,
    limits: Limits | None = None,
    config: str | None = None,
    tracking: bool = True,
) -> Devices:
    """Return the real devices; no process is started yet. *limits* are the throttler's.

    *tracking* says whether the server tells workers of new jobs.
    """
    recorder = Recorder(record) if record is not None else None
    board = Scoreboard(slots)
    notices = board.notices.fileno()
    plan = ForkServerPlan(
        settings,
        board.fd,
        notices,
        slots,
        preload,
        terminate,
        limits,
        config,
        warning_filters(),
        tuple(sys.argv),
    )
    glancing = own(connection, GLANCE)
    watch = None if tracking else _watch(connection, settings, board)
    return Devices(
        clock=time.monotonic,
        signals=SignalQueue(),
        processes=Processes(plan),
        board=board,
        sampler=Sampler(Host()),
        backlog=Backlog(glancing, settings.queues),
        settlement=Settlement(connection, settings, on_crash),
        heartbeats=Heartbeats(glancing, settings.worker_ttl + 60),
        commands=CommandListener(own(connection, GLANCE)),
        lessons=LessonStore(glancing),
        recorder=recorder,
        presence=Presence(glancing, settings, terminate),
        queue_watch=watch,
    )


def _watch(connection: Redis, settings: WorkerSettings, board: Scoreboard) -> QueueWatch:
    """Look at the queues for all workers, as the server does not tell them of new jobs."""
    log.info(
        "Redis at %s does not tell of new jobs (no CLIENT TRACKING): the pool looks for them "
        "every %.0f to %.0f ms",
        address(connection),
        1000 * SHORTEST_PAUSE,
        1000 * LONGEST_PAUSE,
        extra={"action": "no-tracking"},
    )
    watch = QueueWatch(own(connection, GLANCE), settings.queues, board)
    watch.start()
    return watch
