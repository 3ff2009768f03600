"""The table of what a job may leave changed in its process: what, how it is read and put back."""

from __future__ import annotations

import asyncio
import functools
import gc
import locale
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

#: what the module signal wraps in enums, which takes ten times as long
_raw: Any = import_module("_signal")
#: what the worker itself needs, and Python for the ends of child processes
_NEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)
_OTHERS = tuple(
    sorted(
        signal.valid_signals() - {*_NEEDED, signal.SIGALRM, signal.SIGKILL, signal.SIGSTOP},
        key=int,
    )
)
_LIMITS = tuple(
    (name, getattr(resource, f"RLIMIT_{name}"))
    for name in ("NOFILE", "AS", "CPU", "FSIZE", "NPROC")
    if hasattr(resource, f"RLIMIT_{name}")
)
#: the decimal context of a thread in which nobody has changed it
_PLAIN = (
    28,
    "ROUND_HALF_EVEN",
    -999999,
    999999,
    frozenset(["DivisionByZero", "InvalidOperation", "Overflow"]),
)
#: the variable that the worker sets for each job
JOB_ID = b"RQ_JOB_ID"


class Trait(NamedTuple):
    """One thing of a process that a job may change.

    ``put_back`` is called with the first value and the present one.
    """

    name: str
    read: Callable[[], Any]
    put_back: Callable[[Any, Any], object]
    #: whether it is looked at after each job
    cheap: bool = False
    #: whether the worker needs it as it was, whoever changed it
    needed: bool = False
    #: whether it is put back without a word, as it changes in the course of things
    quiet: bool = False
    #: whether it is the timeouts' while one is in force
    alarm: bool = False


# --- signals ---


def _set_handler(number: int, first: Any, _: Any = None) -> None:
    _raw.signal(number, _raw.SIG_DFL if first is None else first)


def _handler(number: int, *, cheap: bool, alarm: bool = False) -> Trait:
    return Trait(
        f"the handler of {signal.Signals(number).name}",
        functools.partial(_raw.getsignal, number),
        functools.partial(_set_handler, number),
        cheap=cheap,
        needed=True,
        alarm=alarm,
    )


def _other_handlers() -> tuple[Any, ...]:
    return tuple(map(_raw.getsignal, _OTHERS))


def _put_back_handlers(first: Any, now: Any) -> None:
    for number, before, present in zip(_OTHERS, first, now, strict=True):
        if before != present:
            _set_handler(number, before)


def _wake_up() -> int:
    fd: int = _raw.set_wakeup_fd(-1, warn_on_full_buffer=False)
    if fd >= 0:
        try:
            _raw.set_wakeup_fd(fd, warn_on_full_buffer=False)
        except (OSError, ValueError):
            return -2  # whoever set it has closed it
    return fd


def _put_back_wake_up(fd: int, _: Any) -> None:
    _raw.set_wakeup_fd(fd, warn_on_full_buffer=False)


def _mask() -> frozenset[int]:
    return frozenset(_raw.pthread_sigmask(signal.SIG_BLOCK, ()))


def _put_back_mask(first: Any, _: Any) -> None:
    _raw.pthread_sigmask(signal.SIG_SETMASK, first)


def _is_timer_set() -> bool:
    return bool(_raw.getitimer(signal.ITIMER_REAL)[0])


def _put_back_timer(first: bool, _: Any) -> None:
    if not first:
        _raw.setitimer(signal.ITIMER_REAL, 0)


# --- the process as the system has it ---


def differing(first: dict[bytes, bytes], now: dict[bytes, bytes]) -> list[str]:
    """Return the names of the variables that differ; the job's id is the worker's own."""
    names = {name for name in {*first, *now} if first.get(name) != now.get(name)}
    return sorted(os.fsdecode(name) for name in names - {JOB_ID})


def _environment() -> Any:
    return os.environ._data  # type: ignore[attr-defined]


def _put_back_environment(first: Any, now: Any) -> None:
    for name in differing(first, now):
        key = os.fsencode(name)
        if key in first:
            os.environb[key] = first[key]
        else:
            os.environb.pop(key, None)
        if name == "TZ":
            time.tzset()


