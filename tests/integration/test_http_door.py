"""JSON-RPC over HTTP on a real server: what the standards say, and what strangers send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from pysplash import EmbeddedServer, Gateway
from pysplash.gateway.auth import TRIES
from tests.integration.gateways import BOUND, announce, dial, hear, opened, said
from tests.integration.rq_life import work, workers
from tests.servers import own_server
from tests.waiting import wait_until

LIMIT = 10_000
JSON = {"Content-Type": "application/json"}


@contextlib.contextmanager
def door(url: str, redis: Redis, **settings: object) -> Iterator[Gateway]:
    """Open an HTTP door."""
    announce(redis)
    with opened(url, **({"limit": LIMIT, "http": "127.0.0.1:0"} | settings)) as gateway:
        yield gateway


class Web:
    """A caller over HTTP, by the standard library."""

    def __init__(self, gateway: Gateway) -> None:
        self.address = gateway.addresses["HTTP"]
        host, port = self.address.split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=BOUND)

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def post(self, body: Any, **headers: str) -> tuple[int, Any]:
        """Return the status and the JSON of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request("POST", "/rpc", data, JSON | headers)
        response = self.connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Return the result of a call, or its error."""
        parameters = named or list(arguments)
        status, said = self.post(
            {"jsonrpc": "2.0", "method": method, "params": parameters, "id": 1}
        )
        assert status == 200
        assert said["id"] == 1
        return said["result"] if "result" in said else said["error"]


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    """A caller at a door that stays open for many tests, with a worker behind it."""
    with own_server() as server, Redis.from_url(server.url) as redis:
        queue = Queue("default", connection=redis)
        with door(server.url, redis) as gateway, workers(queue, 1), Web(gateway) as web:
            yield web


def test_calls(web: Web) -> None:
    """A call has its result; over one connection, one after the other."""
    assert [web.call("it.square", n) for n in range(5)] == [0, 1, 4, 9, 16]
    assert web.call("it.square", number=7) == 49
    assert web.call("it.double", "YWI=") == "YWJhYg=="


@pytest.mark.parametrize(
    ("method", "parameters", "code"),
    [
        ("no.such", [], -32601),
        ("os.system", ["true"], -32601),
        ("__import__", ["os"], -32601),
        ("eval", ["1"], -32601),
        ("it", [], -32601),
        ("it.square.__call__", [1], -32601),
        ("", [], -32601),
        ("x" * 1500, [], -32601),
        ("rpc.discover", [], -32601),
        ("it.square", [], -32602),
        ("it.square", [1, 2], -32602),
        ("it.square", {"n": 1}, -32602),
        ("it.boom", [], -32001),
        ("it.thing", [], -32001),
        ("it.square", ["x"], -32001),
    ],
)
def test_errors_have_their_codes(web: Web, method: str, parameters: Any, code: int) -> None:
    """What cannot be called, what does not fit and what fails: each by the standard's code."""
    _, answer = web.post({"jsonrpc": "2.0", "method": method, "params": parameters, "id": "a"})
    assert answer["error"]["code"] == code
    assert answer["id"] == "a"
    told = json.dumps(answer)
    assert not any(word in told for word in ("Traceback", "redis", "no such thing", ".py"))
    assert method[:20] not in told or not method


def test_a_failure_names_its_class_and_job(web: Web) -> None:
    """A peer learns the class of an error and the job's id, under which the rest can be found."""
    error = web.call("it.boom")
    assert error["message"] == "Task failed"
    assert error["data"]["type"] == "LookupError"
    assert len(error["data"]["job"]) == 32


def test_batches(web: Web) -> None:
    """The answers to a batch: one for each request that wants one, none for a notification."""
    call = {"jsonrpc": "2.0", "method": "it.square", "params": [3], "id": 1}
    note = {"jsonrpc": "2.0", "method": "it.square", "params": [3]}
    status, answers = web.post([call, note, 1, {**call, "id": "b", "params": [4]}, call])
    assert status == 200
    assert [answer.get("result") for answer in answers] == [9, None, 16, 9]
    assert answers[1]["error"]["code"] == -32600
    assert web.post([note, note]) == (204, None)
    assert web.post(note) == (204, None)
    assert web.post([1, 2])[1][1]["error"]["code"] == -32600
    assert web.post([])[1]["error"]["code"] == -32600
    assert web.post([note] * 101)[1]["error"]["code"] == -32600


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b"\x80\x04K\x01.", b"\xff", b"[" * 1000])
def test_parse_errors(web: Web, body: bytes) -> None:
    """What is not JSON, a pickle for one, is answered as such."""
    status, answer = web.post(body)
    assert (status, answer["error"]["code"], answer["id"]) == (200, -32700, None)


