"""The recorder: writes one line of JSON a tick, for plots and replay."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pysplash.control.model import Action, Decision, Limits, PoolView, WorkerState
from pysplash.errors import ConfigError
from pysplash.log import logger

from .format import FactWriter

log = logger("recorder")


class Recorder:
    """Appends ticks to a file; a full disk does not disturb the pool."""

    def __init__(self, path: str | Path, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._broken = False
        self._facts = FactWriter()
        try:
            self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise ConfigError(
                f"record file {str(path)!r} cannot be written ({error.strerror}): "
                "give a path in a folder that exists and is yours"
            ) from error

    def write(self, view: PoolView, decision: Decision, limits: Limits) -> None:
        """Append one tick, with all that is needed to decide it again."""
        tick = entry(self._wall_clock(), view, decision)
        tick["view"] = self._facts.write(view, limits)
        line = json.dumps(tick, separators=(",", ":"))
        try:
            self._file.write(line + "\n")
            self._broken = False
        except OSError as error:
            self._facts.start_over()
            if not self._broken:
                log.error("the record cannot be written: %s", error, extra={"action": "record"})
            self._broken = True

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            log.error("the record is incomplete: %s", error, extra={"action": "record"})


def entry(t: float, view: PoolView, decision: Decision) -> dict[str, Any]:
    """Return one tick as it is recorded; *t* in seconds since the epoch."""
    states = Counter(
        WorkerState.STOPPING if worker.stopping else worker.state for worker in view.workers
    )
    latest = view.samples[-1] if view.samples else None
    return {
        "t": round(t, 3),
        "cpu": round(latest.cpu, 1) if latest else None,
        "mem": round(latest.mem, 1) if latest else None,
        "mem_bytes": latest.pool_mem if latest else None,
        "held": round(latest.held, 3) if latest else None,
        "queued": view.queued,
        "oldest": None if view.oldest is None else round(view.oldest, 3),
        **{state.value: states[state] for state in WorkerState},
        "target": decision.target,
        "reason": decision.reason.value,
        "actions": [action_entry(action) for action in decision.actions],
    }


def action_entry(action: Action) -> dict[str, Any]:
    """Return one action as a JSON object whose ``kind`` is its name in lower case."""
    return {"kind": type(action).__name__.lower(), **asdict(action)}
