"""A worker written in another language: one long-lived child per worker, frames both ways.

The child reads a frame from standard input, writes a frame to standard output, and so on until
its standard input ends. It is started when it is first needed, and started anew when it has
died; whoever abandons a request, by a timeout or a stop, takes the child with it, for nobody
knows any more what its next bytes would answer.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import shlex
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pysplash.errors import ConfigError, CoprocessDied, FrameError
from pysplash.framed import LIMIT, FrameReader, pack
from pysplash.host.processes import die_with_the_parent

from .registry import teardown

#: seconds between two starts of a child that dies at once, at first and at most
FIRST, MOST = 0.1, 30.0
#: seconds a child has to leave once its standard input has ended
LEAVE = 2.0
CHUNK = 65536


class Coprocess:
    """A function from bytes to bytes that another program runs: ``upper = Coprocess(["./upper"])``.

    Made once, at the top level of a module; each worker has a child of its own. ``upper(b"abc")``
    sends one frame and returns what one frame carries, so a coprocess is a handler for
    ``pysplash daemon`` as it stands, and is called by any task or stage. *command* is the program
    and its arguments (a text is split as a shell would), run in the folder *cwd* with *env* added
    to its environment. *timeout* is seconds one request may take (None: the job's own timeout is
    all there is); *limit* is bytes an answer may carry. *name* is the handler's for tools.

    A child that died is started anew by the next request, after a pause that doubles from 0.1 s
    to 30 s while requests fail. Its standard error is the worker's. Not for use by several
    threads at once.

    Raises :class:`~pysplash.errors.ConfigError` for a command that cannot be meant.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        limit: int = LIMIT,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        name: str = "coprocess",
    ) -> None:
        words = shlex.split(command) if isinstance(command, str) else [str(w) for w in command]
        if not words:
            raise ConfigError("a coprocess has no command: give a program and its arguments")
        if timeout is not None and not timeout > 0:
            raise ConfigError(f"timeout of a coprocess is {timeout!r}: give seconds above 0")
        self._command = words
        self._timeout = timeout
        self._limit = limit
        self._cwd = cwd
        self._env = dict(env or {})
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._turn = threading.Lock()
        self._pause = 0.0
        self._not_before = 0.0
        self.__name__ = self.__qualname__ = name
        self.__doc__ = f"{Path(words[0]).name}, a coprocess"
        _ALL.add(self)

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        child = self._child if self._owner == os.getpid() else None
        return child.pid if child is not None and child.poll() is None else None

    def __call__(self, data: bytes) -> bytes:
        """Return what the child answers to *data*.

        Raises :class:`~pysplash.errors.CoprocessDied` if it ends, cannot be started, answers
        with no frame, or not in time; it is then started anew for the next request.
        """
        frame = pack(data)
        if not self._turn.acquire(timeout=-1 if self._timeout is None else self._timeout):
            raise CoprocessDied(
                f"coprocess {self._command[0]} was in use by other threads for "
                f"{self._timeout:g} s: make one for each thread"
            )
        try:
            return self._ask(frame)
        finally:
            self._turn.release()

    def begin_anew(self) -> None:
        """Be a forked process's own: the child, and a turn that was taken, are the parent's."""
        self._child, self._owner = None, os.getpid()
        self._turn = threading.Lock()
        self._pause = self._not_before = 0.0

    def _ask(self, frame: bytes) -> bytes:
        child = self._running()
        try:
            answer = self._exchange(child, frame)
        except BaseException:
            self._kill()
            self._pause = min(MOST, max(FIRST, 2 * self._pause))
            self._not_before = time.monotonic() + self._pause
            raise
        self._pause = 0.0
        return answer

    def close(self) -> None:
        """End the child: close its standard input, and kill it after two seconds."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        _close(child)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LEAVE)
            return
        child.kill()
        child.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the running child; start one if there is none."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._kill()
        time.sleep(max(0.0, self._not_before - time.monotonic()))
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=self._cwd,
                env={**os.environ, **self._env},
                bufsize=0,
                preexec_fn=_ends_with_the_parent(),  # noqa: PLW1509 -- one system call, no Python lock
            )
        except OSError as error:
            raise CoprocessDied(
                f"coprocess {self._command[0]} cannot be started ({error.strerror}): "
                "check its command"
            ) from error
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        return self._child

    def _exchange(self, child: subprocess.Popen[bytes], frame: bytes) -> bytes:
        assert child.stdin is not None
        assert child.stdout is not None
        until = None if self._timeout is None else time.monotonic() + self._timeout
        rest = memoryview(frame)
        reader = FrameReader(self._limit)
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            selector.register(child.stdin, selectors.EVENT_WRITE)
            while True:
                for key, _ in self._wait(selector, until):
                    if key.fileobj is child.stdout:
                        if (answer := self._read(child.stdout.fileno(), reader)) is not None:
                            return answer
                    else:
                        rest = rest[self._write(child.stdin.fileno(), rest) :]
                        if not rest:
                            selector.unregister(child.stdin)

    def _wait(
        self, selector: selectors.BaseSelector, until: float | None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        left = None if until is None else until - time.monotonic()
        ready = selector.select(left) if left is None or left > 0 else []
        if not ready and until is not None and time.monotonic() >= until:
            raise CoprocessDied(
                f"coprocess {self._command[0]} did not answer within {self._timeout:g} s"
            )
        return ready

    def _read(self, pipe: int, reader: FrameReader) -> bytes | None:
        """Read what has come; return the payload of a frame that is complete."""
        try:
            data = os.read(pipe, min(CHUNK, reader.wanted))
            payloads = reader.feed(data)
        except BlockingIOError:
            return None
        except FrameError as error:
            raise CoprocessDied(f"coprocess {self._command[0]}: {error}") from None
        if not data:
            raise CoprocessDied(f"coprocess {self._command[0]} ended instead of answering")
        return payloads[0] if payloads else None

    def _write(self, pipe: int, rest: memoryview) -> int:
        try:
            return os.write(pipe, rest[:CHUNK])
        except BlockingIOError:
            return 0
        except OSError:
            raise CoprocessDied(f"coprocess {self._command[0]} ended instead of reading") from None

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            _close(child)
            child.wait()


_ALL: weakref.WeakSet[Coprocess] = weakref.WeakSet()


@atexit.register
@teardown
def close_all() -> None:
    """End the children of all coprocesses with the worker."""
    for coprocess in list(_ALL):
        coprocess.close()


def _ends_with_the_parent() -> Callable[[], None] | None:
    """Return what makes a child end with this process; None where it would end with this thread.

    Its standard input ends with the process at any rate.
    """
    return die_with_the_parent if threading.current_thread() is threading.main_thread() else None


def _begin_all_anew() -> None:
    for coprocess in list(_ALL):
        coprocess.begin_anew()


os.register_at_fork(after_in_child=_begin_all_anew)


def _close(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
