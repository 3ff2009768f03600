"""Callbacks: a process for each job that failed because its worker died, where one is needed.

A job's failure callback, exception handlers and listeners are the application's code, so they run
in a process that the fork server forks as it does a worker. One runs one job's; those of one worker
follow one another, the innermost first. A process is started at most once for a job: what kills
it, or hangs in it, is named in the log, and the job's outcome stands.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from pysplash.host.processes import describe
from pysplash.jobs.abandoned import AbandonedJob
from pysplash.log import logger

from .devices import Devices

#: processes at once, and seconds each gets beyond the timeout of its job's callback
MOST, GRACE = 4, 60.0

log = logger("pool")


@dataclass(slots=True)
class _Running:
    job: AbandonedJob
    until: float
    late: bool = False


class CallbackProcesses:
    """Runs what is to be called for jobs whose workers died, at most MOST at once."""

    def __init__(self, pool: str, devices: Devices, handlers: Sequence[str] = ()) -> None:
        self._pool = pool
        self._devices = devices
        self._handlers = handlers
        self._waiting: list[AbandonedJob] = []
        self._running: dict[str, _Running] = {}
        #: whether a preloaded module listens to failures of jobs
        self.listened_to = False

    @property
    def busy(self) -> bool:
        """Whether anything is still to run."""
        return bool(self._waiting or self._running)

    def add(self, job: AbandonedJob) -> None:
        """Have run what is to be called for a job, if anything is."""
        if job.callback or self._handlers or self.listened_to:
            self._waiting.append(job)

    def turn(self) -> None:
        """Start what may start, and kill what takes too long."""
        now, processes = self._devices.clock(), self._devices.processes
        for name, running in self._running.items():
            if now >= running.until and not running.late:
                running.late = True
                processes.kill(name)
        while self._waiting and len(self._running) < MOST and processes.able():
            job = self._next()
            if job is None:
                break
            name = f"{self._pool}-callbacks-{secrets.token_hex(4)}"
            self._running[name] = _Running(job, now + job.callback_timeout + GRACE)
            processes.spawn(name, 0, role="callbacks", job=job)

    def _next(self) -> AbandonedJob | None:
        """Take the next job of a worker of which no other job's callback runs."""
        taken = {running.job.worker for running in self._running.values()}
        job = next((job for job in self._waiting if job.worker not in taken), None)
        if job is not None:
            self._waiting.remove(job)
        return job

    def note_exit(self, name: str, status: int | None, text: str) -> None:
        """Take note that the process *name* has ended, which may be one of these.

        *status* is None where it went with its fork server.
        """
        running = self._running.pop(name, None)
        if running is None or status == 0:
            return
        how = "its fork server died" if status is None else text or describe(status)
        self._warn(running.job, "took too long" if running.late else how)

    def close(self) -> None:
        """Say what was not run, or not to its end, as the pool has ended."""
        for running in self._running.values():
            self._warn(running.job, "the pool has ended meanwhile")
        for job in self._waiting:
            self._warn(job, "the pool has ended before")
        self._running.clear()
        self._waiting.clear()

    def _warn(self, job: AbandonedJob, why: str) -> None:
        log.warning(
            "job %s: its failure callback and exception handlers may not have run to their end "
            "and are not run again: %s",
            job.id,
            why,
            extra={"action": "callbacks", "job": job.id},
        )
