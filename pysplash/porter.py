"""A porter: the process of one door of a gateway, as its parent knows it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections import deque

import psutil

from . import errors
from .errors import SplashError
from .log import logger
from .process import describe
from .pulses import Vigil

#: the last ends of its processes that are remembered, and bytes of what one may say
MOST, WORDS = 5, 65536

log = logger("gateway")


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
