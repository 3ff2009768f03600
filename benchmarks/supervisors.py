"""The supervisors a storm is let loose on, as processes, and everything that came of one."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import psutil
from redis import Redis

from benchmarks import census

ROOT = Path(__file__).parents[1]
#: in the environment of a supervisor, and so of every process that comes of it
MARK = "SPLASH_STORM"
#: seconds a supervisor gets to end when asked to
END = 60.0
COMMANDS = {
    "pysplash": ("pysplash", "-q", "--scale-frequency", "0.1", "--quiet-period", "0"),
    "rq": ("rq.cli", "worker-pool", "-q"),
}


class Supervisor:
    """*size* workers of the supervisor *against*, for the length of a block.

    *besides* stands on its command line, too. Nothing that came of it outlives the block.
    """

    def __init__(
        self,
        against: str,
        url: str,
        size: int,
        queues: tuple[str, ...],
        folder: Path,
        *besides: str,
    ) -> None:
        self._words = folder / "supervisor.err"
        self._mark = secrets.token_hex(8)
        command = (*COMMANDS[against], "-u", url, "-n", str(size), *besides, *queues)
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                # SPT_NOENV: or a worker that shows its state in its title writes over the mark
                env={**os.environ, "PYTHONPATH": str(ROOT), "SPT_NOENV": "1", MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                start_new_session=True,
            )

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def words(self) -> str:
        """What it has said on standard error."""
        return self._words.read_text(errors="replace")

    def workers(self, redis: Redis, *, proven: bool = False) -> list[int]:
        """Return the process ids of its living workers; *proven*: that have done a job."""
        known = [worker for worker in census.workers(redis) if worker.proven or not proven]
        return [worker.pid for worker in known if self._is_own(worker.pid)]

    def stop(self) -> int | None:
        """Ask it to end, once; return its exit status, None if it does not end."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END)
        except subprocess.TimeoutExpired:
            return None

    def left(self) -> list[psutil.Process]:
        """Return the living processes that came of it, itself excepted."""
        pids = [pid for pid in psutil.pids() if pid != self._process.pid and self._is_own(pid)]
        found = []
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found

    def _is_own(self, pid: int) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.environ().get(MARK) == self._mark
        return False
