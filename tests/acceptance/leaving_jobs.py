"""Jobs that leave their process changed, fork it, or do not notice that they are to end."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import gc
import locale
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, NoReturn

from redis import Redis
from rq import Queue
from rq.job import Job

from pysplash import Worker, wait_jobs
from tests.acceptance.jobs import mark, nap

os.environ["SET_BY_AN_IMPORT"] = "kept"


def describe() -> dict[str, Any]:
    """Return what this process is like, as far as a job may change it."""
    wake_up = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
    mask = os.umask(0)
    os.umask(mask)
    try:
        asyncio.get_event_loop_policy().get_event_loop().close()
        loop = "a new one"
    except RuntimeError as error:
        loop = str(error)
    asyncio.set_event_loop_policy(None)
    numbers = sorted(signal.valid_signals() - {signal.SIGALRM})  # the timeout has that one now
    handlers = [repr(signal.getsignal(number)) for number in numbers]
    return {
        "handlers": handlers,
        "wake-up": wake_up >= 0,
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "folder": os.getcwd(),
        "umask": mask,
        "environment": {k: v for k, v in os.environ.items() if k != "RQ_JOB_ID"},
        "recursion": sys.getrecursionlimit(),
        "gc": gc.isenabled(),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "locale": locale.setlocale(locale.LC_ALL),
        "digits": decimal.getcontext().prec,
        "timeout": socket.getdefaulttimeout(),
        "streams": [os.fstat(fd)[:3] for fd in (0, 1, 2)],
        "open": [stream.closed for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "loop": loop,
    }


def change(what: str) -> None:
    """Leave *what* changed; not as a brief job, after which not all is looked at."""
    globals()[f"_change_{what}"]()
    time.sleep(0.02)  # noqa: TID251 -- it is no brief job


def _change_handler() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def _change_interrupts() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _change_wakeup() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(main())


def _change_mask() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])


def _change_alarm() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 30)


def _change_folder() -> None:
    os.chdir(tempfile.gettempdir())


def _change_lost_folder() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def _change_umask() -> None:
    os.umask(0o777)


def _change_environment() -> None:
    os.environ["TENANT"] = "a secret"
    os.environ.pop("HOME", None)
    os.environ["PATH"] += ":/nowhere"


def _change_limits() -> None:
    sys.setrecursionlimit(5000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _change_gc() -> None:
    gc.disable()
    decimal.getcontext().prec = 3
    socket.setdefaulttimeout(0.5)


def _change_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    locale.setlocale(locale.LC_NUMERIC, "C")


def _change_streams() -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- it is left open
    os.close(1)


def _change_closed() -> None:
    sys.stderr.close()
    with contextlib.suppress(OSError):
        os.close(2)


def _change_cores() -> None:
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])


def _change_loop() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()


KINDS = [name.removeprefix("_change_") for name in list(globals()) if name.startswith("_change_")]


def leave_for_good() -> int:
    """Leave something changed that the process cannot put back; return its id."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard - 1))
    time.sleep(0.1)  # noqa: TID251 -- it is no brief job
    return os.getpid()


def hear_terms(path: str, seconds: float) -> str:
    """Handle SIGTERM in the job, and go on."""
    signal.signal(signal.SIGTERM, lambda *_: mark(path, "term"))
    mark(path, "begun")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)  # noqa: TID251 -- this is the job
    return "done"


def around(url: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Change folder and environment, wait for a job run inside; return what both see, and then."""
    queue = Queue(connection=Redis.from_url(url))
    os.chdir(tempfile.gettempdir())
    os.environ["TENANT"] = "outer"
    before = place()
    job = queue.enqueue(place)
    found = wait_jobs([job], collect_results=True)
    assert isinstance(found, list)
    return before, found[0], place()


def place() -> dict[str, str]:
    """Return where it is, and for whom."""
    return {
        "pid": str(os.getpid()),
        "folder": os.getcwd(),
        "tenant": os.environ.get("TENANT", ""),
    }


def fork(path: str, how: str) -> int:
    """Fork a process that comes back from this job, too, by *how*."""
    child = os.fork()
    if child == 0:
        mark(path, str(os.getpid()))
        if how == "exit":
            sys.exit(7)
        if how == "raise":
            raise ValueError("in the child")
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def terminate_child() -> int | None:
    """Start a child process by a fork, and end it as multiprocessing does."""
    process = multiprocessing.get_context("fork").Process(target=nap, args=(60.0,))
    process.start()
    process.terminate()
    process.join(10)
    ended = process.exitcode
    process.kill()
    return ended


def blocked(path: str) -> int:
    """Be inside a call in C for a minute."""
    mark(path, "begun")
    return os.system("sleep 61")


def heedless(path: str) -> NoReturn:
    """Go on, whatever is raised."""
    mark(path, "begun")
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)  # noqa: TID251 -- this is the job


def around_blocked(url: str, path: str) -> None:
    """Wait for a job that runs inside and is blocked."""
    job = Queue(connection=Redis.from_url(url)).enqueue(blocked, path, job_id="inner")
    wait_jobs([job])


def note_stop_slowly(job: Job, connection: Redis) -> None:
    """Be a callback of a stop that takes its time."""
    connection.set("stopped", job.id)
    time.sleep(5)  # noqa: TID251 -- this is the callback
    connection.set("told", job.id)


def leave_children(count: int) -> int:
    """Start child processes and wait for none; return the worker's id."""
    for _ in range(count):
        os.posix_spawn("/bin/true", ["true"], {})
    subprocess.run(["sleep", "0.3"], check=True)
    return os.getpid()


class Own(Worker):
    """A worker class of the user's: RQ's own code runs its jobs."""

    def perform_job(self, *arguments: Any, **named: Any) -> bool:
        """Do as RQ does."""
        return bool(super().perform_job(*arguments, **named))
