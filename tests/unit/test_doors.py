"""The doors' rules that need no socket: addresses, handlers, names of stages, what is reachable."""

from __future__ import annotations

import ast
import pathlib

import pytest

from pysplash import Coprocess, Gateway, Stage
from pysplash.application.forwarding import check_output, entry, stage_name
from pysplash.application.handlers import Handler, decode, encode, handler_path, task_name
from pysplash.errors import Busy, ConfigError, NotBytes, StageError, UnsafeBind
from pysplash.framed import split_address
from pysplash.gateway.binding import check_bind, is_local
from pysplash.gateway.memory import DoorCounts, Memory, kept

PACKAGE = pathlib.Path(__file__).parents[2] / "pysplash"
#: what a peer's bytes pass through, the commands that open doors included
GATEWAY = [
    *sorted((PACKAGE / "gateway").rglob("*.py")),
    PACKAGE / "framed.py",
    PACKAGE / "application" / "handlers.py",
    PACKAGE / "cli" / "serve.py",
]
#: import by a name that no peer gives: a door's own module; a pool's handler, in the fork server
DYNAMIC = {"build.py", "handlers.py"}


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("localhost.example", False),
        ("*", False),
    ],
)
def test_who_reaches_a_host(host: str, local: bool) -> None:
    """Only addresses that cannot leave the machine are local; names that are not known are not."""
    assert is_local(host) is local
    check_bind("framed", host, "key", "a token")
    if not local:
        with pytest.raises(UnsafeBind, match="give a token"):
            check_bind("framed", host, None, "a token")


@pytest.mark.parametrize("bad", ["", "80", "host:", "host:port", ":80", "host:99999", "host:-1"])
def test_addresses_that_are_none(bad: str) -> None:
    """HOST:PORT is both of them."""
    with pytest.raises(ConfigError, match="HOST:PORT"):
        split_address(bad)


