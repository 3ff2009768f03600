"""A process for each door of a gateway, so that a flood at one keeps none of the others.

The parent opens the listening sockets, forks one child for each door, and from then on only
supervises: it passes on what signals ask, and replaces a child that dies or whose loop hangs.
Children ignore signals, because service managers send theirs to all processes at once; they listen
to their parent, and end when it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import psutil

from pysplash import errors
from pysplash.errors import EXIT_CONNECTION, EXIT_OK, CrashLoop, SplashError
from pysplash.host.footprint import UNREADABLE
from pysplash.host.processes import describe, die_without, flush_output
from pysplash.host.signals import SignalQueue
from pysplash.log import logger

from .shutdown import Shutdown
from .watchdog import HUNG, LOOK, LoopBeats, Watchdog

HEEDED = (signal.SIGTERM, signal.SIGINT)
#: seconds before a door's process is followed by another, at first and at most
PAUSE, LONGEST = 0.1, 5.0
#: seconds within which MOST processes of one door must not end
WITHIN = 60.0
#: seconds beyond those it has after which a process that is to end is killed
MARGIN = 5.0
#: serves the door of a kind until it is asked to end, and reports its address once it is open
Serve = Callable[[str, Shutdown, Callable[[str], None]], Awaitable[None]]

log = logger("gateway")


class DoorProcesses:
    """The processes of the doors of these *kinds*, each of which runs *serve*.

    *forget* is called with the kind whose process has ended, *shut* when the listening sockets are
    to be closed. After TERM or INT a process has *drain* seconds.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        serve: Serve,
        *,
        forget: Callable[[str], None],
        shut: Callable[[], None],
        drain: float,
    ) -> None:
        self._processes = [DoorProcess(kind) for kind in kinds]
        self._serve = serve
        self._forget, self._shut = forget, shut
        self._drain = drain
        self._beats = LoopBeats(len(kinds))
        self._signals = SignalQueue((*HEEDED, signal.SIGCHLD))
        self._addresses: dict[str, str] = {}
        self._told = self._asked = False
        #: until when those that are to end may take
        self._until = float("inf")
        self._look_at = 0.0

    def run(self, opened: Callable[[dict[str, str]], None]) -> int:
        """Serve until TERM or INT; return the exit status. *opened* gets all addresses.

        Raises what keeps a door from being opened, and :class:`~pysplash.errors.CrashLoop`.
        """
        self._signals.install()
        try:
            while not self._is_over():
                self._start_due()
                self._signals.wait(self._patience(), self._quiet())
                self._heed()
                self._hear(opened)
                self._look_after()
                self._reap()
        finally:
            self._end_all()
            self._signals.close()
        return EXIT_OK

    def _is_over(self) -> bool:
        return self._asked and all(process.pid is None for process in self._processes)

    def _patience(self) -> float:
        """Return the seconds until the next thing that is due."""
        due = [
            process.due for process in self._processes if process.pid is None and not self._asked
        ]
        return max(0.0, min([*due, self._until, self._look_at]) - time.monotonic())

    def _quiet(self) -> list[int]:
        """Return the descriptors over which processes say that they are open."""
        waited = (process.talk for process in self._processes if not process.is_open)
        return [talk.fileno() for talk in waited if talk is not None]

    # --- signals, reports and ends ---

    def _heed(self) -> None:
        """Pass on what signals ask for; kill processes whose time to end is over."""
        for number in self._signals.drain():
            if number in HEEDED:
                self._ask()
        if time.monotonic() >= self._until:
            self._kill("took too long to end")

    def _ask(self) -> None:
        if not self._asked:
            self._shut()
        self._until = time.monotonic() + MARGIN + (0 if self._asked else self._drain)
        self._asked = True
        for process in self._processes:
            process.tell()

    def _hear(self, opened: Callable[[dict[str, str]], None]) -> None:
        """Read which processes have opened their doors."""
        for process in self._processes:
            if process.talk is None or process.is_open:
                continue
            try:
                address = process.hear()
            except SplashError as error:
                if not self._told:
                    raise
                log.error("the %s door cannot be opened again: %s", process.kind, error)
                continue
            if address is not None:
                self._addresses[process.kind] = address
        if not self._told and len(self._addresses) == len(self._processes):
            self._told = True
            opened(self._addresses)

    def _look_after(self) -> None:
        """Kill processes that hang: each is then replaced, like one that died."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK
        for place, process in enumerate(self._processes):
            if process.is_hung(self._beats[place]) and not self._asked:
                process.kill(f"hangs, for {HUNG:g} s now")

    def _reap(self) -> None:
        """Read which processes have ended, and decide when each is replaced."""
        for process in self._processes:
            how = process.reaped()
            if how is None:
                continue
            self._forget(process.kind)
            if self._asked:
                continue
            now = time.monotonic()
            process.ends.append(now)
            if len(process.ends) == MOST and now - process.ends[0] < WITHIN:
                raise CrashLoop(
                    f"the process of the {process.kind} door has ended {MOST} times within "
                    f"{WITHIN:g} s, last with: {how}. See the log for why"
                )
            recent = sum(now - end < WITHIN for end in process.ends)
            process.due = now + min(LONGEST, PAUSE * 2 ** (recent - 1))
            log.warning(
                "the process of the %s door has ended (%s); it is replaced in %.1f s",
                process.kind,
                how,
                process.due - now,
                extra={"action": "restart"},
            )

    # --- starting and ending ---

    def _start_due(self) -> None:
        now = time.monotonic()
        for process in self._processes:
            if process.pid is None and not self._asked and process.due <= now:
                self._start(process)

    def _start(self, process: DoorProcess) -> None:
        """Fork the process of a door."""
        process.talk, theirs = socket.socketpair()
        process.watchdog = Watchdog(self._beats[self._processes.index(process)], time.monotonic())
        flush_output()
        parent = os.getpid()
        process.pid = os.fork()
        if process.pid == 0:
            self._be(process, parent, theirs)
        theirs.close()

    def _be(self, process: DoorProcess, parent: int, talk: socket.socket) -> NoReturn:
        """Be the process of a door; never returns."""
        status = EXIT_CONNECTION
        try:
            for number in HEEDED:
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_without(parent)
            for other in self._processes:
                if other.talk is not None:
                    other.talk.close()
            asyncio.run(self._live(process, talk))
            status = EXIT_OK
        except SplashError as error:
            _say(talk, type(error).__name__, str(error))
        except BaseException:
            log.exception("the process of the %s door failed", process.kind)
        finally:
            flush_output()
            os._exit(status)

    async def _live(self, process: DoorProcess, talk: socket.socket) -> None:
        shutdown = Shutdown()
        shutdown.heed(talk)
        beating = asyncio.create_task(self._beats.beat(self._processes.index(process)))
        try:
            await self._serve(process.kind, shutdown, lambda place: _say(talk, "address", place))
        finally:
            beating.cancel()

    def _end_all(self) -> None:
        """End all processes that are left, by force if need be."""
        self._shut()
        until = time.monotonic() + MARGIN
        for process in self._processes:
            for _ in range(2):
                process.tell()
        while self._left() and time.monotonic() < until:
            self._signals.wait(until - time.monotonic())
            self._signals.drain()
        self._kill("did not end")
        while self._left():
            self._signals.wait(MARGIN)
            self._signals.drain()

    def _left(self) -> bool:
        """Return whether processes are left; those that have just ended do not count."""
        for process in self._processes:
            process.reaped()
        return any(process.pid is not None for process in self._processes)

    def _kill(self, why: str) -> None:
        for process in self._processes:
            if process.pid is not None:
                process.kill(why)
        self._until = time.monotonic() + MARGIN


def _say(talk: socket.socket, kind: str, text: str) -> None:
    with contextlib.suppress(OSError):
        talk.send(json.dumps([kind, text]).encode()[:WORDS])


#: ends of a process that are remembered, and bytes of what one may report
MOST, WORDS = 5, 65536


class DoorProcess:
    """The process of one door, or the one that will replace it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pid: int | None = None
        self.talk: socket.socket | None = None
        self.is_open = False
        #: when the next one is due, and when those before it ended
        self.due = 0.0
        self.ends: deque[float] = deque(maxlen=MOST)
        self.watchdog = Watchdog(0, 0.0)

    def tell(self) -> None:
        """Ask it to end, or if it was asked already, to end at once."""
        if self.talk is not None:
            with contextlib.suppress(OSError):
                self.talk.send(b"-")

    def hear(self) -> str | None:
        """Return where its door is, if it has said so; raise what it says went wrong."""
        assert self.talk is not None
        with contextlib.suppress(OSError):
            words = self.talk.recv(WORDS, socket.MSG_DONTWAIT)
            if words:
                kind, text = json.loads(words)
                if kind != "address":
                    raise getattr(errors, kind, SplashError)(text)
                self.is_open = True
                return str(text)
        return None

    def is_hung(self, beat: int) -> bool:
        """Return whether its event loop hangs, which has counted so many beats."""
        if self.pid is None:
            return False
        with contextlib.suppress(*UNREADABLE):
            times = psutil.Process(self.pid).cpu_times()
            return self.watchdog.is_hung(beat, times.user + times.system, time.monotonic())
        return False

    def kill(self, why: str) -> None:
        """End its process at once, and say why."""
        assert self.pid is not None
        log.warning("killing the process of the %s door: it %s", self.kind, why)
        os.kill(self.pid, signal.SIGKILL)

    def reaped(self) -> str | None:
        """Return how its process ended; None if it has not, or there is none."""
        if self.pid is None or (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            return None
        assert self.talk is not None
        self.talk.close()
        self.pid = self.talk = None
        self.is_open = False
        return describe(found[1])
