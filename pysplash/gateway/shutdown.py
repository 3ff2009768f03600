"""Shutdown: asked for once, it is orderly; asked for twice, it is immediate."""

from __future__ import annotations

import asyncio
import signal
import socket


class Shutdown:
    """Two events: a shutdown is asked for, and, at the second time, it is to be at once."""

    def __init__(self) -> None:
        self.asked, self.now = asyncio.Event(), asyncio.Event()

    def ask(self) -> None:
        """Ask for the shutdown; the second time, for an immediate one."""
        (self.now if self.asked.is_set() else self.asked).set()

    def heed_signals(self) -> None:
        """Have TERM and INT ask for it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    def heed(self, talk: socket.socket) -> None:
        """Have each byte that comes ask for it; the end of the stream asks for it at once."""
        loop = asyncio.get_running_loop()

        def listen() -> None:
            words = talk.recv(16)
            if not words:
                loop.remove_reader(talk)
            for _ in words or b"--":
                self.ask()

        loop.add_reader(talk, listen)
