"""JSON-RPC 2.0 as strangers write it: what is a request, what is not, and what the answer is."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysplash.gateway.doors.jsonrpc import (
    BATCH,
    DEPTH,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    InvalidRequest,
    RpcRequest,
    answer,
    failure,
    fits,
    parse,
    read,
    write,
)


def one(**members: Any) -> Any:
    """Return what is read of a request with *members*."""
    found, batch = read(json.dumps({"jsonrpc": "2.0", "method": "add", **members}).encode())
    assert not batch
    return found[0]


def test_requests() -> None:
    """Parameters by place, by name, or none; a request without id is a notification."""
    assert one(params=[1, 2], id=7) == RpcRequest("add", (1, 2), {}, 7, False)
    assert one(params={"a": 1}, id="x") == RpcRequest("add", (), {"a": 1}, "x", False)
    assert one(id=None) == RpcRequest("add", (), {}, None, False)
    assert one() == RpcRequest("add", (), {}, None, True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a": 1} x',
        b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1),
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" + b"9" * 4301 + b"]",
        b"[NaN]",
        b"[-Infinity]",
        b"[1e309]",
        b'{"a": 1, "a": 2}',
        b'["\\ud800"]',
        b'{"\\udfff": 1}',
        b"\xef\xbb\xbf{}",
        b'["\xff"]',
        "[]".encode("utf-16"),
        pickle.dumps([1, 2]),
        pickle.dumps([1, 2], protocol=0),
        b"GET / HTTP/1.1\r\n\r\n",
        b'"' * 200_001,
        b'"\\' * 100_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_json(data: bytes) -> None:
    """Not JSON, or JSON no two readers agree on: a parse error, whatever its size."""
    with pytest.raises(InvalidRequest) as caught:
        read(data)
    assert caught.value.code == PARSE_ERROR


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "a[b{c", '\\"[[[', "\\\\", "ü"])
def test_odd_texts_are_texts(text: str) -> None:
    """Brackets and escapes within texts are neither depth nor errors."""
    data = f'["{text * 40}"]'.encode()
    assert parse(data) == json.loads(data)


def test_as_deep_as_may_be() -> None:
    """The depth that is allowed is allowed."""
    assert parse(b"[" * DEPTH + b"]" * DEPTH) == json.loads("[" * DEPTH + "]" * DEPTH)


@pytest.mark.parametrize("data", [b"null", b"1", b'"add"', b"true", b"[1]", b'[null, "x", []]'])
def test_what_is_no_request(data: bytes) -> None:
    """JSON that is no object is an invalid request, each one in a batch by itself."""
    found, _ = read(data)
    assert all(isinstance(bad, InvalidRequest) and bad.code == INVALID_REQUEST for bad in found)


@pytest.mark.parametrize(
    "members",
    [
        {"jsonrpc": "1.0"},
        {"jsonrpc": None},
        {"jsonrpc": 2.0},
        {"method": None},
        {"method": 1},
        {"method": ["add"]},
        {"params": "1, 2"},
        {"params": 5},
        {"params": None},
    ],
)
def test_bad_members_keep_their_id(members: dict[str, Any]) -> None:
    """A request that is wrong in one member is answered by its id."""
    bad = one(id=3, **members)
    assert (bad.code, bad.id) == (INVALID_REQUEST, 3)


@pytest.mark.parametrize("request_id", [True, 1.5, {"a": 1}, [1]])
def test_ids_that_are_none(request_id: object) -> None:
    """An id is a text, a whole number or null."""
    bad = one(id=request_id)
    assert (bad.code, bad.id) == (INVALID_REQUEST, None)


def test_batches() -> None:
    """A batch keeps its order, with what is wrong in its place; an empty or huge one is refused."""
    call = {"jsonrpc": "2.0", "method": "add", "id": 1}
    found, batch = read(json.dumps([call, 1, call]).encode())
    assert batch
    assert [type(each) for each in found] == [RpcRequest, InvalidRequest, RpcRequest]
    assert len(read(json.dumps([call] * BATCH).encode())[0]) == BATCH
    for bad in ([], [call] * (BATCH + 1)):
        with pytest.raises(InvalidRequest) as caught:
            read(json.dumps(bad).encode())
        assert caught.value.code == INVALID_REQUEST


def test_answers() -> None:
    """Answers have the members that the specification names, and the standard words."""
    assert json.loads(write(answer(1, {"a": None}))) == {
        "jsonrpc": "2.0",
        "result": {"a": None},
        "id": 1,
    }
    assert json.loads(write(failure("x", METHOD_NOT_FOUND))) == {
        "jsonrpc": "2.0",
        "error": {"code": -32601, "message": "Method not found"},
        "id": "x",
    }


@pytest.mark.parametrize(
    ("signature", "arguments", "named", "fit"),
    [
        ("(a, b)", (1, 2), {}, True),
        ("(a, b)", (1,), {}, False),
        ("(a, b)", (1, 2, 3), {}, False),
        ("(a, b)", (1,), {"b": 2}, True),
        ("(a, b)", (1,), {"c": 2}, False),
        ("(a, b)", (1, 2), {"a": 2}, False),
        ("(a: int, b: int = 5) -> int", (1,), {}, True),
        ("(a, /, *, b)", (), {"a": 1, "b": 2}, False),
        ("(a, /, *, b)", (1,), {"b": 2}, True),
        ("(a, *rest, k=None, **more)", (1, 2, 3), {"z": 1}, True),
        ("()", (), {}, True),
        ("()", (1,), {}, False),
        ("(...)", (1, 2, 3), {}, True),
        ("(a=<object object at 0x7f>)", (1, 2, 3), {}, True),
        ("(a): import os", (1,), {}, True),
        ("(a, " + "b" * 200, (1, 2, 3), {}, True),
    ],
)
def test_arguments_fit(
    signature: str, arguments: tuple[Any, ...], named: dict[str, Any], fit: bool
) -> None:
    """A published signature says which arguments cannot be meant; one that is cut says nothing."""
    assert fits(signature, RpcRequest("f", arguments, named, 1, False)) is fit


@given(st.binary(max_size=400))
def test_any_bytes_are_judged(data: bytes) -> None:
    """Whatever comes is a list of requests and of what is none, or bad altogether."""
    code, found = 0, list[Any]()
    try:
        found, _ = read(data)
    except InvalidRequest as bad:
        code = bad.code
    assert found if not code else code in (PARSE_ERROR, INVALID_REQUEST)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=10,
    )
)
def test_any_json_is_judged(value: object) -> None:
    """Any JSON value within the depth is read as it is."""
    data = json.dumps(value, ensure_ascii=False).encode()
    try:
        assert parse(data) == value
    except InvalidRequest:
        assert data.count(b"[") + data.count(b"{") > DEPTH