def head(*lines: str, start: str = "POST /rpc HTTP/1.1", body: bytes = b"") -> bytes:
    """Return a request as it goes over the wire; "Name!" leaves the usual header out."""
    usual = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    for line in lines:
        usual.pop(line.partition(":")[0].removesuffix("!"), None)
    headers = [f"{name}: {value}" for name, value in usual.items()]
    told = [line for line in lines if not line.endswith("!")]
    return "\r\n".join([start, *headers, *told]).encode("latin-1") + b"\r\n\r\n" + body


CALL = b'{"jsonrpc": "2.0", "method": "it.square", "params": [3], "id": 1}'
LONG = str(LIMIT + 1)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head(body=CALL), 200),
        (head("Host: 127.0.0.1:8080", body=CALL), 200),
        (head("Host: [::1]:80", body=CALL), 200),
        (head("Content-Type: application/json; charset=utf-8", body=CALL), 200),
        (head(start="POST /rpc HTTP/1.0", body=CALL), 200),
        (head(start="GET /rpc HTTP/1.1"), 405),
        (head(start="OPTIONS /rpc HTTP/1.1"), 405),
        (head(start="POST / HTTP/1.1", body=CALL), 404),
        (head(start="POST /rpc?token=x HTTP/1.1", body=CALL), 404),
        (head(start="POST http://evil.example/rpc HTTP/1.1", body=CALL), 404),
        (head("Host: evil.example", body=CALL), 403),
        (head("Host: localhost.evil.example", body=CALL), 403),
        (head("Host: 127.0.0.1.evil.example:80", body=CALL), 403),
        (head("Host: ", body=CALL), 403),
        (head("Host!", body=CALL), 400),
        (head("Origin: http://localhost", body=CALL), 403),
        (head("Origin: null", body=CALL), 403),
        (head("Content-Type: text/plain", body=CALL), 415),
        (head("Content-Type!", body=CALL), 415),
        (head("Content-Encoding: gzip", body=CALL), 415),
        (head(f"Content-Length: {LONG}"), 413),
        (head("Content-Length: 99999999999999999999"), 413),
        (head("Content-Length: -1"), 400),
        (head("Content-Length: 1, 2"), 400),
        (head("Content-Length: 5\r\nContent-Length: 6"), 400),
        (head("Transfer-Encoding: chunked", body=CALL), 400),
        (head("Content-Length!", "Transfer-Encoding: gzip", body=CALL), 501),
        (head("X: " + "x" * 20_000, body=CALL), 431),
        (b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + b"\r\n\r\n", 400),
        (b"\x00\x00\x00\x03abc\r\n\r\n", 400),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_what_a_request_must_be(web: Web, sent: bytes, status: int) -> None:
    """Wrong hosts, pages of elsewhere, wrong types, smuggled lengths, long heads: each a status."""
    with dial(web.address) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = hear(connection)
    assert answer.split(b" ", 2)[1] == str(status).encode(), answer
    if status != 200:
        assert b"connection: close" in answer.lower()


def test_bodies_in_chunks(web: Web) -> None:
    """A chunked body is read, and refused once it is too long, whatever it says of itself."""
    chunked = head("Content-Length!", "Transfer-Encoding: chunked", "Connection: close")
    parts = b"".join(b"1\r\n%c\r\n" % byte for byte in CALL) + b"0\r\n\r\n"
    assert (said(web.address, chunked, parts) or b"").endswith(b'"result":9,"id":1}')
    flood = b"400\r\n" + b"x" * 1024 + b"\r\n"
    answer = said(web.address, chunked, *[flood] * 10) or b""
    assert answer.startswith(b"HTTP/1.1 413")