def _umask() -> int:
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def _limits() -> tuple[tuple[int, int], ...]:
    return tuple(resource.getrlimit(number) for _, number in _LIMITS)


def _put_back_limits(first: Any, now: Any) -> None:
    for (_, number), before, present in zip(_LIMITS, first, now, strict=True):
        if before != present:
            resource.setrlimit(number, before)


def _user() -> tuple[int, ...]:
    return os.getuid(), os.geteuid(), os.getgid(), os.getegid()


def _put_back_user(first: Any, _: Any) -> None:
    os.setreuid(*first[:2])
    os.setregid(*first[2:])


def _cores() -> Any:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


# --- the interpreter ---


def _hooks() -> tuple[Any, ...]:
    return (sys.excepthook, threading.excepthook, sys.unraisablehook)


def _put_back_hooks(first: Any, _: Any) -> None:
    sys.excepthook, threading.excepthook, sys.unraisablehook = first


def _loop() -> tuple[Any, ...]:
    """Return asyncio's policy, and this thread's loop as it has it."""
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    held = getattr(policy, "_local", None)
    loop, is_set = getattr(held, "_loop", None), getattr(held, "_set_called", False)
    return policy, loop, is_set, getattr(policy, "_watcher", None)


def _put_back_loop(first: Any, _: Any) -> None:
    policy, loop, is_set, watcher = first
    asyncio.events._event_loop_policy = policy  # type: ignore[attr-defined]
    held = getattr(policy, "_local", None)
    if held is not None:
        held._loop, held._set_called = loop, is_set
    if hasattr(policy, "_watcher"):
        policy._watcher = watcher


def _decimals() -> tuple[Any, ...]:
    module = sys.modules.get("decimal")
    if module is None:
        return _PLAIN
    context = module.getcontext()
    traps = frozenset(trap.__name__ for trap, is_set in context.traps.items() if is_set)
    return context.prec, context.rounding, context.Emin, context.Emax, traps


def _put_back_decimals(first: Any, _: Any) -> None:
    context = sys.modules["decimal"].getcontext()
    context.prec, context.rounding, context.Emin, context.Emax, traps = first
    for trap in context.traps:
        context.traps[trap] = trap.__name__ in traps


TRAITS = (
    *(_handler(number, cheap=number != signal.SIGCHLD) for number in _NEEDED),
    Trait("the environment", _environment, _put_back_environment, cheap=True),
    Trait("the working folder", os.getcwdb, lambda first, _: os.chdir(first), cheap=True),
    Trait(
        "the recursion limit",
        sys.getrecursionlimit,
        lambda first, _: sys.setrecursionlimit(first),
    ),
    Trait(
        "garbage collection",
        gc.isenabled,
        lambda first, _: gc.enable() if first else gc.disable(),
    ),
    Trait("asyncio's present loop", _loop, _put_back_loop, quiet=True),
    _handler(signal.SIGALRM, cheap=False, alarm=True),
    Trait("the handler of a signal", _other_handlers, _put_back_handlers),
    Trait("the wake-up descriptor of signals", _wake_up, _put_back_wake_up, needed=True),
    Trait("blocked signals", _mask, _put_back_mask, needed=True),
    Trait("the alarm", _is_timer_set, _put_back_timer, needed=True, alarm=True),
    Trait("the umask", _umask, lambda first, _: os.umask(first)),
    Trait("resource limits", _limits, _put_back_limits),
    Trait(
        "the priority",
        lambda: os.getpriority(os.PRIO_PROCESS, 0),
        lambda first, _: os.setpriority(os.PRIO_PROCESS, 0, first),
    ),
    Trait("the cores it may use", _cores, lambda first, _: os.sched_setaffinity(0, first)),
    Trait("the process group", os.getpgrp, lambda first, _: os.setpgid(0, first), needed=True),
    Trait("the user or group", _user, _put_back_user, needed=True),
    Trait("the decimal context", _decimals, _put_back_decimals),
    Trait(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda first, _: locale.setlocale(locale.LC_ALL, first),
    ),
    Trait(
        "the default timeout of sockets",
        socket.getdefaulttimeout,
        lambda first, _: socket.setdefaulttimeout(first),
    ),
    Trait("an exception hook", _hooks, _put_back_hooks),
)
