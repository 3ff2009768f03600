"""A row of the scoreboard, read: what one worker says of itself."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from pysplash.control.model import WorkerState

STATES = tuple(WorkerState)
#: state, whether it listens, whether it left unsaid, pid, since, beat, job started, job timeout,
#: seconds held before the job, jobs, failed, name, execution, job id
FIELDS = "B??xxxxx q d d d d d Q Q 64s 40s H 255s"
VALUES = struct.Struct("<" + FIELDS)


@dataclass(frozen=True, slots=True)
class Row:
    """One worker's row, as last written."""

    name: str
    pid: int
    state: WorkerState
    since: float
    beat: float
    job_started: float | None = None
    job_timeout: float | None = None
    jobs: int = 0
    failed: int = 0
    job_id: str = ""
    execution_id: str = ""
    #: whether the worker heeds :meth:`Scoreboard.ask`
    listens: bool = False
    #: whether it left and could not say so in Redis
    unsaid: bool = False
    #: name of the function of the job, or of the last one
    function: str = ""
    #: seconds it was held by the fast loop, ever and in the present job
    held: float = 0.0
    held_in_job: float = 0.0


def decode(raw: bytes, function: bytes, held: float) -> Row:
    """Return what the values of a row say, with the function's name and the seconds held."""
    (
        state,
        listens,
        unsaid,
        pid,
        since,
        beat,
        started,
        timeout,
        held_before,
        jobs,
        failed,
        name,
        execution,
        length,
        job,
    ) = VALUES.unpack(raw)
    return Row(
        name=_text(name),
        pid=pid,
        state=STATES[state],
        since=since,
        beat=beat,
        job_started=None if math.isnan(started) else started,
        job_timeout=None if math.isnan(timeout) else timeout,
        jobs=jobs,
        failed=failed,
        job_id=job[:length].decode(errors="replace"),
        execution_id=_text(execution),
        listens=listens,
        function=_text(function),
        unsaid=unsaid,
        held=held,
        held_in_job=0.0 if math.isnan(started) else max(0.0, held - held_before),
    )


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
