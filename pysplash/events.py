"""Events: what happens to jobs, workers and pools, told to functions of yours.

``pysplash.on("job_failed", function)`` has *function* called with each event of that name, in the
process where it happens: events of jobs and ``worker_started`` in the worker, ``worker_died`` and
``scaled`` in the pool's process. Nobody has to patch a worker or read its log. The names follow
Celery's signals; the facts are plain values, so that they can be kept or sent anywhere.
"""

from __future__ import annotations

import difflib
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from .errors import ConfigError
from .log import Seldom, logger

Function = TypeVar("Function", bound=Callable[..., Any])
Listeners = list[Callable[..., Any]]

#: seconds between two lines of the log on errors of one function
COMPLAIN = 60.0
#: characters of an error's text that an event carries
LONGEST_TEXT = 1000

log = logger("events")


@dataclass(frozen=True, slots=True)
class JobEvent:
    """``job_started``, ``job_finished`` and ``job_failed``: one run of a job."""

    event: str
    #: the job's id, the import path of its function, the names of its queue and of its worker
    id: str
    function: str
    queue: str
    worker: str
    #: wall-clock seconds from the start of the run to its end; 0.0 at the start
    seconds: float = 0.0
    #: of a failure: the exception's class, with its module unless built in, and its text.
    #: A job that was stopped has no class; one whose worker died has RQ's AbandonedJobError
    error: str = ""
    text: str = ""
    #: whether the job runs again: by ``Retry``, left to it or returned by it
    retried: bool = False
    #: whether somebody stopped the job; RQ never retries such a job
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """``worker_started`` and ``worker_died``: one worker process."""

    event: str
    name: str
    pid: int
    #: of a death: how the process ended, and why the pool ended it if it did
    cause: str = ""
    #: of a death: the ids of the jobs the worker had, each with what was done with it:
    #: "returned" (to its queue, never begun), "requeued", "retried", "failed", "kept" (its outcome
    #: was stored already), "vanished", "set aside" (unreadable), "not settled" (the pool ended)
    jobs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """``scaled``: the pool has set itself another number of workers to have."""

    event: str
    pool: str
    #: the number of workers the pool aimed at until now, and from now on
    before: int
    after: int
    #: one word, as in the log and the record: ``backlog``, ``cpu``, ``memory``, ``idle`` ...
    reason: str
    #: the workers there are now, whatever they do
    workers: int
    #: jobs that wait in the pool's queues; None while Redis does not answer
    queued: int | None
    #: per cent in use of the cores and of the memory the pool may use
    cpu: float
    mem: float


#: the functions to call, by event; looked at where it happens, so that nobody pays for none
JOB_STARTED: Listeners = []
JOB_FINISHED: Listeners = []
JOB_FAILED: Listeners = []
WORKER_STARTED: Listeners = []
WORKER_DIED: Listeners = []
SCALED: Listeners = []

_LISTENERS: dict[str, Listeners] = {
    "job_started": JOB_STARTED,
    "job_finished": JOB_FINISHED,
    "job_failed": JOB_FAILED,
    "worker_started": WORKER_STARTED,
    "worker_died": WORKER_DIED,
    "scaled": SCALED,
}
#: events that happen in the pool's own process; all others happen in workers
OF_THE_POOL = ("worker_died", "scaled")

_complaints: dict[str, Seldom] = {}


@overload
def on(event: str, function: Function, /) -> Function: ...


@overload
def on(event: str, /) -> Callable[[Function], Function]: ...


def on(
    event: str, function: Function | None = None, /
) -> Function | Callable[[Function], Function]:
    """Have *function* called with each *event* of this process; return it unchanged.

    Also a decorator: ``@pysplash.on("job_failed")``. Events are ``job_started``, ``job_finished``
    and ``job_failed`` (:class:`JobEvent`), ``worker_started`` and ``worker_died``
    (:class:`WorkerEvent`), and ``scaled`` (:class:`ScaleEvent`). Several functions are called in
    the order in which they were registered; one that raises is named in the log, at most once a
    minute, and changes nothing else. In a worker the next job waits for it, so it should be brief.

    Raises :class:`~pysplash.errors.ConfigError` for an event that does not exist, and for what
    cannot be called or is a coroutine function.
    """
    listeners = _LISTENERS.get(event) if isinstance(event, str) else None
    if listeners is None:
        raise ConfigError(_unknown(event))

    def register(function: Function) -> Function:
        if not callable(function):
            raise ConfigError(f"{function!r} cannot be called: give on() a function")
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{shown(function)} is a coroutine function, which nobody would await: "
                "give on() a plain one"
            )
        listeners[:] = [known for known in listeners if not _is_same(known, function)]
        listeners.append(function)
        return function

    return register if function is None else register(function)


def _unknown(event: Any) -> str:
    near = difflib.get_close_matches(str(event), _LISTENERS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no event {event!r}: {hint}Events are {', '.join(_LISTENERS)}"


def _is_same(known: Any, function: Any) -> bool:
    """Return whether two functions are one, or one of a module that is loaded once more."""
    place = shown(function)
    return known == function or (shown(known) == place and "<" not in place and _is_plain(function))


def _is_plain(function: Any) -> bool:
    return inspect.isfunction(function)


def shown(function: Any) -> str:
    """Return where a function is from, as "module.name"."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', '?')}.{name}"


def registered() -> tuple[tuple[str, str], ...]:
    """Return what this process listens to: each event with the place of the function."""
    return tuple(
        (event, shown(function))
        for event, listeners in _LISTENERS.items()
        for function in listeners
    )


def tell(listeners: Iterable[Callable[..., Any]], event: object) -> None:
    """Call each of *listeners* with *event*; an error of one is logged, now and then."""
    for listener in tuple(listeners):
        try:
            listener(event)
        except (Exception, SystemExit) as error:
            _complain(listener, event, error)


def _complain(listener: Any, event: Any, error: BaseException) -> None:
    place = shown(listener)
    if _complaints.setdefault(place, Seldom(COMPLAIN)).due(time.monotonic()):
        log.error(
            "%s, called for %s, failed and is ignored (the next line on it in a minute at the "
            "earliest): %s: %s",
            place,
            event.event,
            class_of(error),
            text_of(error),
            exc_info=error,
            extra={"action": "event", "function": place},
        )


def class_of(error: BaseException) -> str:
    """Return the name of an exception's class, with its module unless that is built in."""
    kind = type(error)
    builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """Return what an exception says, cut short; one that cannot even say that says nothing."""
    try:
        return str(error)[:LONGEST_TEXT]
    except Exception:
        return ""
