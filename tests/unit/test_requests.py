"""Calls without a server: who serves a task, what is enqueued, what an answer says, how long."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import pickle
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.sentinel import Sentinel

from pysplash.cli.call import parse_word, show_value
from pysplash.client.discovery import PoolFacts, Task
from pysplash.client.requests import CallRequest, Named, build, build_bundle, read_answer
from pysplash.client.routing import Route, find_route
from pysplash.client.safe_pickle import PrimitiveSerializer
from pysplash.client.terms import Allowance, Terms, check_terms
from pysplash.connections.clients import from_url, portable
from pysplash.connections.multiplexed import connection_class
from pysplash.errors import CallError, ExecutionError, NoWorkerError, UnknownTask


def pool(name: str, *tasks: tuple[str, str], started: float = 1.0, **facts: Any) -> PoolFacts:
    """Return a pool that serves *queues*, default unless told, with tasks on queues."""
    facts = {"queues": ("default",), "serializer": None} | facts
    offers = tuple(Task(task, queue, facts.pop("timeout", None), "()", "") for task, queue in tasks)
    return PoolFacts(name, "host", 1, "0", started, tasks=offers, **facts)


ADD = ("add", "default")


def test_a_task_is_reached_through_every_pool_alike() -> None:
    """All pools that serve it on one queue count: one of them alive is enough."""
    route = find_route([pool("a", ADD), pool("b", ADD), pool("c")], "add")
    assert route == Route("add", "default", None, None, ("pysplash:pool:a", "pysplash:pool:b"))


def test_of_two_definitions_the_youngest_holds() -> None:
    """While a new version is rolled out, its queue is the one; pools of the old do not count."""
    old = pool("old", ("add", "slow"), queues=("slow",), started=1.0)
    new = pool("new", ("add", "fast"), queues=("fast",), started=2.0, timeout=7)
    route = find_route([new, old], "add")
    assert (route.queue, route.timeout, route.pools) == ("fast", 7, ("pysplash:pool:new",))


@pytest.mark.parametrize(
    ("pools", "error", "said"),
    [
        ([], NoWorkerError, "no pool is alive that could serve task 'add'"),
        ([pool("a")], UnknownTask, "no pool knows a task 'add': there is none at all"),
        ([pool("a", ("sub", "default"))], UnknownTask, "there is sub"),
        ([pool("a", ADD, open=False)], NoWorkerError, "serves task 'add' on its queue default"),
        ([pool("a", ("add", "gpu"))], NoWorkerError, "serves task 'add' on its queue gpu"),
    ],
)
def test_what_nobody_serves(pools: list[PoolFacts], error: type[CallError], said: str) -> None:
    """It is an error before anything is enqueued, and says what is missing."""
    with pytest.raises(error, match=said):
        find_route(pools, "add")


ROUTE = Route("math.add", "fast", 5, None, ("k",))


def test_a_call_is_a_job_that_tells_nothing() -> None:
    """The job names the task and its limits; its description shows no argument."""
    request = build(ROUTE, Terms(result_ttl=9), ("S3CRET",), {"b": "S3CRET"}, ttl=1.2)
    assert request.words[:5] == [request.job_id, "fast", 2, 1, "k"]
    fields = dict(zip(request.words[5::2], request.words[6::2], strict=True))
    shown = (fields["description"], fields["timeout"], fields["result_ttl"], fields["status"])
    assert shown == ("math.add", 5, 9, "queued")
    data = fields.pop("data")
    assert "S3CRET" not in repr(fields)
    assert pickle.loads(zlib.decompress(data)) == (  # type: ignore[arg-type]
        "pysplash.tasks.math.add",
        None,
        ("S3CRET",),
        {"b": "S3CRET"},
    )


def test_a_plain_call_asks_for_json() -> None:
    """Its job is the plain form of the task, and its result is read without a pickle's powers."""
    request = build(ROUTE, Terms(plain=True), (1,), {})
    assert request.serializer is PrimitiveSerializer
    answer = read_answer(request, "finished", entry(1, value='{"a": [1]}'))
    assert answer is not None
    assert answer.get() == {"a": [1]}


