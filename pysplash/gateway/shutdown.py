"""Ending: what is asked of whoever serves, by signals or by another process."""

from __future__ import annotations

import asyncio
import signal
import socket


class Ending:
    """What is asked of whoever serves: to end, and at the second time to end at once."""

    def __init__(self) -> None:
        self.asked, self.now = asyncio.Event(), asyncio.Event()

    def ask(self) -> None:
        """Ask."""
        (self.now if self.asked.is_set() else self.asked).set()

    def heed_signals(self) -> None:
        """Let TERM and INT ask."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    def heed(self, talk: socket.socket) -> None:
        """Let each byte that comes ask, and the end of them ask for the end at once."""
        loop = asyncio.get_running_loop()

        def listen() -> None:
            words = talk.recv(16)
            if not words:
                loop.remove_reader(talk)
            for _ in words or b"--":
                self.ask()

        loop.add_reader(talk, listen)
