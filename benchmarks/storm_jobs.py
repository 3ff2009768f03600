"""The jobs of a storm, and the log they keep of their runs, as workers import them.

A run writes a line when it begins and a line when it ends, and holds the lock on its job's byte of
a file in between. The system lets go of the lock when the process dies, however it dies, so
whoever finds the lock taken runs beside another run that still lives: no clock is asked.
"""

from __future__ import annotations

import fcntl
import functools
import os
import secrets
import time
from pathlib import Path

from rq import get_current_job

RUNS, LOCKS = "runs", "locks"


class Meant(Exception):
    """A job fails because it is meant to."""


class Log:
    """One process's hold on the log in *folder*."""

    def __init__(self, folder: str) -> None:
        self._runs = os.open(Path(folder, RUNS), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._locks = os.open(Path(folder, LOCKS), os.O_RDWR | os.O_CREAT, 0o600)

    def begin(self, job_id: str) -> str:
        """Note that a run of the job begins, alone or beside another; return the run's id."""
        run = secrets.token_hex(6)
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number_of(job_id))
        except OSError:
            company = "beside"
        else:
            company = "alone"
        self._write(f"begin {run} {job_id} {company}\n")
        return run

    def end(self, job_id: str, run: str, how: str) -> None:
        """Note that a run ends."""
        self._write(f"end {run} {how}\n")
        fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, number_of(job_id))

    def _write(self, line: str) -> None:
        os.write(self._runs, line.encode())


def number_of(job_id: str) -> int:
    """Return the number at the end of a job's id."""
    return int(job_id.rpartition("-")[2])


@functools.cache
def _log(folder: str, _pid: int) -> Log:
    """Return this process's log; locks belong to a process, so a fork opens its own."""
    return Log(folder)


def run(folder: str, job_id: str, seconds: float = 0.0, failures: int = 0) -> int:
    """Be a job that takes *seconds* and raises in its first *failures* attempts."""
    log = _log(folder, os.getpid())
    name = log.begin(job_id)
    how = "raised"
    try:
        if seconds:
            time.sleep(seconds)
        if failures and _attempts() < failures:
            raise Meant(job_id)
        how = "returned"
    finally:
        log.end(job_id, name, how)
    return number_of(job_id)


def _attempts() -> int:
    """Return how often the current job has been retried."""
    job = get_current_job()
    return (job.number_of_retries or 0) if job else 0
