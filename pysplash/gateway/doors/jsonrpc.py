"""JSON-RPC 2.0: requests parsed from bytes, answers written to bytes. Nothing here is called.

The parser is strict, because anybody may have written the request: UTF-8, no deeper than DEPTH, no
name twice in an object, no NaN or Infinity. The libraries that exist answer a batch with one bad
request, or one of notifications, otherwise than the specification's own examples do.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR = -32602, -32603
#: this server's own
BUSY, FAILED, TIMED_OUT, NO_WORKER = -32000, -32001, -32002, -32003
MESSAGES = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid RpcRequest",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    BUSY: "Busy",
    FAILED: "Task failed",
    TIMED_OUT: "No answer in time",
    NO_WORKER: "No worker",
}
#: how deep a text may nest, how many requests a batch may hold
DEPTH, BATCH = 32, 100
#: a string, or the beginning of one: it always matches, so no text is scanned twice
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class InvalidRequest(Exception):
    """The data is no valid request; *code* says why, *id* belongs into the answer."""

    def __init__(self, code: int, id: Any = None) -> None:
        super().__init__(code)
        self.code = code
        self.id = id


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """One call that a peer asks for."""

    method: str
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    id: Any
    #: nobody wants an answer
    notification: bool


def read(data: bytes) -> tuple[list[RpcRequest | InvalidRequest], bool]:
    """Return the requests in *data*, what is wrong with each that is none, and if it is a batch.

    Raises :class:`InvalidRequest` where there is nothing to answer one by one.
    """
    value = parse(data)
    if not isinstance(value, list):
        return [_read_one(value)], False
    if not 0 < len(value) <= BATCH:
        raise InvalidRequest(INVALID_REQUEST)
    return [_read_one(one) for one in value], True


def parse(data: bytes) -> Any:
    """Return the JSON value in *data*; raise :class:`InvalidRequest` for anything else."""
    try:
        _check_depth(data)
        value = json.loads(
            data.decode(), parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_object
        )
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InvalidRequest(PARSE_ERROR) from None
    return value


def write(value: Any) -> bytes:
    """Return *value* as JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def answer(request_id: Any, result: Any) -> dict[str, Any]:
    """Return the answer to one request."""
    return {"jsonrpc": "2.0", "result": result, "id": request_id}


def failure(request_id: Any, code: int, data: Any = None) -> dict[str, Any]:
    """Return the error answer to one request."""
    error = {"code": code, "message": MESSAGES[code]}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "error": error, "id": request_id}


def fits(signature: str, request: RpcRequest) -> bool:
    """Return whether a request's arguments fit the text of a signature; True if it says nothing."""
    known = _signature(signature)
    if known is None:
        return True
    try:
        known.bind(*request.arguments, **request.named)
    except TypeError:
        return False
    return True


def _read_one(value: Any) -> RpcRequest | InvalidRequest:
    if not isinstance(value, dict):
        return InvalidRequest(INVALID_REQUEST)
    request_id = value.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int | None):
        return InvalidRequest(INVALID_REQUEST)
    if value.get("jsonrpc") != "2.0" or not isinstance(value.get("method"), str):
        return InvalidRequest(INVALID_REQUEST, request_id)
    parameters = value.get("params", [])
    if not isinstance(parameters, list | dict):
        return InvalidRequest(INVALID_REQUEST, request_id)
    arguments, named = ((), parameters) if isinstance(parameters, dict) else (parameters, {})
    return RpcRequest(value["method"], tuple(arguments), named, request_id, "id" not in value)


def _check_depth(data: bytes) -> None:
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NO_BRACKET):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            raise ValueError("too deep")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


@lru_cache(maxsize=1024)
def _signature(text: str) -> inspect.Signature | None:
    """Return the signature a text shows, without its annotations; None for what shows none."""
    try:
        (function,) = ast.parse(f"def f{text}: ...").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(function, ast.FunctionDef):
        return None
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    needed = len(positional) - len(given.defaults)
    kind = inspect.Parameter
    found = [
        kind(
            one.arg,
            kind.POSITIONAL_ONLY if at < len(given.posonlyargs) else kind.POSITIONAL_OR_KEYWORD,
            default=kind.empty if at < needed else None,
        )
        for at, one in enumerate(positional)
    ]
    if given.vararg:
        found.append(kind(given.vararg.arg, kind.VAR_POSITIONAL))
    for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        empty = default is None
        found.append(kind(one.arg, kind.KEYWORD_ONLY, default=kind.empty if empty else None))
    if given.kwarg:
        found.append(kind(given.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(found)
