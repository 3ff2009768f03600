"""The registry: functions that may be called by name, and hooks of every worker.

Registering is all that ``@task`` does: the function stays what it was. A name is a key, never an
import path, so what was not registered cannot be reached by any name. The idea of naming a
function by a decorator is as old as remote calls; the names published for callers are too.
"""

from __future__ import annotations

import contextlib
import inspect
import keyword
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, overload

from pysplash.errors import ConfigError, UnknownTask

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = TypeVar("Hook", bound=Callable[..., Any])

#: characters a name, a signature and a line of help may have
LONGEST_NAME, LONGEST_TEXT = 120, 200
#: names that begin so belong to JSON-RPC itself
RESERVED = "rpc"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The facts of a task that callers see."""

    name: str
    #: the queue it is called through; None: the pool's
    queue: str | None = None
    #: seconds one run may take; None: RQ's default
    timeout: int | None = None
    signature: str = "(...)"
    help: str = ""


class Registry:
    """Registered functions by name, and the hooks that run once per worker."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self._specs: dict[str, TaskSpec] = {}
        self._setups: list[Callable[..., Any]] = []
        self._teardowns: list[Callable[..., Any]] = []

    def add(self, function: Callable[..., Any], spec: TaskSpec) -> None:
        """Register *function*; raise :class:`ConfigError` if another one has its name."""
        known = self._functions.get(spec.name)
        if known is not None and _place(known) != _place(function):
            raise ConfigError(
                f"task name {spec.name!r} is taken twice, by {_shown(known)} and by "
                f"{_shown(function)}: give one of them another, as in @task(name='other')"
            )
        self._functions[spec.name] = function
        self._specs[spec.name] = spec

    def function(self, name: str) -> Callable[..., Any]:
        """Return the function *name*; raise :class:`UnknownTask` if there is none."""
        try:
            return self._functions[name]
        except KeyError:
            raise UnknownTask(
                f"this worker knows no task {name!r}: name its module with --preload, and the same "
                "modules for all pools that serve one queue"
            ) from None

    def __contains__(self, name: str) -> bool:
        """Return whether there is a function *name*."""
        return name in self._functions

    def specs(self) -> tuple[TaskSpec, ...]:
        """Return all tasks, by name."""
        return tuple(self._specs[name] for name in sorted(self._specs))

    def add_setup(self, hook: Callable[..., Any]) -> None:
        """Register *hook* to run when a worker starts; loaded again, it replaces itself."""
        _enter(self._setups, hook)

    @property
    def has_setup(self) -> bool:
        """Whether there are setup hooks."""
        return bool(self._setups)

    def add_teardown(self, hook: Callable[..., Any]) -> None:
        """Register *hook* to run when a worker leaves."""
        _enter(self._teardowns, hook)

    def set_up(self, parameters: Mapping[str, str]) -> None:
        """Run the setup hooks in the order in which they were registered."""
        for hook in self._setups:
            _run(hook, parameters)

    def tear_down(self, parameters: Mapping[str, str]) -> None:
        """Run the teardown hooks, the last one first."""
        for hook in reversed(self._teardowns):
            _run(hook, parameters)


def shelve(place: str, name: str) -> None:
    """Make the task *name*, which has dots in it, importable below the module *place*.

    RQ would else try for each job which parts of the name are modules.
    """
    front, _, _ = name.rpartition(".")
    module = f"{place}.{front}"
    if front and module not in sys.modules and name in REGISTRY:
        shelf = ModuleType(module)
        shelf.__dict__["__getattr__"] = partial(_find, place, front)
        sys.modules[module] = shelf


