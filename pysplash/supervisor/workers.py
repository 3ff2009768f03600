"""The table of workers: since when each runs, and what it was asked to do. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pysplash.control.model import NEVER, Reason, WorkerState, WorkerView
from pysplash.worker.row import Row

#: seconds a worker must last, without a job, for its start to count as a success
PROVEN = 5.0


@dataclass(slots=True)
class Entry:
    """One worker of the table."""

    name: str
    slot: int
    spawned_at: float
    pid: int = 0
    stop_at: float | None = None
    stop_reason: Reason | None = None
    kill_at: float | None = None
    kill_reason: Reason | None = None
    #: the job for whose sake it is killed, as a command asked to end it; whether to stop it
    ended_job: str = ""
    is_stop: bool = False


class WorkerTable:
    """All workers of the pool, from the request to start one until its exit."""

    def __init__(self, slots: int) -> None:
        self._entries: dict[str, Entry] = {}
        self._free = list(range(slots - 1, -1, -1))
        self.boot_failures = 0
        self.boot_failed_at = NEVER
        self.ever_ready = False

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> Entry | None:
        """Return the worker *name*, if it is there."""
        return self._entries.get(name)

    def add(self, name: str, now: float) -> Entry:
        """Add a worker that is to be started, in a free slot."""
        entry = self._entries[name] = Entry(name, self._free.pop(), now)
        return entry

    def spawned(self, name: str, pid: int) -> None:
        """Record the process of a worker."""
        if name in self._entries:
            self._entries[name].pid = pid

    def remove(self, name: str) -> Entry:
        """Remove a worker that has ended; its slot is free again."""
        entry = self._entries.pop(name)
        self._free.append(entry.slot)
        return entry

    def ask_to_stop(self, name: str, now: float, reason: Reason) -> Entry:
        """Record that a worker is asked to stop; this is done once."""
        entry = self._entries[name]
        entry.stop_at, entry.stop_reason = now, reason
        return entry

    def ask_to_die(self, name: str, now: float, reason: Reason) -> None:
        """Record that a worker is killed."""
        entry = self._entries[name]
        entry.kill_at, entry.kill_reason = now, reason

    def judge_exit(self, entry: Entry, row: Row | None, well: bool, now: float) -> bool:
        """Return whether an exit counts as a failed start, and count it if so.

        *well* says whether the process ended with status 0.
        """
        unready = row is None or row.state is WorkerState.STARTING
        self.ever_ready |= not unready
        idle = row is None or not (row.jobs or row.job_id)
        early = idle and not well and now - entry.spawned_at < PROVEN
        failed = entry.stop_at is None and (unready or early)
        if failed:
            self.boot_failures += 1
            self.boot_failed_at = now
        return failed

    def views(
        self,
        rows: Mapping[str, Row],
        held: Mapping[str, float],
        pss: Callable[[int], int | None],
        cores: Callable[[int], float | None],
        now: float,
    ) -> tuple[WorkerView, ...]:
        """Return every worker as the policy sees it, and record good starts.

        *held* is the share of the last interval in which the worker was held, by name.
        """
        views = tuple(
            _view(
                entry,
                rows.get(entry.name),
                held=held.get(entry.name, 0.0),
                pss=pss(entry.pid),
                cores=cores(entry.pid),
            )
            for entry in self
        )
        for view in views:
            self._note_good_start(view, now)
        return views

    def _note_good_start(self, view: WorkerView, now: float) -> None:
        if view.state is WorkerState.STARTING:
            return
        self.ever_ready = True
        proven = view.jobs > 0 or now - view.spawned_at >= PROVEN
        if proven and view.spawned_at > self.boot_failed_at:
            self.boot_failures = 0


def _view(
    entry: Entry, row: Row | None, *, held: float, pss: int | None, cores: float | None
) -> WorkerView:
    at = entry.spawned_at
    row = row or Row(entry.name, entry.pid, WorkerState.STARTING, at, at)
    return WorkerView(
        name=entry.name,
        pid=entry.pid,
        state=row.state,
        spawned_at=at,
        since=row.since,
        beat=max(row.beat, at),
        jobs=row.jobs,
        failed=row.failed,
        function=row.function if row.job_started is not None else "",
        job_started=row.job_started,
        job_timeout=None if row.job_timeout is None else row.job_timeout + row.held_in_job,
        pss=pss,
        cores=cores,
        held=held,
        stop_at=entry.stop_at,
        stop_reason=entry.stop_reason,
        kill_at=entry.kill_at,
    )
