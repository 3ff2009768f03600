"""The scoreboard: a table in shared memory, one row a worker.

Each worker writes its own row, the pool reads all of them; nobody waits for anybody. A row
carries a sequence number that is odd while the row is being written, so a reader knows a torn
row and reads it again. No lock can be left held by a worker that is killed.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pysplash.control.model import WorkerState
from pysplash.jobs.store_and_claim import MAX_JOB_ID

from .journal import SIZE, Journal
from .notices import Notices
from .row import FIELDS, STATES, VALUES, Row, decode

ROW_SIZE = 512
_NUMBERS = {state: number for number, state in enumerate(STATES)}
_IDLE = _NUMBERS[WorkerState.IDLE]
_BUSY = _NUMBERS[WorkerState.BUSY]

_SEQUENCE = struct.Struct("<Q")
#: the row after its sequence number: packed in this order
_WHOLE = struct.Struct("<Q" + FIELDS)
_READ_ATTEMPTS = 8
#: the end of a row is the pool's: a digest of the id of the job that is to be stopped
_DIGEST = 16
#: before it stands the function of the job, which seldom changes, and before that the seconds for
#: which the fork server has held the worker
_FUNCTION = 44
_HELD = struct.Struct("<d")
#: before that, two bytes: the pool asks for a stop; the worker has ended the job it was asked to
_LEAVE = ROW_SIZE - _DIGEST - _FUNCTION - _HELD.size - 1
_HEEDED = _LEAVE - 1
#: asks for whatever job runs to be stopped
ANY = bytes(_DIGEST)


class Scoreboard:
    """The table. The pool creates it; workers inherit its file descriptor.

    Beside it are the *notices* by which the pool wakes idle workers.
    """

    def __init__(self, slots: int, fd: int | None = None, notices: int | None = None) -> None:
        self.slots = slots
        self.notices = Notices(notices)
        size = slots * (ROW_SIZE + SIZE)
        self.fd = _anonymous_file(size) if fd is None else fd
        self._map = mmap.mmap(self.fd, size)

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()
        os.close(self.fd)
        self.notices.close()

    def clear(self, index: int) -> None:
        """Empty row *index*, and its journal, before another worker gets it."""
        self._map[index * ROW_SIZE : (index + 1) * ROW_SIZE] = bytes(ROW_SIZE)
        self.journal(index).clear()

    def journal(self, index: int) -> Journal:
        """Return where the worker of row *index* writes down outcomes until they are stored."""
        return Journal(self._map, self.slots * ROW_SIZE + index * SIZE)

    def outcomes(self, index: int) -> list[tuple[str, ...]]:
        """Return the outcomes that the worker of row *index* has written down."""
        return self.journal(index).read()

    def read(self, index: int) -> Row | None:
        """Return row *index*, or None as long as its worker has written nothing."""
        start = index * ROW_SIZE
        raw = b""
        for _ in range(_READ_ATTEMPTS):
            before = _SEQUENCE.unpack_from(self._map, start)[0]
            raw = self._map[start + _SEQUENCE.size : start + _SEQUENCE.size + VALUES.size]
            if before % 2 == 0 and before == _SEQUENCE.unpack_from(self._map, start)[0]:
                break
        end = start + ROW_SIZE - _DIGEST
        if not before:
            return None
        return decode(raw, self._map[end - _FUNCTION : end], self.held(index))

    def held(self, index: int) -> float:
        """Return the seconds for which the worker of row *index* was held."""
        held: float = _HELD.unpack_from(*self.place_of_held(index))[0]
        return held

    def hold(self, index: int, seconds: float) -> None:
        """Add to the seconds for which the worker of row *index* was held; its parent's alone."""
        _HELD.pack_into(*self.place_of_held(index), self.held(index) + seconds)

    def busy(self, index: int) -> bool:
        """Return whether the worker of row *index* runs a job; at a glance."""
        return self._map[index * ROW_SIZE + _SEQUENCE.size] == _BUSY

    def place_of_held(self, index: int) -> tuple[mmap.mmap, int]:
        """Return where it stands how long the worker of row *index* was held."""
        return self._map, (index + 1) * ROW_SIZE - _DIGEST - _FUNCTION - _HELD.size

    def name_function(self, index: int, name: bytes) -> None:
        """Say which function the worker of row *index* runs."""
        end = (index + 1) * ROW_SIZE - _DIGEST
        self._map[end - _FUNCTION : end] = name.ljust(_FUNCTION, b"\0")

    def ask(self, index: int, name: str) -> None:
        """Name the job or execution the worker of row *index* is to stop; empty: whatever it runs.

        The worker looks when it gets the signal that follows.
        """
        end = (index + 1) * ROW_SIZE
        self._map[index * ROW_SIZE + _HEEDED] = 0
        self._map[end - _DIGEST : end] = digest(name)

    def heeded(self, index: int) -> bool:
        """Return whether the job's function has ended for what row *index* was last asked."""
        return self._map[index * ROW_SIZE + _HEEDED] == 1

    def heed(self, index: int) -> None:
        """Say that the function of the job that was to be stopped has ended; the worker's alone."""
        self._map[index * ROW_SIZE + _HEEDED] = 1

    def ask_to_leave(self, index: int) -> None:
        """Ask the worker of row *index* to take no further job, whatever its job makes of SIGTERM.

        An idle one has to be woken by the signal.
        """
        self._map[index * ROW_SIZE + _LEAVE] = 1

    def place_to_leave(self, index: int) -> int:
        """Return where it stands whether the worker of row *index* is to leave."""
        return index * ROW_SIZE + _LEAVE

    def asked(self, index: int) -> bytes:
        """Return the digest of what row *index* was asked to stop."""
        end = (index + 1) * ROW_SIZE
        return self._map[end - _DIGEST : end]

    def idle_before(self, index: int) -> int:
        """Return how many workers of the rows before *index* are idle."""
        places = range(_SEQUENCE.size, index * ROW_SIZE, ROW_SIZE)
        return sum(self._map[place] == _IDLE for place in places)

    def write(self, index: int, sequence: int, values: tuple[object, ...]) -> None:
        """Write one row; *sequence* counts the row's writes from 1."""
        start = index * ROW_SIZE
        _WHOLE.pack_into(self._map, start, 2 * sequence - 1, *values)
        _SEQUENCE.pack_into(self._map, start, 2 * sequence)


