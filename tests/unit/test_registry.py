"""Naming what may be called: good names, bad names, names taken twice, and the hooks."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from rq.utils import import_attribute

import pysplash.plain_tasks
import pysplash.tasks
from pysplash.application.registry import (
    REGISTRY,
    Registry,
    TaskSpec,
    check_name,
    parse_parameters,
    task,
)
from pysplash.client.discovery import PoolFacts, in_order, read_pool
from pysplash.errors import ConfigError, UnknownTask
from pysplash.supervisor.presence import offered, write_about

TASK = {"name": "t", "queue": "a", "timeout": None, "signature": "()", "help": ""}


def add(a: int, b: int = 2) -> int:
    """Return the sum.

    And nothing else.
    """
    return a + b


def other() -> None:
    """Be another function."""


def maker() -> Callable[[], int]:
    """Return a function as a module that is loaded again makes it."""

    def made() -> int:
        return 1

    return made


@pytest.mark.parametrize("name", ["add", "math.add", "a.b.c", "größe", "x1", "a" * 120])
def test_names_that_are_usable(name: str) -> None:
    """Words with dots between them name tasks."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "two words",
        "a-b",
        "1a",
        ".a",
        "a.",
        "a..b",
        "_a",
        "a._b",
        "__import__",
        "rpc.discover",
        "rpc",
        "import",
        "a.class",
        "a\n",
        "a" * 121,
        "a(b)",
        5,
        None,
    ],
)
def test_names_that_are_not(name: Any) -> None:
    """Anything else is refused, with what a name may be."""
    with pytest.raises(ConfigError, match="is not usable: give at most 120 characters"):
        check_name(name)


def test_a_task_stays_the_function_it_was() -> None:
    """The decorator gives back what it was given, bare and with arguments."""

    def plain() -> None:
        """Do nothing."""

    assert task(plain) is plain
    assert task(name="unit.named", queue="fast", timeout=5)(plain) is plain
    spec = next(spec for spec in REGISTRY.specs() if spec.name == "unit.named")
    assert spec == TaskSpec("unit.named", "fast", 5, "() -> None", "Do nothing.")
    assert REGISTRY.function("plain") is plain


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"timeout": 0}, "timeout of a task is 0"),
        ({"timeout": -1}, "timeout of a task is -1"),
        ({"timeout": 1.5}, "timeout of a task is 1.5"),
        ({"timeout": True}, "timeout of a task is True"),
        ({"queue": ""}, "queue name '' is not usable"),
        ({"queue": 7}, "queue name 7 is not usable"),
        ({"name": "os system"}, "task name 'os system' is not usable"),
    ],
)
def test_settings_that_make_no_sense(arguments: dict[str, Any], said: str) -> None:
    """What is wrong with a task is said where it is defined."""
    with pytest.raises(ConfigError, match=said):
        task(**arguments)(other)


def test_what_is_no_function_is_no_task() -> None:
    """A value below the decorator is refused; so is a lambda, which has no name."""
    with pytest.raises(ConfigError, match="5 is no function"):
        task(5)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="'<lambda>' is not usable"):
        task(lambda: 1)


def test_a_name_is_taken_once() -> None:
    """A second function of the same name is refused, and both are named."""
    registry = Registry()
    registry.add(add, TaskSpec("add"))
    with pytest.raises(ConfigError, match=r"'add' is taken twice, by .*\.add and by .*\.other"):
        registry.add(other, TaskSpec("add"))
    assert registry.function("add") is add


def test_a_module_loaded_again_takes_its_own_names() -> None:
    """The same function, made anew, replaces the old one."""
    registry = Registry()
    registry.add(maker(), TaskSpec("made"))
    again = maker()
    registry.add(again, TaskSpec("made", timeout=3))
    assert registry.function("made") is again
    assert registry.specs() == (TaskSpec("made", timeout=3),)


def test_an_unknown_task_is_told_what_to_do() -> None:
    """A worker that lacks a module says which flag brings it."""
    with pytest.raises(UnknownTask, match="knows no task 'nope': name its module with --preload"):
        Registry().function("nope")


def test_hooks_run_in_order_and_backwards() -> None:
    """Setup hooks run as registered, teardown hooks the other way; arguments are optional."""
    registry, seen = Registry(), []

    def first(parameters: Mapping[str, str]) -> None:
        seen.append(("first", parameters["db"]))

    def second() -> None:
        seen.append(("second", ""))

    for hook in (first, second):
        registry.add_setup(hook)
        registry.add_teardown(hook)
    registry.set_up({"db": "users"})
    registry.tear_down({"db": "users"})
    assert seen == [("first", "users"), ("second", ""), ("second", ""), ("first", "users")]


