"""The roster: who is in the pool, since when, and what has been asked of whom. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pysplash.control.model import NEVER, Reason, WorkerState, WorkerView

#: seconds a worker must last, without a job, for its start to count as a success
PROVEN = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the scoreboard and the operating system say of one worker."""

    state: WorkerState
    since: float
    beat: float
    jobs: int = 0
    failed: int = 0
    job_started: float | None = None
    job_timeout: float | None = None
    job_id: str = ""
    execution_id: str = ""
    #: whether the pool speaks for this worker in Redis
    listens: bool = False
    #: whether it left and could not say so there
    unsaid: bool = False
    function: str = ""
    #: seconds it was held by the fast loop, ever and in the present job
    held: float = 0.0
    held_in_job: float = 0.0
    #: part of the last interval in which it was held
    held_share: float = 0.0


@dataclass(slots=True)
class Entry:
    """One worker's place in the roster."""

    name: str
    slot: int
    spawned_at: float
    pid: int = 0
    stop_at: float | None = None
    stop_reason: Reason | None = None
    kill_at: float | None = None
    kill_reason: Reason | None = None


class Roster:
    """All workers of the pool, from the request for one until its exit has been seen."""

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

    def add(self, name: str, now: float) -> Entry:
        """Enter a worker that has been asked for, in a free slot."""
        entry = self._entries[name] = Entry(name, self._free.pop(), now)
        return entry

    def spawned(self, name: str, pid: int) -> None:
        """Note that the worker's process exists."""
        if name in self._entries:
            self._entries[name].pid = pid

    def remove(self, name: str) -> Entry:
        """Strike a worker whose exit was seen; its slot is free again."""
        entry = self._entries.pop(name)
        self._free.append(entry.slot)
        return entry

    def ask_to_stop(self, name: str, now: float, reason: Reason) -> None:
        """Note a stop; it is asked once."""
        entry = self._entries[name]
        entry.stop_at, entry.stop_reason = now, reason

    def ask_to_die(self, name: str, now: float, reason: Reason) -> None:
        """Note a kill."""
        entry = self._entries[name]
        entry.kill_at, entry.kill_reason = now, reason

    def judge_exit(self, entry: Entry, facts: Facts | None, well: bool, now: float) -> bool:
        """Return whether an exit counts as a failed start, and count it if so.

        *well* says whether the process ended with status 0.
        """
        unready = facts is None or facts.state is WorkerState.STARTING
        self.ever_ready |= not unready
        idle = facts is None or not (facts.jobs or facts.job_id)
        early = idle and not well and now - entry.spawned_at < PROVEN
        failed = entry.stop_at is None and (unready or early)
        if failed:
            self.boot_failures += 1
            self.boot_failed_at = now
        return failed

    def views(
        self,
        facts: dict[str, Facts],
        pss: Callable[[int], int | None],
        cores: Callable[[int], float | None],
        now: float,
    ) -> tuple[WorkerView, ...]:
        """Return every worker as the policy is to see it, and take note of good starts."""
        views = tuple(
            self._view(entry, facts.get(entry.name), pss(entry.pid), cores(entry.pid))
            for entry in self
        )
        for view in views:
            self._note_good_start(view, now)
        return views

    def _view(
        self, entry: Entry, facts: Facts | None, pss: int | None, cores: float | None
    ) -> WorkerView:
        at = entry.spawned_at
        facts = facts or Facts(WorkerState.STARTING, at, at)
        return WorkerView(
            name=entry.name,
            pid=entry.pid,
            state=facts.state,
            spawned_at=entry.spawned_at,
            since=facts.since,
            beat=max(facts.beat, entry.spawned_at),
            jobs=facts.jobs,
            failed=facts.failed,
            function=facts.function if facts.job_started is not None else "",
            job_started=facts.job_started,
            job_timeout=(
                None if facts.job_timeout is None else facts.job_timeout + facts.held_in_job
            ),
            pss=pss,
            cores=cores,
            held=facts.held_share,
            stop_at=entry.stop_at,
            stop_reason=entry.stop_reason,
            kill_at=entry.kill_at,
        )

    def _note_good_start(self, view: WorkerView, now: float) -> None:
        if view.state is WorkerState.STARTING:
            return
        self.ever_ready = True
        proven = view.jobs > 0 or now - view.spawned_at >= PROVEN
        if proven and view.spawned_at > self.boot_failed_at:
            self.boot_failures = 0
