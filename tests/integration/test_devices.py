"""Backlog and connection on a real server, signals in a real process."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
import time
from inspect import signature
from typing import Any

import pytest
from redis import CredentialProvider, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from rq import Queue
from rq.suspension import resume, suspend

from pysplash.connections.address import Sentinels
from pysplash.connections.clients import ASKED, address, check, from_url, own, portable, reach
from pysplash.connections.environment import from_settings
from pysplash.connections.outage import WritesRefused
from pysplash.errors import BacklogUnavailable, ConfigError, ConnectionFailed
from pysplash.host.signals import SignalQueue
from pysplash.supervisor.backlog import Backlog


def test_what_waits_is_read_without_changing_it(redis: Redis) -> None:
    """Lengths by queue, the age of the oldest job, suspension; and no key is written."""
    high, low = Queue("high", connection=redis), Queue("low", connection=redis)
    low.enqueue("time.sleep", 0)
    for _ in range(3):
        high.enqueue("time.sleep", 0)
    suspend(redis)
    keys = sorted(redis.keys())
    waiting = Backlog(redis, ["high", "low", "absent"], lambda: time.time() + 100).read()

    assert waiting.queues == {"high": 3, "low": 1, "absent": 0}
    assert waiting.total == 4
    assert waiting.oldest == pytest.approx(100, abs=10)
    assert waiting.suspended
    assert sorted(redis.keys()) == keys
    resume(redis)
    assert not Backlog(redis, ["high"]).read().suspended


def test_odd_queues_do_not_stop_the_reading(redis: Redis) -> None:
    """A queue key of the wrong type, or an entry that names no job, counts for what it is."""
    redis.set("rq:queue:odd", "text")
    redis.rpush("rq:queue:strange", b"\xff\n")

    waiting = Backlog(redis, ["odd", "strange"]).read()

    assert waiting.queues == {"odd": 0, "strange": 1}
    assert waiting.oldest is None


def test_refused_writes_are_told_from_errors(redis: Redis) -> None:
    """By clients of ours over redis-py too, from a command and from within a transaction."""
    with reach(portable(redis)) as client:
        redis.config_set("min-replicas-to-write", 1)
        with pytest.raises(WritesRefused):
            client.set("key", "value")
        pipeline = client.pipeline().set("key", "value")
        with pytest.raises(WritesRefused):
            pipeline.execute()


def test_a_server_that_is_gone_is_unavailable_not_empty() -> None:
    """A pool must not take an absent Redis for empty queues."""
    with pytest.raises(BacklogUnavailable):
        Backlog(once(closed_port()), ["default"]).read()


def test_a_server_that_demands_a_password_is_unavailable(redis: Redis, url: str) -> None:
    """A refusal in mid-life is no empty queue either."""
    stranger = Redis.from_url(url)
    redis.config_set("requirepass", "hunter2")
    with pytest.raises(BacklogUnavailable):
        Backlog(stranger, ["default"]).read()
    with pytest.raises(ConnectionFailed, match="REDIS_PASSWORD"):
        check(stranger)
    stranger.close()


def once(port: int) -> Redis:
    """Return a client that tries no second time; redis-py's own would, for seconds."""
    return Redis(port=port, retry=Retry(NoBackoff(), 0))


def closed_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_answer_is_one_line_that_says_how_to_get_one() -> None:
    """Where it looked, and the three ways out."""
    port = closed_port()
    with pytest.raises(ConnectionFailed, match=rf"localhost:{port}/0.*-u.*--embedded") as caught:
        check(once(port))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "redis://h:port/", "http://localhost", ""])
def test_a_url_that_does_not_parse(url: str) -> None:
    """The value and an example are named."""
    with pytest.raises(ConfigError, match="redis://localhost"):
        from_url(url)


@pytest.mark.parametrize("bad", [{"REDIS_PORT": "many"}, {"REDIS_SSL": "perhaps"}])
def test_bad_redis_settings(bad: dict[str, str]) -> None:
    """The variables to look at are named."""
    with pytest.raises(ConfigError, match="REDIS_PORT"):
        from_settings(bad)