@pytest.mark.parametrize(
    ("others", "takes_bytes"),
    [
        ([], True),
        ([pool("b", ADD, takes_bytes=True)], True),
        ([pool("b", ADD)], False),
        ([pool("b")], False),
        ([pool("b", ADD, open=False)], False),
        ([pool("b", queues=("other",))], True),
    ],
    ids=["alone", "alike", "earlier", "earlier, without the task", "earlier, leaving", "elsewhere"],
)
def test_bytes_go_where_every_pool_of_the_queue_takes_them(
    others: list[PoolFacts], takes_bytes: bool
) -> None:
    """Any of them may get the job; one of an earlier release says nothing and has text."""
    route = find_route([pool("a", ADD, takes_bytes=True), *others], "add")
    assert route.takes_bytes is takes_bytes


TAKES = Route("math.add", "fast", 5, None, ("k",), takes_bytes=True)


def carried(request: CallRequest) -> Any:
    """Return what a worker is given of a job."""
    fields = dict(zip(request.words[5::2], request.words[6::2], strict=True))
    return request.serializer.loads(zlib.decompress(fields["data"]))  # type: ignore[arg-type]


def test_a_bundle_of_bytes() -> None:
    """Its arguments are bytes, and a name beside them that workers of earlier releases refuse."""
    request = build_bundle(TAKES, Terms(plain=True), [b"\xff", b""], 5)
    place = "pysplash.bundled_tasks.math.add"
    assert carried(request) == (place, None, (b"\xff", b""), {"as_bytes": True})
    answer = read_answer(request, "finished", entry(1, value=[0.5, b"\xff", '"text"', "null"]))
    assert answer is not None
    assert answer.get() == [0.5, b"\xff", "text", None]


@pytest.mark.parametrize(
    ("route", "terms"),
    [
        (ROUTE, Terms(plain=True)),
        (replace(TAKES, serializer="json"), Terms(plain=True)),
        (TAKES, Terms(plain=True, serializer="json")),
    ],
    ids=["a pool of an earlier release", "JSON", "a serializer of the client's"],
)
def test_a_bundle_of_texts(route: Route, terms: Terms) -> None:
    """Where bytes are not known, or cannot be carried, they are base64 both ways."""
    request = build_bundle(route, terms, [b"\xff", b""], 5)
    place, _, arguments, named = carried(request)
    assert (place, list(arguments), named) == (
        "pysplash.bundled_tasks.math.add",
        ["/w==", ""],
        {},
    )
    assert request.plain
    assert not request.as_bytes


@pytest.mark.parametrize("value", [OSError("x"), [0.5, OSError], [0.5, {1, base64.b64encode}]])
def test_what_is_no_plain_value_is_not_read(value: Any) -> None:
    """A bundle's result is read as any other: nothing is imported by a name in it."""
    request = build_bundle(TAKES, Terms(plain=True), [b"a"], 5)
    answer = read_answer(request, "finished", entry(1, value=value))
    assert answer is not None
    with pytest.raises(CallError, match="cannot be read here"):
        answer.get()


def test_arguments_that_cannot_be_sent() -> None:
    """They are the caller's error, told at once."""
    with pytest.raises(CallError, match=r"arguments of task 'math\.add' cannot be sent"):
        build(ROUTE, Terms(), (lambda: 1,), {})


def test_a_pool_with_a_serializer_of_its_own() -> None:
    """The client has to be given the same; it imports nothing that Redis names."""
    route = Route("t", "q", None, "os.path", ("k",))
    with pytest.raises(CallError, match=r"uses the serializer os\.path: give the client the same"):
        build(route, Terms(), (), {})
    assert build(route, Terms(serializer="json"), (), {}).serializer is not None


