"""Each job starts with the process that the worker's first job had.

What a job has changed (:mod:`.traits` is the table) is put back once its function has ended, with
one line. What is cheap to read is looked at after each job; all of it once :data:`LOOK` seconds
have passed since the last look at all, after a job that imported something, and before the worker
waits for work. So a change of the dearer kind may reach jobs that follow within that time.

What a module sets while it is imported for a job stays, as it is not imported again, unless the
worker needs it as it was. If something cannot be put back, ``broken`` says so: the worker is to be
replaced.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from pysplash.log import logger

from .left_running import LeftRunning
from .standard_streams import StandardStreams
from .timeouts import TIMERS
from .traits import JOB_ID, TRAITS, Trait, differing

#: seconds between two looks at everything while jobs follow one another
LOOK = 0.01

log = logger("worker")
_environ: Any = os.environ._data  # type: ignore[attr-defined]

#: a change: the number of the trait, and its value
Change = tuple[int, Any]


class _Unreadable:
    """Stands for the value of what cannot be read."""


class ProcessState:
    """What this process was like at first; made as the worker is ready for its first job."""

    def __init__(self, traits: Sequence[Trait] = TRAITS) -> None:
        self._streams = StandardStreams()
        self._traits = (self._streams.trait(), *traits)
        self._first = [_kept(_value(trait)) for trait in self._traits]
        self._variables = next(value for value in self._first if isinstance(value, dict))
        self._cheap = [trait.read for trait in self._traits if trait.cheap]
        self._cheap_first: tuple[Any, ...] = ()
        self._note_cheap()
        reads = [trait.read for trait in self._traits]
        self._recursion = reads.index(sys.getrecursionlimit)
        #: the recursion limits of the jobs that wait while another runs inside them
        self._limits: list[int] = []
        self._modules = len(sys.modules)
        self._looked_at = time.monotonic()
        #: the last job's function, and whether something may have been changed that was not seen
        self._function, self._unseen = "", False
        self._left_running = LeftRunning()
        self._told: set[tuple[str, str]] = set()
        #: what cannot be put back; empty: everything is as it was
        self.broken = ""

    def close(self) -> None:
        """Give back what is kept to put things back."""
        self._streams.close()

    def tidy(self, function: str, *, imported: bool = False) -> bool:
        """Put back what a job of *function* has changed; return False if the worker cannot go on.

        *imported*: the job has imported the module of its function; what that set stays.
        """
        if imported:
            self.adopt()
        if not self._is_as_before():
            self._put_back(self._changes(), function)
            self._give_up(self._left_running.look(function))
        else:
            self._function, self._unseen = function, True
        return not self.broken

    def _is_as_before(self) -> bool:
        """Return whether nothing has changed, as far as is looked at now."""
        term, interrupt, stop, variables, folder = self._cheap
        self._variables[JOB_ID] = _environ.get(JOB_ID)
        try:
            if (term(), interrupt(), stop(), variables(), folder()) != self._cheap_first:
                return False
            if sys.stderr.closed:  # what is logged before it is put back would raise
                return False
        except (OSError, AttributeError):  # the working folder is gone, or the stream is no stream
            return False
        late = time.monotonic() - self._looked_at > LOOK
        return not late and len(sys.modules) == self._modules

    def tidy_all(self) -> None:
        """Look at everything, unless that was done after the last job."""
        if self._unseen:
            self._put_back(self._changes(), self._function)

    def adopt(self) -> None:
        """Keep what a module has set that was just imported for a job; call it as its job begins.

        Not what the worker needs as it was.
        """
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        self._streams.adopt()
        for number, value in self._changes():
            trait = self._traits[number]
            if not trait.needed and value is not _Unreadable:
                self._set_first(number, value)
                log.debug("an import changed %s: it stays so", trait.name)

    def _set_first(self, number: int, value: Any) -> None:
        if isinstance(value, dict):
            self._variables.clear()
            self._variables.update(value)
        else:
            self._first[number] = value
        self._note_cheap()

    def _note_cheap(self) -> None:
        pairs = zip(self._traits, self._first, strict=True)
        self._cheap_first = tuple(first for trait, first in pairs if trait.cheap)

    # --- jobs inside one another ---

    def set_aside(self) -> list[Change]:
        """Give the job that comes next, inside the present one, the process the first job had.

        Return what :meth:`restore` takes to give the present job its own back.
        """
        changes = [(number, _kept(value)) for number, value in self._changes()]
        for number, value in changes:
            self._set(number, self._first[number], value)
        self._limits.append(self._first[self._recursion])
        return changes

    def set_recursion_limit(self, limit: int) -> None:
        """Give the jobs that run inside another this limit."""
        sys.setrecursionlimit(limit)
        self._first[self._recursion] = limit

    def restore(self, changes: Sequence[Change]) -> None:
        """Give the job that goes on the process it had when it was set aside."""
        self._first[self._recursion] = self._limits.pop()
        for number, value in changes:
            self._set(number, value, _value(self._traits[number]))

    # --- one look ---

    def _changes(self) -> list[Change]:
        """Return all that differs from what it was at first."""
        found = []
        for number, trait in enumerate(self._traits):
            if trait.alarm and TIMERS.in_force:
                continue
            if self._first[number] is _Unreadable:
                continue
            value = _value(trait)
            if self._differs(number, value):
                found.append((number, value))
        self._modules = len(sys.modules)
        self._looked_at, self._unseen = time.monotonic(), False
        return found

    def _differs(self, number: int, value: Any) -> bool:
        first = self._first[number]
        if isinstance(first, dict) and isinstance(value, dict):
            return bool(differing(first, value))
        return bool(first != value)

    def _put_back(self, changes: Sequence[Change], function: str) -> None:
        """Put back all *changes*, then say so: the log may need what was changed."""
        done = []
        for number, value in changes:
            trait, what = self._traits[number], self._traits[number].name
            if isinstance(value, dict):
                what += " (" + ", ".join(differing(self._first[number], value)) + ")"
            self._set(number, self._first[number], value)
            done.append((trait, what, not self._differs(number, _value(trait))))
        for trait, what, is_well in done:
            if not is_well:
                self._give_up(f"{function} changed {what}, which cannot be put back")
            elif not trait.quiet:
                self._tell(function, what)

    def _give_up(self, why: str) -> None:
        if why and not self.broken:
            self.broken = why
            log.warning("a pool's worker is replaced: %s", why, extra={"action": "leavings"})

    def _set(self, number: int, wanted: Any, present: Any) -> None:
        try:
            self._traits[number].put_back(wanted, present)
        except Exception as error:
            log.debug("%s cannot be put back: %s", self._traits[number].name, error)

    def _tell(self, function: str, what: str) -> None:
        """Say what was put back: once for each function as a warning, then at the debug level."""
        told = (function, what) in self._told
        self._told.add((function, what))
        log.log(
            logging.DEBUG if told else logging.WARNING,
            "%s changed %s: put back for the next job",
            function,
            what,
            extra={"action": "put-back", "function": function},
        )


def _value(trait: Trait) -> Any:
    try:
        return trait.read()
    except Exception:
        return _Unreadable


def _kept(value: Any) -> Any:
    """Return *value* so that it stays what it is: a table that goes on changing is copied."""
    return dict(value) if isinstance(value, dict) else value


def is_new(function: str) -> bool:
    """Return whether the module of *function* is still to be imported."""
    return function.rpartition(".")[0] not in sys.modules
