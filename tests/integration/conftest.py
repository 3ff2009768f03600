"""What tests on a real server may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.connection import AbstractConnection
from rq import Queue


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """A queue of the test's own."""
    return Queue("default", connection=redis)


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Say how many round trips waits in this process took: what they send is a read or a look."""
    send: Callable[..., None] = AbstractConnection.send_packed_command
    sent = []

    def note(connection: AbstractConnection, packet: Any, *arguments: Any, **options: Any) -> None:
        words = packet if isinstance(packet, bytes) else b"".join(packet)
        if b"\r\nXREAD\r\n" in words or b"\r\nEVAL\r\n" in words:
            sent.append(len(words))
        send(connection, packet, *arguments, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", note)
    return sent.__len__