def _anonymous_file(size: int, create: Callable[[str], int] | None = None) -> int:
    try:
        fd = (create or os.memfd_create)("pysplash-scoreboard")
    except (AttributeError, OSError):  # not on macOS, and not in every sandbox
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def digest(job_id: str) -> bytes:
    """Return what stands for a job's id in a request; for an empty one, what stands for any."""
    return hashlib.blake2b(job_id.encode(), digest_size=_DIGEST).digest() if job_id else ANY


def shortened(function: str) -> bytes:
    """Return the name of *function* as it fits into a row, a long one with a digest for its end."""
    name = function.encode(errors="replace")
    if len(name) <= _FUNCTION:
        return name
    mark = hashlib.blake2b(name, digest_size=6).hexdigest().encode()
    return name[: _FUNCTION - len(mark) - 1] + b"~" + mark


def told_name(worker: str) -> str:
    """Return the name of a worker as it fits into a row: of a long one the end tells who it is."""
    return worker.encode()[-64:].decode(errors="ignore")


class Slot:
    """A worker's own row: the only thing a worker tells its pool."""

    #: whether this worker heeds requests to stop a job
    listens = False
    #: seconds between two signs of life while it is idle
    idle_beat = 1.0

    def __init__(
        self,
        board: Scoreboard,
        index: int,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._index = index
        self._name = told_name(name).encode()
        self._clock = clock
        self._pid = os.getpid()
        self._sequence = 0
        self._state = WorkerState.STARTING
        self._number = _NUMBERS[self._state]
        self._since = clock()
        self._started = self._timeout = math.nan
        self._jobs = self._failed = 0
        self._job = self._execution = b""
        self._outer: list[tuple[float, WorkerState]] = []
        self._function = ""
        self._unsaid = False
        self._map, self._held_place = board.place_of_held(index)
        self._held_before = 0.0
        self._leave_place = board.place_to_leave(index)
        self.journal = board.journal(index)
        self.notices = board.notices
        self.beat()

    def beat(self) -> None:
        """Show a sign of life."""
        self._write(self._clock())

    def _write(self, now: float) -> None:
        self._sequence += 1
        self._board.write(
            self._index,
            self._sequence,
            (
                self._number,
                self.listens,
                self._unsaid,
                self._pid,
                self._since,
                now,
                self._started,
                self._timeout,
                self._held_before,
                self._jobs,
                self._failed,
                self._name,
                self._execution,
                len(self._job),
                self._job,
            ),
        )

    def _enter(self, state: WorkerState, now: float | None = None) -> None:
        if now is None:
            now = self._clock()
        if state is not self._state:
            self._state, self._number = state, _NUMBERS[state]
            self._since = now
        self._write(now)

    def idle(self) -> None:
        """Ready for a job."""
        self._enter(WorkerState.IDLE)

    def stopping(self) -> None:
        """Take no further job."""
        self._enter(WorkerState.STOPPING)

    def unsaid(self) -> None:
        """Leave without deregistering in Redis, which is away; the pool does it."""
        self._unsaid = True
        self.beat()

    def claimed(self, job_id: str, timeout: float | None, execution_id: str = "") -> None:
        """Hold the job *job_id*, not yet started unless it has an execution.

        *timeout* is in seconds, None for no limit. A job claimed while another is held runs inside
        it: the row stays that of the outermost, but for the deadline, which is the earliest.
        """
        if not math.isnan(self._started):
            self._descend(timeout)
            return
        encoded = job_id.encode()
        self._job = encoded if len(encoded) <= MAX_JOB_ID else b""
        self._execution = execution_id.encode()[:40]
        self._started = self._clock()
        self._timeout = math.nan if timeout is None else timeout
        self._held_before = self.held()
        if self._number != _BUSY:
            self._state, self._number, self._since = WorkerState.BUSY, _BUSY, self._started
        self._write(self._started)

    def _descend(self, timeout: float | None) -> None:
        self._outer.append((self._timeout, self._state))
        if timeout is not None:
            held = self.held() - self._held_before
            ends = self._clock() - self._started + timeout - held
            self._timeout = ends if math.isnan(self._timeout) else min(ends, self._timeout)
        self._enter(WorkerState.BUSY)

    def started(self, execution_id: str) -> None:
        """Run the claimed job, as the execution *execution_id*."""
        self._execution = execution_id.encode()[:40]
        self.beat()

    def held(self) -> float:
        """Return the seconds for which this worker was held so far."""
        held: float = _HELD.unpack_from(self._map, self._held_place)[0]
        return held

    def note(self, words: Sequence[str | bytes]) -> bool:
        """Write words down where they outlive this process; return False if there is no room."""
        return self.journal.note(words)

    def runs(self, function: str) -> None:
        """Say which function the job in hand calls; of jobs inside one another the outermost's."""
        if function != self._function and not self._outer:
            self._function = function
            self._board.name_function(self._index, shortened(function))

    def finished(self, failed: bool, *, more: bool = False) -> None:
        """Let go of the job; its outcome is stored, or will be.

        Where *more* are in hand, the row says so only when the next one begins.
        """
        self._jobs += 1
        self._failed += failed
        if self._outer:
            self._timeout, state = self._outer.pop()
            self._enter(state)
            return
        self._started = self._timeout = math.nan
        self._job = self._execution = b""
        if not more:
            self._enter(WorkerState.IDLE)

    def idle_before(self) -> int:
        """Return how many workers in the rows before this one are idle."""
        return self._board.idle_before(self._index) if self._index else 0

    def to_leave(self) -> bool:
        """Return whether the pool has asked this worker to take no further job."""
        return self._map[self._leave_place] == 1

    def heed(self) -> None:
        """Say that the function of the job that was to be stopped has ended."""
        self._board.heed(self._index)

    def to_stop(self, *names: str) -> bool:
        """Return whether the pool last asked for one of *names*, or any, to be stopped."""
        return self._board.asked(self._index) in (ANY, *map(digest, names))

    def to_stop_any(self) -> bool:
        """Return whether the pool last asked for whatever runs to be stopped."""
        return self._board.asked(self._index) == ANY

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Wait for other jobs, for the length of a block: no CPU, no zombie clock."""
        before = self._state
        self._enter(WorkerState.WAITING)
        try:
            yield
        finally:
            self._enter(before)
