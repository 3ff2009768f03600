"""The real command, started as a user starts it, and everything it left behind, found."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
#: in the environment of the command, and so of every process that comes of it
MARK = "SPLASH_TEST_RUN"
#: seconds a process may take to end at a test's end, and to be seen gone after that
END, GONE = 15.0, 10.0
#: seconds until a pool must have its first workers, on a machine that runs other tests too
READY = 20.0
#: variables that would speak for the user who runs the tests
OURS = ("RQ_", "REDIS_", "PYSPLASH_")
#: a pool that takes its decisions as quickly as may be
QUICK = ("--scale-frequency", "0.2", "--quiet-period", "0.2")


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that have *mark* in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """End *processes*, whatever they do."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def tell(pids: Iterable[int], number: int) -> None:
    """Send the signal *number* to each of *pids* that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Command:
    """One ``python -m pysplash ...`` in a session of its own, in the folder *folder*."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.arguments = arguments
        #: where a pool started by the fixture ``pool`` writes its record
        self.record_file = folder / "record.jsonl"
        self.mark = secrets.token_hex(8)
        self._out = folder / f"{self.mark}.out"
        self._err = folder / f"{self.mark}.err"
        self._seen: set[psutil.Process] = set()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pysplash", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                start_new_session=True,
                env={
                    **inherited,
                    "PYTHONPATH": str(ROOT),
                    # or a worker that shows its state in its title writes over its environment
                    "SPT_NOENV": "1",
                    MARK: self.mark,
                    **environment,
                },
            )

    # --- what it is told ---

    def signal(self, number: int) -> None:
        """Send it *number*."""
        self.process.send_signal(number)

    def wait(self, bound: float) -> int:
        """Return its exit status; fail after *bound* seconds."""
        try:
            return self.process.wait(bound)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.arguments} did not end within {bound:g} s: {self.err}"
            ) from None

    # --- what it says ---

    @property
    def out(self) -> str:
        """What it has said on standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has said on standard error so far."""
        return self._err.read_text()

    def says(self, pattern: str, bound: float = READY) -> re.Match[str]:
        """Return the first match of *pattern* in its standard error, within *bound* seconds."""
        match = wait_until(lambda: re.search(pattern, self.err), bound, f"{pattern!r} in the log")
        assert match is not None
        return match

    def embedded_url(self) -> str:
        """Return the address of the server it brought with it."""
        return self.says(r"embedded server at (\S+)")[1]

    # --- what it is made of ---

    def processes(self) -> list[psutil.Process]:
        """Return every living process that came of it, itself included, orphans too.

        A server that writes over its own environment is known by its parent, so it must have been
        seen once before that parent ends.
        """
        for process in marked(self.mark):
            self._seen.update([process, *_descendants(process)])
        self._seen = {process for process in self._seen if _alive(process)}
        return sorted(self._seen, key=lambda process: process.pid)

    def fork_servers(self) -> list[int]:
        """Return the process ids of the pool's fork servers."""
        return [
            process.pid
            for process in _children(self.process.pid)
            if any(
                "pysplash.supervisor.forkserver.server" in argument
                for argument in _command_line(process)
            )
        ]

    def workers(self) -> list[int]:
        """Return the process ids of the pool's living workers, whichever fork server has them."""
        return [child.pid for server in self.fork_servers() for child in _children(server)]

    def await_workers(self, count: int, bound: float = READY) -> list[int]:
        """Return the process ids of the workers as soon as they are *count*."""
        return wait_until(
            lambda: pids if len(pids := self.workers()) == count else [],
            bound,
            f"{count} workers, of {self.workers()}",
        )

    def record(self) -> list[dict[str, Any]]:
        """Return the ticks recorded so far."""
        if not self.record_file.exists():
            return []
        whole = self.record_file.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def await_idle(self, count: int, bound: float = READY) -> list[int]:
        """Return the process ids of the workers as soon as they are *count* and all idle."""
        self.await_workers(count, bound)
        wait_until(
            lambda: [tick["idle"] for tick in self.record()[-1:]] == [count],
            bound,
            f"{count} idle workers",
        )
        return self.workers()

    def await_ticks(self, count: int, bound: float = READY) -> None:
        """Return after *count* further ticks on record."""
        before = len(self.record())
        wait_until(lambda: len(self.record()) >= before + count, bound, f"{count} more ticks")

    # --- its end ---

    def await_gone(self, bound: float) -> None:
        """Fail unless every process that came of it is gone within *bound* seconds."""
        wait_until(lambda: not self.processes(), bound, f"the end of {self.processes()}")

    def end(self) -> list[str]:
        """End it; return what came of it and outlived it, which is then killed."""
        stuck = []
        self.processes()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(END)
            except subprocess.TimeoutExpired:
                stuck = [f"the command itself: {self.err}"]
                self.process.kill()
                self.process.wait(END)
        try:
            self.await_gone(GONE)
        except AssertionError:
            left = self.processes()
            stuck += [f"{process.pid}: {_command_line(process)}" for process in left]
            kill(left)
        return stuck


Start = Callable[..., Command]


def _children(pid: int) -> list[psutil.Process]:
    try:
        children = psutil.Process(pid).children()
    except psutil.Error:
        return []
    return [child for child in children if _alive(child)]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
