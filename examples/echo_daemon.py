"""A TCP daemon in three lines: a function from bytes to bytes, served by a pool of its own.

    python examples/echo_daemon.py            asks itself some questions, then ends
    python examples/echo_daemon.py --serve    until Ctrl-C

From a shell, pysplash daemon echo_daemon:echo --port 10123 does the same in the folder examples.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading

import pysplash
from pysplash import framed


def echo(message: bytes) -> bytes:
    """Return the message; the word crash ends the process that got it."""
    if message == b"crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return message


def ask(address: str) -> None:
    """Ask as any program would, then let the daemon end."""
    try:
        print(framed.request(address, b"hello", timeout=30).decode())
        print(len(framed.request(address, b"x" * 1_000_000, timeout=30)), "bytes")
        try:
            framed.request(address, b"crash", timeout=30)
        except pysplash.DoorClosed:
            print("no answer: the handler's process died")
        print(framed.request(address, b"still here", timeout=30).decode())
    finally:
        os.kill(os.getpid(), signal.SIGINT)


def opened(address: str) -> None:
    """Ask from another thread: this one serves."""
    threading.Thread(target=ask, args=(address,)).start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    daemon = pysplash.Daemon(echo, given.port, processes=2)
    daemon.start(
        opened=lambda address: print(address, flush=True) if given.serve else opened(address)
    )