def _find(place: str, front: str, name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(sys.modules[place], f"{front}.{name}")


def _enter(hooks: list[Callable[..., Any]], hook: Callable[..., Any]) -> None:
    hooks[:] = [known for known in hooks if _place(known) != _place(hook)] + [hook]


def _run(hook: Callable[..., Any], parameters: Mapping[str, str]) -> None:
    if inspect.signature(hook).parameters:
        hook(parameters)
    else:
        hook()


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    """Return where *function* is defined: the same for a module that is loaded once more."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = code.co_filename if code is not None else getattr(function, "__module__", "")
    return file, getattr(function, "__qualname__", repr(function))


def _shown(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"


#: the process's own: what its modules have registered
REGISTRY = Registry()


@overload
def task(function: Function, /) -> Function: ...


@overload
def task(
    *, name: str | None = None, queue: str | None = None, timeout: int | None = None
) -> Callable[[Function], Function]: ...


def task(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    timeout: int | None = None,
) -> Function | Callable[[Function], Function]:
    """Register a function as what may be called through a door; return it unchanged.

    *name* is what callers say, by default the function's own: identifiers with dots between them.
    *queue* is the queue it is called through, by default ``"default"`` or, in a pool that does
    not serve that, the pool's first. *timeout* is seconds one run may take, by default RQ's 180.

    A pool publishes what the modules of ``preload`` register. Raises
    :class:`~pysplash.errors.ConfigError` for a name that is taken or not usable.
    """

    def register(function: Function) -> Function:
        if not callable(function):
            raise ConfigError(f"{function!r} is no function: write @task above one")
        spec = TaskSpec(
            check_name(name if name is not None else getattr(function, "__name__", "")),
            _check_queue(queue),
            _check_timeout(timeout),
            _signature(function),
            _help(function),
        )
        REGISTRY.add(function, spec)
        return function

    return register if function is None else register(function)


def setup(hook: Hook) -> Hook:
    """Let *hook* run once in every worker of a pool, before it is ready; return it unchanged.

    It opens what all tasks of a worker share: a database, a model. It is given the parameters of
    ``--param`` (a mapping of texts), if it takes an argument. What it raises is a failed start of
    the worker. Several run in the order in which they were registered.
    """
    REGISTRY.add_setup(hook)
    return hook


def teardown(hook: Hook) -> Hook:
    """Let *hook* run once in every worker that leaves of itself; return it unchanged.

    It is given what :func:`setup` hooks are given; several run in reverse order. A worker that is
    killed runs none.
    """
    REGISTRY.add_teardown(hook)
    return hook


def check_name(name: str) -> str:
    """Return *name* if a task may have it; raise :class:`ConfigError` if not."""
    parts = name.split(".") if isinstance(name, str) else []
    usable = parts and len(name) <= LONGEST_NAME and parts[0] != RESERVED
    if not usable or not all(_is_plain(part) for part in parts):
        shown = repr(name) if len(str(name)) <= 40 else repr(str(name)[:37] + "...")
        raise ConfigError(
            f"task name {shown} is not usable: give at most {LONGEST_NAME} characters, words such "
            "as math.add, none with an underscore in front, the first not rpc"
        )
    return name


def _is_plain(part: str) -> bool:
    return part.isidentifier() and not part.startswith("_") and not keyword.iskeyword(part)


def _check_queue(queue: str | None) -> str | None:
    if queue is not None and not (isinstance(queue, str) and queue.strip() and len(queue) <= 255):
        raise ConfigError(f"queue name {queue!r} is not usable: give a name such as default")
    return queue


def _check_timeout(timeout: int | None) -> int | None:
    whole = isinstance(timeout, int) and not isinstance(timeout, bool)
    if timeout is not None and not (whole and timeout > 0):
        raise ConfigError(f"timeout of a task is {timeout!r}: give whole seconds of at least 1")
    return timeout


def _signature(function: Callable[..., Any]) -> str:
    for resolved in (True, False):  # annotations may name what is not imported where it runs
        with contextlib.suppress(Exception):
            return str(inspect.signature(function, eval_str=resolved))[:LONGEST_TEXT]
    return "(...)"


def _help(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0][:LONGEST_TEXT]


def parse_parameters(words: Iterable[str]) -> dict[str, str]:
    """Return what ``key=value`` words say; raise :class:`ConfigError` for anything else."""
    found: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name.strip():
            raise ConfigError(f"parameter {word!r} is no key=value: give one such as db=users.db")
        found[name.strip()] = value
    return found
