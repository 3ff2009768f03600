"""Clients that are not a plain ``redis.Redis``: those that work as it does, and those that cannot.

A worker, a pool's address, a client and a wait over each; and a server that runs no scripts.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fakeredis
import pytest
import redis.asyncio
import valkey as valkey_py
import valkey.asyncio as valkey_asyncio
from redis import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import Queue, SimpleWorker
from rq.job import Job

import pysplash
from pysplash.connections.clients import from_url, native, portable
from pysplash.connections.environment import from_settings
from pysplash.connections.foreign import check_client_class
from pysplash.embedded import EmbeddedServer
from pysplash.errors import ConfigError, ConnectionFailed

#: without types: not all of it has some
valkey: Any = valkey_py
Make = Callable[[dict[str, Any]], Any]


class Tenant(Redis):
    """A subclass that takes arguments of its own, and no pool."""

    def __init__(self, place: dict[str, Any]) -> None:
        super().__init__(**place)


def _pooled(kind: Any, pool: Any, **settings: Any) -> Make:
    def make(place: dict[str, Any]) -> Any:
        url = f"unix://{place['unix_socket_path']}"
        return kind(connection_pool=pool.from_url(url, **settings))

    return make


CLIENTS: dict[str, Make] = {
    "redis": lambda place: Redis(**place),
    "protocol 2": lambda place: Redis(**place, protocol=2),
    "protocol 3": lambda place: Redis(**place, protocol=3),
    "decoding": lambda place: Redis(**place, decode_responses=True),
    "blocking pool": _pooled(Redis, BlockingConnectionPool, max_connections=4, timeout=3),
    "small pool": _pooled(Redis, ConnectionPool, max_connections=2),
    "retries": lambda place: Redis(**place, retry=Retry(ExponentialBackoff(), 3)),
    "subclass": Tenant,
    "valkey": lambda place: valkey.Valkey(**place),
    "valkey protocol 3": lambda place: valkey.Valkey(**place, protocol=3),
    "valkey decoding": lambda place: valkey.Valkey(**place, decode_responses=True),
    "valkey pool": _pooled(valkey.Valkey, valkey.BlockingConnectionPool),
    "valkey retries": lambda place: valkey.Valkey(
        **place,
        retry=valkey.retry.Retry(valkey.backoff.ExponentialBackoff(), 3),
        retry_on_error=[valkey.ConnectionError],
    ),
}


@pytest.fixture
def place(url: str) -> dict[str, Any]:
    """Where the test's own server is."""
    return {"unix_socket_path": urlsplit(url).path}


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_does_what_redis_py_does(
    name: str, place: dict[str, Any], redis: Redis
) -> None:
    """Over it a worker works, jobs are waited for, a client calls, and a pool has an address."""
    given = CLIENTS[name](dict(place))
    ours = Queue(connection=redis)
    jobs = [ours.enqueue(abs, -1), ours.enqueue(divmod, 1, 0), ours.enqueue(abs, -3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pysplash.Worker([Queue(connection=given)], connection=given).work(burst=True)
    ends = [job.get_status().value for job in jobs]
    assert ends == ["finished", "failed", "finished"]
    mirrored = Job(jobs[2].id, connection=given)
    assert pysplash.wait_jobs([mirrored], 5, True, progress=False) == [3]
    assert pysplash.Client(connection=given).pools() == []

    async def ask() -> Any:
        async with pysplash.AsyncClient(connection=given) as client:
            return await client.pools()

    assert asyncio.run(ask()) == []
    pool = pysplash.Pool(["default"], connection=given)
    assert type(pool.connection).__module__.partition(".")[0] != "valkey"
    assert pool.connection.ping()


def test_a_pool_runs_over_valkey_py(place: dict[str, Any], redis: Redis) -> None:
    """The workers of a pool that was given valkey-py's client run its jobs."""
    job = Queue(connection=redis).enqueue(abs, -1)
    pysplash.Pool(["default"], connection=valkey.Valkey(**place), burst=True, max_procs=1).start()
    assert job.return_value() == 1


@pytest.mark.parametrize("named", ["valkey.Valkey", "redis.Redis"])
def test_the_command_line_takes_the_class_and_the_scheme(named: str, redis: Redis) -> None:
    """``--connection-class`` may name valkey-py's, and a URL may begin with ``valkey://``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    redis.config_set("bind", "127.0.0.1")
    redis.config_set("port", port)
    job = Queue(connection=redis).enqueue(abs, -1)
    url = f"valkey://127.0.0.1:{port}/0"
    words = ["start", "-b", "-n", "1", "--connection-class", named, "-u", url]
    done = subprocess.run(
        [sys.executable, "-m", "pysplash", *words], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, job.get_status()) == (0, "finished"), done.stderr


def test_valkeys_urls_are_redis_urls() -> None:
    """So they are in the settings of RQ, with and without TLS."""
    settings = from_url("valkeys://somewhere:1/2").connection_pool.connection_kwargs
    assert (settings["host"], settings["port"], settings["db"]) == ("somewhere", 1, 2)
    kind = from_url("valkeys://somewhere:1/2").connection_pool.connection_class
    assert kind.__name__ == "SSLConnection"
    named = from_settings({"REDIS_URL": "valkey://there"}).connection_pool.connection_kwargs
    assert named["host"] == "there"


def test_settings_of_tls_mean_the_same_over_redis_py() -> None:
    """What valkey-py checks of a certificate by default is what is checked."""
    loose = native(valkey.from_url("valkeys://x:1/0?ssl_cert_reqs=none"))
    options = loose.connection_pool.connection_kwargs
    assert (options["ssl_cert_reqs"], options["ssl_check_hostname"]) == ("none", False)
    assert loose.connection_pool.connection_class.__name__ == "SSLConnection"
    strict = native(valkey.Valkey(host="x", ssl=True, ssl_ca_certs="/ca", ssl_check_hostname=True))
    options = strict.connection_pool.connection_kwargs
    assert (options["ssl_ca_certs"], options["ssl_check_hostname"]) == ("/ca", True)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (redis.asyncio.Redis, "asyncio"),
        (valkey_asyncio.Valkey, "asyncio"),
        (fakeredis.FakeAsyncRedis, "asyncio"),
        (lambda: RedisCluster.__new__(RedisCluster), "cluster"),
        (lambda: "redis://localhost", "is a str"),
        (object, "is a object"),
    ],
    ids=["asyncio", "valkey asyncio", "fake asyncio", "cluster", "text", "object"],
)
def test_what_cannot_be_used_is_named(make: Callable[[], Any], word: str) -> None:
    """Each is an error at once that says what it is and what to give."""
    given = make()
    for taker in (
        lambda: pysplash.Pool(["default"], connection=given),
        lambda: pysplash.Client(connection=given),
        lambda: pysplash.AsyncClient(connection=given),
        lambda: native(given),
    ):
        with pytest.raises(ConfigError, match=word) as caught:
            taker()
        assert "redis.Redis" in str(caught.value)


@pytest.mark.parametrize("kind", [redis.asyncio.Redis, RedisCluster, valkey_asyncio.Valkey])
def test_a_class_is_refused_before_it_is_made(kind: Any) -> None:
    """A cluster's client would connect as it is made, and fail with a traceback."""
    with pytest.raises(ConfigError):
        from_url("redis://127.0.0.1:1", kind)
    with pytest.raises(ConfigError):
        from_settings({}, kind)
    check_client_class(Redis)
    check_client_class(valkey.Valkey)


# --- fakeredis, and servers that run no scripts ---


def test_fakeredis_has_its_jobs_run() -> None:
    """A worker in burst mode runs jobs, failures and retries as RQ's SimpleWorker does."""
    for kind in (SimpleWorker, pysplash.Worker):
        client = fakeredis.FakeStrictRedis()
        queue = Queue(connection=client)
        first, bad = queue.enqueue(abs, -1), queue.enqueue(divmod, 1, 0)
        after = queue.enqueue(abs, -2, depends_on=first)
        assert kind([queue], connection=client).work(burst=True)
        ends = [job.get_status().value for job in (first, bad, after)]
        assert ends == ["finished", "failed", "finished"]
        assert (first.return_value(), after.return_value()) == (1, 2)


def test_fakeredis_is_for_one_process() -> None:
    """A pool says what to do instead; a wait reads without scripts."""
    client = fakeredis.FakeStrictRedis()
    with pytest.raises(ConfigError, match=r"pysplash\.Worker"):
        pysplash.Pool(["default"], connection=client)
    with pytest.raises(ConfigError, match=r"pysplash\.Worker"):
        portable(client)
    job = Queue(connection=client).enqueue(abs, -1)
    pysplash.Worker([Queue(connection=client)], connection=client).work(burst=True)
    pysplash.wait_jobs([job], 5, progress=False)
    assert job.return_value() == 1


def test_a_server_without_scripts_has_its_jobs_run_by_a_lone_worker(
    server: EmbeddedServer, redis: Redis, place: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """An access list that refuses scripts: a worker says so and runs jobs, a pool ends at once."""
    redis.execute_command("ACL", "SETUSER", "meek", "on", ">pw", "~*", "&*", "+@all", "-@scripting")
    client = Redis(**place, username="meek", password="pw")
    job = Queue(connection=redis).enqueue(abs, -1)
    caplog.set_level("INFO", logger="pysplash")
    pysplash.Worker([Queue(connection=client)], connection=client).work(burst=True)
    assert job.return_value() == 1
    assert [line for line in caplog.messages if "RQ's own way" in line]
    with pytest.raises(ConnectionFailed, match="runs no scripts"):
        pysplash.Pool(["default"], connection=client, burst=True).start()


def test_this_file_needs_no_other(tmp_path: Path) -> None:
    """PySplash itself imports neither valkey-py nor fakeredis."""
    code = (
        "import pysplash, pysplash.cli, sys; assert not {'valkey', 'fakeredis'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