def entry(kind: int, value: Any = None, text: str = "") -> tuple[bytes, dict[bytes, bytes]]:
    """Return one entry of a result stream, as RQ writes it."""
    fields = {b"type": str(kind).encode()}
    if value is not None:
        fields[b"return_value"] = base64.b64encode(pickle.dumps(value))
    if text:
        fields[b"exc_string"] = base64.b64encode(zlib.compress(text.encode()))
    return b"5-1", fields


REQUEST = build(ROUTE, Terms(), (), {})


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("queued", None),
        ("started", None),
        ("deferred", None),
        ("started", entry(4)),
        ("queued", entry(4)),
    ],
)
def test_what_is_no_answer_yet(status: str | None, found: Any) -> None:
    """A call goes on while it waits, runs, or is run again."""
    assert read_answer(REQUEST, status, found) is None


@pytest.mark.parametrize(
    ("status", "found", "value"),
    [
        ("finished", entry(1, 11), 11),
        (None, entry(1, 11), 11),
        ("started", entry(1, [1]), [1]),
        ("finished", entry(1), None),
        ("finished", None, None),
    ],
)
def test_what_is_an_answer(status: str | None, found: Any, value: Any) -> None:
    """An entry decides, whatever the status was a moment before."""
    answer = read_answer(REQUEST, status, found)
    assert answer is not None
    assert (answer.status, answer.get()) == ("finished", value)


TRACE = "Traceback (most recent call last):\n  File ...\nmy.errors.Bad: no\n"


@pytest.mark.parametrize(
    ("status", "found", "kind", "ended"),
    [
        ("failed", entry(2, text=TRACE), "Bad", "failed"),
        (None, entry(2, text=TRACE), "Bad", "failed"),
        ("stopped", entry(2, text="Job stopped"), "Job stopped", "stopped"),
        ("failed", entry(5, text=TRACE), "Bad", "failed"),
        ("failed", None, "", "failed"),
        ("canceled", None, "", "canceled"),
        ("stopped", None, "", "stopped"),
        (None, None, "", "vanished"),
    ],
)
def test_what_is_a_failure(status: str | None, found: Any, kind: str, ended: str) -> None:
    """It raises, with what is known of it, and can be sent on."""
    answer = read_answer(REQUEST, status, found)
    assert answer is not None
    with pytest.raises(ExecutionError) as caught:
        answer.get()
    error = caught.value
    assert (error.type, error.status, error.task) == (kind, ended, "math.add")
    assert error.job_id == REQUEST.job_id
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.traceback) == (str(error), error.traceback)


def test_an_answer_that_cannot_be_read_here() -> None:
    """A result of a class that is not to be had is an error that says so, not a crash."""
    raw = b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x04nope\x94\x8c\x05Thing\x94\x93\x94."
    found = (b"5-1", {b"type": b"1", b"return_value": base64.b64encode(raw)})
    answer = read_answer(REQUEST, "finished", found)
    assert answer is not None
    with pytest.raises(CallError, match=r"cannot be read here .*let it return plain values"):
        answer.get()


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(plain_values)
def test_plain_values_come_back(value: Any) -> None:
    """A primitive serializer reads what it writes, and what pickle writes of plain values."""
    assert PrimitiveSerializer.loads(PrimitiveSerializer.dumps(value)) == value
    assert PrimitiveSerializer.loads(pickle.dumps(value)) == value