def test_clients_travel(redis: Redis, url: str) -> None:
    """What another process is told leads to the same place; the pool's own client is its own."""
    mine = own(redis)

    assert portable(redis).options["path"] == url.removeprefix("unix://")
    assert address(redis) == url
    assert mine.ping()
    assert mine.connection_pool is not redis.connection_pool
    mine.close()


def test_a_client_behind_sentinel_travels(redis: Redis) -> None:
    """A pool behind Sentinel asks the sentinels anew, wherever the service has moved to."""
    places = [("127.0.0.1", 26379), ("127.0.0.1", 26380)]
    trust = {"min_other_sentinels": 1}
    sentinel = Sentinel(places, sentinel_kwargs={"socket_timeout": 0.1}, **trust)
    client = sentinel.master_for("main", db=3)
    again = pickle.loads(pickle.dumps(portable(client)))
    pool: Any = reach(again).connection_pool

    plain = portable(Sentinel(places).master_for("main")).sentinels
    none = {"min_other_sentinels": 0}
    assert plain == Sentinels("main", tuple(places), {"socket_timeout": ASKED}, none)
    assert again.sentinels == Sentinels("main", tuple(places), {"socket_timeout": 0.1}, trust)
    assert pool.sentinel_manager.min_other_sentinels == 1
    assert pool.service_name == "main"
    assert pool.connection_kwargs["db"] == 3
    assert len(pool.sentinel_manager.sentinels) == 2
    assert address(client) == "main/3 (by Sentinel at 127.0.0.1:26379, 127.0.0.1:26380)"


@pytest.mark.skipif(
    "force_master_ip" not in signature(Sentinel).parameters, reason="redis-py is too old for it"
)
def test_an_address_that_stands_for_the_primarys_travels() -> None:
    """Whoever sees the primary elsewhere than the sentinels do, as through a tunnel, finds it."""
    settings: dict[str, Any] = {"force_master_ip": "127.0.0.9"}
    sentinel = Sentinel([("127.0.0.1", 26379)], **settings)
    again = pickle.loads(pickle.dumps(portable(sentinel.master_for("main"))))
    pool: Any = reach(again).connection_pool
    assert pool.sentinel_manager._force_master_ip == "127.0.0.9"


def test_a_client_that_cannot_travel_is_refused(url: str) -> None:
    """What another process could not be told is a config error, not a broken worker."""
    client = Redis.from_url(url, credential_provider=Unportable())
    with pytest.raises(ConfigError, match="give a URL instead"):
        portable(client)
    client.close()


class Unportable(CredentialProvider):
    """Holds what no other process can have."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def get_credentials(self) -> tuple[str]:
        """Return a password."""
        return ("x",)


def test_signals_are_queued_and_wake_the_waiter() -> None:
    """A handler only enqueues; the wait ends at once, and the handlers go back as they were."""
    before = signal.getsignal(signal.SIGHUP)
    signals = SignalQueue()
    signals.install()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTTIN)
        started = time.monotonic()
        signals.wait(60)
        assert time.monotonic() - started < 30
        assert signals.drain() == [signal.SIGHUP, signal.SIGTTIN]
        assert signals.drain() == []
    finally:
        signals.close()
    assert signal.getsignal(signal.SIGHUP) is before


def test_another_thread_may_post() -> None:
    """stop() from anywhere wakes the loop; outside the main thread no handler is taken."""
    signals = SignalQueue()

    def elsewhere() -> None:
        signals.install()
        signals.post(15)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    signals.wait(60)
    thread.join()

    assert signals.drain() == [15]
    signals.close()


def test_a_wait_ends_when_a_descriptor_is_readable() -> None:
    """News from the fork server ends the sleep."""
    signals = SignalQueue()
    read, write = os.pipe()
    os.write(write, b"x")
    started = time.monotonic()
    signals.wait(60, [read])

    assert time.monotonic() - started < 30
    for fd in (read, write):
        os.close(fd)
    signals.close()