def test_requests_in_a_row(web: Web) -> None:
    """Requests that are sent without waiting are answered in order; a body is awaited if asked."""
    last = head("Connection: close", body=CALL)
    answer = said(web.address, head(body=CALL) * 3 + last) or b""
    assert answer.count(b'"result":9') == 4
    with dial(web.address) as connection:
        connection.sendall(
            head("Expect: 100-continue", f"Content-Length: {len(CALL)}", "Connection: close")
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(CALL)
        assert b'"result":9' in hear(connection)


def test_a_token_is_asked_for(url: str, redis: Redis, queue: Queue) -> None:
    """Who does not bear the token is refused before anything is looked at; who guesses, longer."""
    with door(url, redis, token="open-sesame") as gateway, workers(queue, 1), Web(gateway) as web:
        call = json.loads(CALL)
        assert web.post(call, Authorization="Bearer open-sesame")[1]["result"] == 9
        for wrong in ("Bearer open-sesamE", "open-sesame", "Basic open-sesame", ""):
            assert web.post(call, Authorization=wrong)[0] == 401
        assert web.post(call)[0] == 401
        assert web.post(call, Authorization="Bearer open-sesame", Host="any.example")[0] == 200
        for _ in range(2 * TRIES):
            assert web.post(call)[0] == 401
        for _ in range(TRIES):
            assert web.post(call, Authorization="Bearer guess")[0] == 401
        assert web.post(call, Authorization="Bearer open-sesame")[0] == 429


def test_a_request_has_an_end(url: str, redis: Redis, queue: Queue) -> None:
    """A head or a body that comes by the byte ends with the deadline, and a silent peer too."""
    with door(url, redis, deadline=0.5) as gateway, workers(queue, 1):
        address = gateway.addresses["HTTP"]
        with dial(address) as slow, dial(address) as body, dial(address) as silent:
            body.sendall(head("Content-Length: 50"))

            def trickles(connection: socket.socket) -> bool:
                try:
                    connection.sendall(b"x")
                except OSError:
                    return False
                return True

            wait_until(lambda: not trickles(slow), BOUND)
            wait_until(lambda: not trickles(body), BOUND)
            assert hear(silent) == b""
        with Web(gateway) as web:
            assert web.call("it.square", 3) == 9


def test_busy_late_and_alone(url: str, redis: Redis, queue: Queue) -> None:
    """Too much at once, no answer in time and nobody to serve have codes of their own."""
    with door(url, redis, inflight=1, timeout=1.0) as gateway, Web(gateway) as web:
        call = json.loads(CALL)
        _, answers = web.post([call, {**call, "id": 2}])
        assert sorted(answer["error"]["code"] for answer in answers) == [-32002, -32000]
        wait_until(lambda: queue.count == 0, BOUND)
        assert web.call("it.square", 3)["code"] == -32002
    redis.delete("pysplash:pool:hand")
    with opened(url, http="127.0.0.1:0") as gateway, Web(gateway) as web:
        assert web.call("it.square", 3)["code"] == -32003


def test_notifications_run(url: str, redis: Redis, queue: Queue) -> None:
    """A notification is a job like any other, counted while it lasts and never answered."""
    with door(url, redis, inflight=2) as gateway, Web(gateway) as web:
        note = {"jsonrpc": "2.0", "method": "it.square", "params": [3]}
        assert web.post([note] * 5) == (204, None)
        wait_until(lambda: queue.count == 2, BOUND)
        assert web.call("it.square", 1)["code"] == -32000
        (job, _) = queue.jobs
        work(queue)
        assert job.get_status() == "finished"


def test_tracebacks_are_shown_if_asked_for(url: str, redis: Redis, queue: Queue) -> None:
    """Who runs the gateway may let peers see tracebacks."""
    with door(url, redis, tracebacks=True) as gateway, workers(queue, 1), Web(gateway) as web:
        assert "LookupError: no such thing" in web.call("it.boom")["data"]["traceback"]


def test_redis_away_is_an_internal_error(
    url: str, redis: Redis, server: EmbeddedServer, queue: Queue
) -> None:
    """Without Redis a call is an internal error that says nothing of where Redis was."""
    with door(url, redis, drain=0.1) as gateway, Web(gateway) as web:
        server.stop()
        error = web.call("it.square", 3)
        assert error == {"code": -32603, "message": "Internal error"}