class Evil:
    """A pickle that would call something."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('called')",)


@pytest.mark.parametrize("value", [Evil(), Evil, print, math.sqrt, ValueError(), {1: [Evil()]}])
@pytest.mark.parametrize("protocol", range(6))
def test_nothing_else_is_read(value: Any, protocol: int) -> None:
    """No class, no function and no call comes of any pickle, of any protocol."""
    with pytest.raises(pickle.UnpicklingError, match="is no plain value"):
        PrimitiveSerializer.loads(pickle.dumps(value, protocol=protocol))


@given(st.binary(max_size=64))
def test_garbage_is_an_error(data: bytes) -> None:
    """Bytes that are no pickle raise; they never do anything else."""
    with contextlib.suppress(Exception):
        PrimitiveSerializer.loads(data)


def test_calls_may_overflow_a_few_times_in_a_row() -> None:
    """Two late calls are let pass, the third has the soft limit, one in time forgives all."""
    allowance = Allowance(overflow=3.0, overflows=2)
    for _ in range(2):
        assert allowance.limit("t", 1.0) == 4.0
        allowance.took("t", 2.5, 1.0)
    assert allowance.limit("t", 1.0) == 1.0
    assert allowance.limit("other", 1.0) == 4.0
    allowance.took("t", 0.5, 1.0)
    assert allowance.limit("t", 1.0) == 4.0


@pytest.mark.parametrize(("overflow", "timeout"), [(0.0, 5.0), (3.0, None)])
def test_no_overflow_without_a_limit(overflow: float, timeout: float | None) -> None:
    """Without an overflow, or a timeout, the limit is the timeout."""
    allowance = Allowance(overflow, 2)
    allowance.took("t", 9.0, timeout)
    assert allowance.limit("t", timeout) == timeout


@pytest.mark.parametrize(
    "terms",
    [
        Terms(timeout=-1),
        Terms(timeout=math.nan),
        Terms(overflow=-0.1),
        Terms(overflow=math.inf),
        Terms(overflows=-1),
        Terms(patience=math.nan),
        Terms(on_timeout="kill"),
        Terms(result_ttl=0),
        Terms(failure_ttl=-1),
    ],
)
def test_terms_that_make_no_sense(terms: Terms) -> None:
    """They are refused when the client is made."""
    with pytest.raises(ValueError, match="must be"):
        check_terms(terms)


def test_names_by_attribute() -> None:
    """Dots go on; what begins with an underscore is no task, so copies and inspectors are safe."""
    made: list[Any] = []
    named = Named(lambda *call: made.append(call), "math")
    named.add.exactly(1, timeout=2)
    assert made == [("math.add.exactly", (1,), {"timeout": 2})]
    with pytest.raises(AttributeError):
        _ = named.__wrapped__


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("5", 5),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ("hello", "hello"),
        ("", ""),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("{broken", "{broken"),
        ("[" * 100_000, "[" * 100_000),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_words_of_a_shell(word: str, value: Any) -> None:
    """JSON where it is JSON, the text where it is not, whatever is typed."""
    assert parse_word(word) == value


def test_answers_for_a_shell() -> None:
    """JSON where there is a form, Python's otherwise; always one line for plain values."""
    assert show_value({"a": [1, None]}) == '{"a": [1, null]}'
    assert show_value({1, 2}) == "{1, 2}"
    assert show_value(math.nan) == "nan"
    assert json.loads(show_value("ä\n")) == "ä\n"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://user:word@localhost:6379/2", "Connection"),
        ("rediss://localhost:6380/0?ssl_cert_reqs=none", "SSLConnection"),
        ("unix:///run/redis.sock?db=1", "UnixDomainSocketConnection"),
    ],
)
def test_connections_have_twins(url: str, kind: str) -> None:
    """Every kind of URL gives asyncio a connection with the same settings."""
    place = portable(from_url(url))
    connection = connection_class(place)(**place.options | {"protocol": 3})
    assert type(connection).__name__ == kind
    assert str(connection.db) == str(place.options.get("db", 0))


def test_sentinels_have_twins_too() -> None:
    """A client that asks Sentinel gives asyncio one that does, with TLS where it has it."""
    sentinel = Sentinel([("localhost", 26379)])
    for tls, kind in ((False, "SentinelManagedConnection"), (True, "SentinelManagedSSLConnection")):
        found = connection_class(portable(sentinel.master_for("main", ssl=tls)))
        assert (found.__module__, found.__name__) == ("redis.asyncio.sentinel", kind)


def test_requests_are_all_different() -> None:
    """Two calls of the same are two jobs."""
    one, two = (build(ROUTE, Terms(), (), {}) for _ in range(2))
    assert isinstance(one, CallRequest)
    assert one.job_id != two.job_id
