"""The fork server: a small process that has everything imported and forks the workers.

It has one thread and no Redis connection, and freezes the garbage collector, so that preloaded
memory stays shared. As the parent of all workers it alone signals them: their process ids cannot
have been reused. It reports every exit to the pool at once. When the pool has ended, for whatever
reason, it stops the workers, kills those left after ``terminate`` seconds, and ends. If it is
killed itself, the kernel kills its workers.

The standard library's fork server was measured first and cannot do this: its workers hold it
alive after the pool was killed and nobody ends them, it swallows an ImportError of a preloaded
module, and there is one for the whole process (doc/internals.md).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from rq.scheduler import RQScheduler

from pysplash.application.handlers import load as load_handler
from pysplash.application.registry import REGISTRY
from pysplash.errors import EXIT_BOOT, EXIT_IMPORT, ImportFailed
from pysplash.events import registered
from pysplash.host.capacity import Host
from pysplash.host.processes import adopt_orphans, die_without, flush_output, kill_session
from pysplash.jobs.abandoned import AbandonedJob
from pysplash.worker.scoreboard import Scoreboard, Slot

from .boot import connect, run_worker
from .callbacks import run_callbacks
from .client import Exited, ForkServerPlan, PreloadFailed, Ready, Spawned
from .throttling import Throttler

#: seconds between two looks at whether the pool is still the parent
WATCH = 1.0
#: seconds between two looks at leaving workers once the pool is gone
LINGER = 0.05
#: where a process says how willingly it dies when the machine is out of memory; a worker says so
OOM_SCORE, WILLING = "/proc/self/oom_score_adj", "500"
MOST_TEXT = 4096


class Child:
    """One forked process: its name, slot, id, and the pipe for its error."""

    def __init__(self, name: str, slot: int, role: str, pid: int, words: int) -> None:
        self.name = name
        self.slot = slot
        self.role = role
        self.pid = pid
        self.words = words

    def read_error(self) -> str:
        """Return what the process wrote before it ended, and close the pipe."""
        try:
            return os.read(self.words, MOST_TEXT).decode(errors="replace")
        except BlockingIOError:
            return ""
        finally:
            os.close(self.words)


class ForkServer:
    """Forks workers on request, reaps them and reports their exits."""

    def __init__(self, control: Connection[Any, Any], pool_pid: int) -> None:
        self._control = control
        self._pool_pid = pool_pid
        self._children: dict[str, Child] = {}
        self._plan: ForkServerPlan = control.recv()
        self._board = Scoreboard(self._plan.slots, self._plan.board_fd, self._plan.notices_fd)
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        self._inherited = (control.fileno(), self._wake, wake_write)
        limits = self._plan.limits
        self._throttler = Throttler(limits, self._board, Host()) if limits is not None else None

    def serve(self) -> None:
        """Serve requests until the pool closes the connection or has ended."""
        if not self._preload():
            return
        threads = threading.active_count()
        self._report(Ready(os.getpid(), threads, REGISTRY.specs(), registered()))
        while self._pool_lives():
            ready = wait([self._control, self._wake], self._throttle())
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            self._reap()
            if self._control in ready and not self._requests():
                break
        self._end_all()

    def _throttle(self) -> float:
        """Throttle if it is due; return the seconds until it is due again."""
        if self._throttler is None:
            return WATCH
        try:
            self._throttler.turn(self._workers())
        except Exception as error:
            self._throttler.resume_all()
            self._throttler = None
            text = "".join(traceback.format_exception_only(error)).strip()
            print(f"throttling ends by an error: {text}", file=sys.stderr)
            return WATCH
        return min(WATCH, self._throttler.wait())

    def _workers(self) -> Iterator[Child]:
        return (child for child in self._children.values() if child.role == "worker")

    def _pool_lives(self) -> bool:
        return os.getppid() == self._pool_pid

    def _preload(self) -> bool:
        gc.disable()
        for module in self._plan.preload:
            try:
                (load_handler if ":" in module else importlib.import_module)(module)
            except BaseException as error:
                self._report(
                    PreloadFailed(module, "".join(traceback.format_exception_only(error)).strip())
                )
                return False
        gc.collect()
        gc.freeze()
        return True

    def _report(self, event: Any) -> None:
        with contextlib.suppress(OSError):
            self._control.send(event)

    def _requests(self) -> bool:
        """Serve the requests received; return False once the pool has closed the connection."""
        try:
            while self._control.poll():
                self._request(*self._control.recv())
        except (EOFError, OSError):
            return False
        return True

    def _request(self, kind: str, name: str, *details: Any) -> None:
        if kind == "spawn":
            self._spawn(name, *details)
        elif kind == "memory":
            if self._throttler is not None:
                self._throttler.set_memory(*details)
        elif name in self._children:
            pid = self._children[name].pid
            if kind == "signal":
                os.kill(pid, details[0])
                if self._throttler is not None:
                    self._throttler.resume(pid)  # a stopped process handles no signal
            else:
                kill_session(pid)

    # --- children ---

    def _spawn(
        self, name: str, slot: int, role: str, maintain: bool, job: AbandonedJob | None
    ) -> None:
        words, words_write = os.pipe()
        os.set_blocking(words, False)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(words)
            os.close(words_write)
            self._report(Exited(name, EXIT_BOOT << 8, f"cannot fork: {error}"))
            return
        if pid == 0:
            os.close(words)
            self._child(name, slot, role, maintain, words_write, job)
        os.close(words_write)
        self._children[name] = Child(name, slot, role, pid, words)
        self._report(Spawned(name, pid))

    def _child(
        self,
        name: str,
        slot: int,
        role: str,
        maintain: bool,
        words: int,
        job: AbandonedJob | None,
    ) -> NoReturn:
        """Be the new process: never returns into the server's loop."""
        status = EXIT_BOOT
        try:
            server = os.getppid()
            self._become_child(server)
            if role == "scheduler":
                run_scheduler(self._plan)
            elif job is not None:
                run_callbacks(self._plan.settings, name, job)
            else:
                settings = self._plan.settings
                run_worker(settings, name, Slot(self._board, slot, name), maintain)
            status = 0
        except BaseException as error:
            status = EXIT_IMPORT if isinstance(error, ImportFailed) else EXIT_BOOT
            if isinstance(error, SystemExit) and error.code in (None, 0):
                status = 0
            else:
                traceback.print_exc()
                text = "".join(traceback.format_exception_only(error)).strip()
                os.write(words, text.encode()[:MOST_TEXT])
        finally:
            flush_output()
            os._exit(status)

    def _become_child(self, server: int) -> None:
        die_without(server)
        os.setsid()
        with contextlib.suppress(OSError), open(OOM_SCORE, "w") as score:
            score.write(WILLING)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for fd in (*self._inherited, *(child.words for child in self._children.values())):
            os.close(fd)
        gc.enable()
        random.seed()

    def _reap(self) -> None:
        """Reap every child that has ended, and report those the pool knows."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            child = next((c for c in self._children.values() if c.pid == found.si_pid), None)
            if child is not None and (found.si_code != os.CLD_EXITED or found.si_status):
                kill_session(child.pid)
            if self._throttler is not None:
                self._throttler.forget(found.si_pid)
            _, status = os.waitpid(found.si_pid, 0)
            if child is not None:
                del self._children[child.name]
                self._report(Exited(child.name, status, child.read_error()))

    def _end_all(self) -> None:
        """The pool has ended: resume held workers, stop all, and kill those that do not stop."""
        if self._throttler is not None:
            self._throttler.resume_all()
        for child in self._children.values():
            os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + self._plan.terminate
        while self._children and time.monotonic() < deadline:
            select.select([self._wake], [], [], LINGER)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._reap()
        for child in self._children.values():
            kill_session(child.pid)


def run_scheduler(plan: ForkServerPlan) -> None:
    """Run RQ's scheduler for the pool until stopped."""
    scheduler = RQScheduler(
        list(plan.settings.queues),
        connection=connect(plan.settings),
        logging_level=plan.settings.logging_level,
        log_format=plan.settings.log_format,
        date_format=plan.settings.date_format,
        serializer=plan.settings.serializer,
    )
    scheduler.acquire_locks()
    scheduler.work()


def _nothing(*_: object) -> None:
    """Make SIGCHLD write to the wake-up descriptor; the loop does the rest."""


def main(control_fd: int, pool_pid: int) -> None:
    """Run the fork server on an inherited socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    adopt_orphans()
    with contextlib.suppress(EOFError):
        ForkServer(Connection(control_fd), pool_pid).serve()