def test_parameters_are_key_and_value() -> None:
    """The first equals sign separates; the value may be anything, nothing too."""
    assert parse_parameters(["a=1", "url=x=y", "empty="]) == {"a": "1", "url": "x=y", "empty": ""}
    with pytest.raises(ConfigError, match="parameter 'nonsense' is no key=value"):
        parse_parameters(["nonsense"])
    with pytest.raises(ConfigError, match="parameter '=1' is no key=value"):
        parse_parameters(["=1"])


@pytest.mark.parametrize("module", [pysplash.tasks, pysplash.plain_tasks])
def test_nothing_but_tasks_is_to_be_found_by_name(module: Any) -> None:
    """Whatever a job names there, it is a registered task or an error: no module, no builtin."""
    for name in ("os", "os.system", "json", "add_ons", "annotations", "REGISTRY", "print", "eval"):
        with pytest.raises(UnknownTask):
            getattr(module, name)()
    public = [name for name in vars(module) if not name.startswith("_")]
    assert public == []


def test_a_plain_task_returns_json() -> None:
    """The plain form of a task is text; what JSON has no form for is an error."""

    @task(name="unit.pair")
    def pair(a: Any, b: Any) -> Any:
        return {"a": a, "b": [b]}

    function = getattr(pysplash.plain_tasks, "unit.pair")
    assert function(1, b=None) == '{"a": 1, "b": [null]}'
    with pytest.raises(TypeError, match="not JSON serializable"):
        function(object(), 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        function(float("nan"), 1)


def test_a_plain_coroutine_is_run() -> None:
    """An asynchronous task is awaited before its result is written."""

    @task(name="unit.later")
    async def later() -> int:
        return 5

    assert getattr(pysplash.plain_tasks, "unit.later")() == "5"


@pytest.mark.parametrize(
    ("queues", "named", "queue"),
    [
        (("default",), None, "default"),
        (("high", "default"), None, "default"),
        (("high", "low"), None, "high"),
        (("high", "low"), "low", "low"),
        (("high",), "elsewhere", "elsewhere"),
    ],
)
def test_the_queue_of_a_task(queues: tuple[str, ...], named: str | None, queue: str) -> None:
    """A task's own queue; else default; else the pool's first."""
    (offer,) = offered([TaskSpec("t", named)], queues)
    assert offer.queue == queue


def test_what_a_pool_says_is_read_as_it_was_said() -> None:
    """Facts survive being stored."""
    facts = PoolFacts(
        "p", "host", 1, "0", 5.5, ("a", "b"), None, offered([TaskSpec("t", "b", 3)], ("a",))
    )
    stored = [write_about(facts).encode(), b"1", b'{"target":3}']
    read = read_pool(stored)
    assert read == PoolFacts(
        **{name: getattr(facts, name) for name in facts.__slots__ if name not in ("open", "state")},
        open=True,
        state={"target": 3},
    )
    assert pickle.loads(pickle.dumps(read)) == read


def test_pools_of_other_versions() -> None:
    """Fields of a later version are passed over; a pool that makes no sense hides no other."""
    about = json.loads(write_about(PoolFacts("p", "h", 1, "9", 5.5, ("a",), None)))
    later = json.dumps(about | {"colour": "blue", "tasks": [dict.fromkeys("xy", 1) | TASK]})
    earlier = json.loads(later)
    del earlier["takes_bytes"]
    assert [
        pool.takes_bytes for pool in in_order([[json.dumps(earlier).encode(), b"1", None]])
    ] == [False]
    odd = [b"[]", b"{", b'{"name": 1}', b"5", None]
    found = in_order([*([text, b"1", b"null"] for text in odd), [later.encode(), b"0", None]])
    assert [(pool.name, pool.open, pool.task("t") is not None) for pool in found] == [
        ("p", False, True)
    ]


@pytest.mark.parametrize("place", ["pysplash.tasks", "pysplash.plain_tasks"])
def test_names_with_dots_are_found_at_once(place: str) -> None:
    """RQ's search finds tasks below one front however often, one after another, and no other."""
    for name in ("front.deep.one", "front.deep.two", "front.three"):
        REGISTRY.add(lambda name=name: name, TaskSpec(name))
        for _ in range(2):
            told = import_attribute(f"{place}.{name}")()
            assert told in (name, json.dumps(name))
    assert f"{place}.front.deep" in sys.modules
    with pytest.raises(UnknownTask, match=r"knows no task 'front\.deep\.four'"):
        import_attribute(f"{place}.front.deep.four")()
    with pytest.raises(UnknownTask):
        import_attribute(f"{place}.elsewhere.one")()
    assert f"{place}.elsewhere" not in sys.modules
