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
from pysplash.host.processes import describe, die_without, flush_output
from pysplash.host.signals import SignalQueue
from pysplash.log import logger

from .shutdown import Ending
from .watchdog import HUNG, LOOK, Pulses, Vigil

HEEDED = (signal.SIGTERM, signal.SIGINT)
#: seconds before a door's process is followed by another, at first and at most
PAUSE, LONGEST = 0.1, 5.0
#: seconds within which MOST processes of one door must not end
WITHIN = 60.0
#: seconds beyond those it has after which a process that is to end is killed
MARGIN = 5.0
#: serves the door of a kind until it is asked to end, and tells where it is once it is open
Serve = Callable[[str, Ending, Callable[[str], None]], Awaitable[None]]

log = logger("gateway")


class Porters:
    """The processes of the doors of these *kinds*, each of which does *serve*.

    *forget* is told of a kind whose process has gone, *shut* once no more is let in. After TERM or
    INT a process has *drain* seconds.
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
        self._porters = [Porter(kind) for kind in kinds]
        self._serve = serve
        self._forget, self._shut = forget, shut
        self._drain = drain
        self._pulses = Pulses(len(kinds))
        self._signals = SignalQueue((*HEEDED, signal.SIGCHLD))
        self._addresses: dict[str, str] = {}
        self._told = self._asked = False
        #: until when those that are to end may take
        self._until = float("inf")
        self._look_at = 0.0

    def run(self, opened: Callable[[dict[str, str]], None]) -> int:
        """Serve until TERM or INT; return the exit status. *opened* is told all addresses.

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
        return self._asked and all(porter.pid is None for porter in self._porters)

    def _patience(self) -> float:
        """Return the seconds until there is something to do unasked."""
        due = [porter.due for porter in self._porters if porter.pid is None and not self._asked]
        return max(0.0, min([*due, self._until, self._look_at]) - time.monotonic())

    def _quiet(self) -> list[int]:
        """Return the descriptors over which processes say that they are open."""
        waited = (porter.talk for porter in self._porters if not porter.is_open)
        return [talk.fileno() for talk in waited if talk is not None]

    # --- what it hears ---

    def _heed(self) -> None:
        """Hand on what signals ask for; kill what has had its time."""
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
        for porter in self._porters:
            porter.tell()

    def _hear(self, opened: Callable[[dict[str, str]], None]) -> None:
        """Take in who has opened its door."""
        for porter in self._porters:
            if porter.talk is None or porter.is_open:
                continue
            try:
                address = porter.hear()
            except SplashError as error:
                if not self._told:
                    raise
                log.error("the %s door cannot be opened again: %s", porter.kind, error)
                continue
            if address is not None:
                self._addresses[porter.kind] = address
        if not self._told and len(self._addresses) == len(self._porters):
            self._told = True
            opened(self._addresses)

    def _look_after(self) -> None:
        """Kill what hangs: it is to be followed by another, as what died by itself."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK
        for place, porter in enumerate(self._porters):
            if porter.is_hung(self._pulses[place]) and not self._asked:
                porter.kill(f"has not turned for {HUNG:g} s")

    def _reap(self) -> None:
        """Take in which processes have ended, and when others are to follow them."""
        for porter in self._porters:
            how = porter.reaped()
            if how is None:
                continue
            self._forget(porter.kind)
            if self._asked:
                continue
            now = time.monotonic()
            porter.ends.append(now)
            if len(porter.ends) == MOST and now - porter.ends[0] < WITHIN:
                raise CrashLoop(
                    f"the process of the {porter.kind} door has ended {MOST} times within "
                    f"{WITHIN:g} s, last with: {how}. See the log for why"
                )
            recent = sum(now - end < WITHIN for end in porter.ends)
            porter.due = now + min(LONGEST, PAUSE * 2 ** (recent - 1))
            log.warning(
                "the process of the %s door has ended (%s): another follows in %.1f s",
                porter.kind,
                how,
                porter.due - now,
                extra={"action": "restart"},
            )

    # --- what it does ---

    def _start_due(self) -> None:
        now = time.monotonic()
        for porter in self._porters:
            if porter.pid is None and not self._asked and porter.due <= now:
                self._start(porter)

    def _start(self, porter: Porter) -> None:
        """Fork the process of a door."""
        porter.talk, theirs = socket.socketpair()
        porter.vigil = Vigil(self._pulses[self._porters.index(porter)], time.monotonic())
        flush_output()
        parent = os.getpid()
        porter.pid = os.fork()
        if porter.pid == 0:
            self._be(porter, parent, theirs)
        theirs.close()

    def _be(self, porter: Porter, parent: int, talk: socket.socket) -> NoReturn:
        """Be the process of a door; never returns."""
        status = EXIT_CONNECTION
        try:
            for number in HEEDED:
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_without(parent)
            for other in self._porters:
                if other.talk is not None:
                    other.talk.close()
            asyncio.run(self._live(porter, talk))
            status = EXIT_OK
        except SplashError as error:
            _say(talk, type(error).__name__, str(error))
        except BaseException:
            log.exception("the process of the %s door ends by an error", porter.kind)
        finally:
            flush_output()
            os._exit(status)

    async def _live(self, porter: Porter, talk: socket.socket) -> None:
        ending = Ending()
        ending.heed(talk)
        beating = asyncio.create_task(self._pulses.beat(self._porters.index(porter)))
        try:
            await self._serve(porter.kind, ending, lambda place: _say(talk, "address", place))
        finally:
            beating.cancel()

    def _end_all(self) -> None:
        """End what is left, whatever it does: something went wrong, or this process is to end."""
        self._shut()
        until = time.monotonic() + MARGIN
        for porter in self._porters:
            for _ in range(2):
                porter.tell()
        while self._left() and time.monotonic() < until:
            self._signals.wait(until - time.monotonic())
            self._signals.drain()
        self._kill("did not end")
        while self._left():
            self._signals.wait(MARGIN)
            self._signals.drain()

    def _left(self) -> bool:
        """Return whether there are processes left, those aside that have just ended."""
        for porter in self._porters:
            porter.reaped()
        return any(porter.pid is not None for porter in self._porters)

    def _kill(self, why: str) -> None:
        for porter in self._porters:
            if porter.pid is not None:
                porter.kill(why)
        self._until = time.monotonic() + MARGIN


def _say(talk: socket.socket, kind: str, text: str) -> None:
    with contextlib.suppress(OSError):
        talk.send(json.dumps([kind, text]).encode()[:WORDS])


#: the last ends of its processes that are remembered, and bytes of what one may say
MOST, WORDS = 5, 65536


class Porter:
    """The process of one door, or the one that is to follow it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pid: int | None = None
        self.talk: socket.socket | None = None
        self.is_open = False
        #: when another is due, and when those before it ended
        self.due = 0.0
        self.ends: deque[float] = deque(maxlen=MOST)
        self.vigil = Vigil(0, 0.0)

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
        """Return whether its process, which has beaten so often, does not turn any more."""
        if self.pid is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(self.pid).cpu_times()
            return self.vigil.is_hung(beat, times.user + times.system, time.monotonic())
        return False

    def kill(self, why: str) -> None:
        """End its process at once, and say why."""
        assert self.pid is not None
        log.warning("the process of the %s door %s: it is killed", self.kind, why)
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