def test_addresses() -> None:
    """Names, numbers and both kinds of addresses."""
    assert split_address("localhost:80") == ("localhost", 80)
    assert split_address("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tcp": "127.0.0.1:0"},
        {"handler": "app:echo"},
        {"tcp": "127.0.0.1:0", "handler": "app:"},
        {"tcp": "127.0.0.1:0", "handler": "os.system:x y"},
        {"tcp": "127.0.0.1:0", "handler": "__import__"},
        {"http": "nowhere"},
        {"http": "127.0.0.1:0", "token": ""},
        {"http": "127.0.0.1:0", "token": "a\nb"},
        {"http": "127.0.0.1:0", "timeout": 0},
        {"http": "127.0.0.1:0", "inflight": 0},
        {"http": "127.0.0.1:0", "limit": 2**21, "memory": 2**20},
    ],
)
def test_gateways_that_cannot_be_meant(settings: dict[str, object]) -> None:
    """A gateway that could not serve says so before it opens anything."""
    with pytest.raises(ConfigError):
        Gateway("redis://127.0.0.1:1", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("door", [{"tcp": "0.0.0.0:0", "handler": "app:echo"}, {"http": "[::]:0"}])
def test_a_public_door_wants_a_token(door: dict[str, str]) -> None:
    """What others can reach is not opened without a token."""
    with pytest.raises(UnsafeBind) as caught:
        Gateway("redis://127.0.0.1:1", **door)  # type: ignore[arg-type]
    assert caught.value.exit_status == 6
    Gateway("redis://127.0.0.1:1", token="long and secret", **door)  # type: ignore[arg-type]


def double(data: bytes) -> bytes:
    """Return it twice."""
    return data * 2


def test_handlers_take_bytes_and_give_bytes() -> None:
    """A handler is a task from text to text around a function from bytes to bytes."""
    handler = Handler(double)
    assert decode(handler(encode(b"\x00\xff"))) == b"\x00\xff\x00\xff"
    assert getattr(handler, "__name__", "") == "double"
    for bad in ("no base64!", 5, None):
        with pytest.raises(NotBytes):
            handler(bad)  # type: ignore[arg-type]
    with pytest.raises(NotBytes, match="not str"):
        Handler(lambda data: "text")(encode(b""))  # type: ignore[arg-type, return-value]


def test_where_a_handler_is() -> None:
    """A function is named by its place; one that no other process can import is refused."""
    assert handler_path("app.work:echo") == "app.work:echo"
    assert task_name("app.work:echo") == "app.work.echo"
    assert handler_path(double) == f"{__name__}:double"
    with pytest.raises(ConfigError, match="top level"):
        handler_path(lambda data: data)
    for bad in ("app", "app:", ":echo", "app:echo:x", "app:_echo", "rpc:echo", "a b:c"):
        with pytest.raises(ConfigError):
            task_name(bad)


@pytest.mark.parametrize("name", ["input", "a.b", "channel-1", "_x", "ü:/%2E", "__path__", "a b"])
def test_stages_have_any_name(name: str) -> None:
    """A queue's name survives as the last part of an import path."""
    module, _, attribute = entry(name).rpartition(".")
    assert module == "pysplash.items"
    assert not attribute.startswith("_")
    assert stage_name(attribute) == name


@pytest.mark.parametrize("data", ["text", 5, None, bytearray(b"x"), [b"x"]])
def test_stages_forward_bytes(data: object) -> None:
    """Bytes only, with an error that is a TypeError too."""
    with pytest.raises(NotBytes, match="encode what is to be forwarded") as caught:
        check_output("next", data)
    assert isinstance(caught.value, TypeError)


def test_stages_forward_to_stages() -> None:
    """Where an item goes is a name."""
    check_output("next", b"")
    for bad in (5, None, b"next"):
        with pytest.raises(StageError, match="no name of a stage"):
            check_output(bad, b"")
    with pytest.raises(ConfigError):
        check_output("", b"")


@pytest.mark.parametrize("settings", [{"name": ""}, {"max_attempts": 0}, {"timeout": 0}])
def test_stages_that_cannot_be_meant(settings: dict[str, object]) -> None:
    """A stage's settings are checked when it is made."""
    with pytest.raises(ConfigError):
        Stage(**{"name": "unit", **settings})  # type: ignore[arg-type]


def test_a_stage_has_one_handler() -> None:
    """Two handlers for one stage are a mistake; the same one, loaded again, is not."""
    Stage("unit.once", _handle)
    Stage("unit.once", _handle)
    Stage("unit.once")
    with pytest.raises(ConfigError, match="defined twice"):
        Stage("unit.once", lambda stage, data: None)


def _handle(stage: Stage, data: bytes) -> None:
    """Be a sink."""


def test_memory_has_an_end() -> None:
    """What peers may make a gateway hold is bounded; what is there already counts."""
    memory = Memory(100, DoorCounts(1))
    share = memory.share(0)
    share.take(60)
    with pytest.raises(Busy):
        share.take(41)
    share.keep(80)
    with pytest.raises(Busy):
        share.take(1)
    share.free(100)
    share.take(60)
    assert memory.held == 100


def test_each_door_keeps_its_part_of_the_memory() -> None:
    """One door takes what is left by all, and what is kept for another is still there."""
    memory = Memory(100, DoorCounts(3), kept(100, 3, 10))
    greedy, modest, third = (memory.share(door) for door in range(3))
    greedy.take(68)
    with pytest.raises(Busy):
        greedy.take(1)
    modest.take(16)
    with pytest.raises(Busy):
        modest.take(1)
    third.take(16)
    assert memory.held == 100
    greedy.free(68)
    modest.take(52)


@pytest.mark.parametrize(
    ("most", "doors", "limit", "part"),
    [(90, 3, 10, 15), (90, 1, 90, 0), (90, 3, 90, 0), (90, 3, 80, 5), (90, 2, 10, 22)],
)
def test_what_is_kept_for_each_door(most: int, doors: int, limit: int, part: int) -> None:
    """Half of all, divided; but a request of any allowed size finds room where nothing is held."""
    memory = Memory(most, DoorCounts(doors), kept(most, doors, limit))
    assert kept(most, doors, limit) == part
    shares = [memory.share(door) for door in range(doors)]
    shares[0].take(limit)


@pytest.mark.parametrize("command", ["", [], "   "])
def test_a_coprocess_is_some_command(command: str | list[str]) -> None:
    """Nothing is no program."""
    with pytest.raises(ConfigError, match="no command"):
        Coprocess(command)


@pytest.mark.parametrize("module", GATEWAY, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_no_pickle_is_read_in_the_gateway(module: pathlib.Path) -> None:
    """Nothing a peer's bytes pass through unpickles, evaluates or imports by a peer's name."""
    tree = ast.parse(module.read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
    }
    assert imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle"} == set()
    assert called & {"recv_pyobj", "send_pyobj", "eval", "exec", "__import__"} == set()
    assert "import_module" not in called or module.name in DYNAMIC


def test_the_gateway_calls_as_a_plain_client() -> None:
    """The one client of the gateway is plain: results come as JSON and none is unpickled."""
    tree = ast.parse((PACKAGE / "gateway" / "admission.py").read_text())
    made = [
        {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg == "plain"}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "AsyncClient"
    ]
    assert made == [{"plain": True}]
