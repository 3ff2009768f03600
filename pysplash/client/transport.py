"""Talking to Redis for one call or many, from any thread: enqueue, look, wait, cancel."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import get_current_job
from rq.job import Job

from pysplash.connections.clients import address, portable, reach
from pysplash.connections.outage import UNREACHABLE, said
from pysplash.connections.refusals import refusal
from pysplash.connections.scripts import ScriptCall
from pysplash.errors import CallError, ConnectionFailed
from pysplash.jobs.results import VANISHED, ResultEntry, job_key, results_key
from pysplash.waiting.wait import wait_jobs

from .discovery import PoolFacts, read_pools
from .requests import (
    CANCEL,
    ENQUEUE,
    CallAnswer,
    CallRequest,
    read_answer,
)

#: seconds one blocking read lasts at most, so between two looks at a job that ends in silence
BLOCK = 1.0
#: seconds without a byte after which a connection counts as dead
SOCKET_TIMEOUT = BLOCK + 5.0
#: seconds between two tries while Redis is away
PAUSE = 0.1
#: calls enqueued, or looked at, in one packet
CHUNK = 500
T = TypeVar("T")


class Transport:
    """Sends a client's commands to Redis; thread-safe, over a bounded number of connections.

    All it sends may be sent twice, so a connection that turns out to be dead is replaced.
    """

    def __init__(self, client: Redis, max_connections: int, result_ttl: int) -> None:
        self._redis = reach(
            portable(client),
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=BLOCK,
            decode_responses=False,
            retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), 1, (RedisConnectionError,)),
        )
        self._max_connections = max_connections
        self._connections, self._owner = threading.BoundedSemaphore(max_connections), os.getpid()
        self._result_ttl = result_ttl

    def enqueue(self, request: CallRequest) -> bool:
        """Enqueue a call; return whether a pool was there to serve it."""
        keys, words = request.call
        return bool(self._talk(lambda: ENQUEUE.run(self._redis, words, keys)))

    def enqueue_all(self, requests: Sequence[CallRequest]) -> list[bool]:
        """Enqueue calls in as few packets as may be."""
        taken: list[bool] = []
        for start in range(0, len(requests), CHUNK):
            some = [request.call for request in requests[start : start + CHUNK]]
            taken += self._talk(partial(self._take, some))
        return taken

    def cancel(self, request: CallRequest) -> bool:
        """Take a call off its queue, or have its worker stop it; False if it has ended before."""
        words: list[Any] = [request.job_id, self._result_ttl]
        return bool(self._talk(lambda: CANCEL.run(self._redis, words)))

    def status(self, request: CallRequest) -> str:
        """Return RQ's word for where a call is."""
        found = self._talk(lambda: self._redis.hmget(job_key(request.job_id), "status"))
        return _text(found[0]) or VANISHED

    def pools(self) -> list[PoolFacts]:
        """Return what every living pool says of itself."""
        return self._talk(lambda: read_pools(self._redis))

    def look(self, requests: Sequence[CallRequest]) -> list[CallAnswer | None]:
        """Return the answers there are; None for a call that goes on."""
        answers: list[CallAnswer | None] = []
        for start in range(0, len(requests), CHUNK):
            some = requests[start : start + CHUNK]
            with self._redis.pipeline(transaction=False) as pipeline:
                for request in some:
                    pipeline.hmget(job_key(request.job_id), "status")
                    pipeline.xrevrange(results_key(request.job_id), count=1)
                replies = self._talk(pipeline.execute)
            for request, (status,), entries in zip(some, replies[::2], replies[1::2], strict=True):
                entry = entries[0] if entries else None
                answers.append(read_answer(request, _text(status), entry))
        return answers

    def wait(self, request: CallRequest, until: float | None) -> CallAnswer | None:
        """Wait for an answer until a moment of the monotonic clock, while Redis is away too.

        A job that calls a task waits as :func:`wait_jobs` does, so the pool is not starved by it.
        """
        if get_current_job() is not None:
            self.wait_for_all([request], until)
            return self.look([request])[0]
        last = b"0-0"
        while True:
            left = BLOCK if until is None else min(BLOCK, until - time.monotonic())
            answer = None
            try:
                entry = self._read(request, last, left) if left > 0 else None
                if entry is not None:
                    last = entry[0]
                    answer = read_answer(request, None, entry)
                else:
                    (answer,) = self.look([request])
            except ConnectionFailed:
                time.sleep(max(0.0, min(PAUSE, left)))
            if answer is not None or (until is not None and time.monotonic() >= until):
                return answer

    def wait_for_all(self, requests: Sequence[CallRequest], until: float | None) -> bool:
        """Wait until all calls have ended; return whether they have."""
        left = None if until is None else max(0.0, until - time.monotonic())
        jobs = [self._job(request) for request in requests]
        return bool(wait_jobs(jobs, left, on_failure="none", progress=False))

    def close(self) -> None:
        """Close all connections; others are opened when they are needed."""
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def _take(self, calls: Sequence[ScriptCall]) -> list[bool]:
        """Enqueue calls; raise the first error there is, once all have been answered."""
        replies = ENQUEUE.run_for_all(self._redis, calls)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [bool(reply) for reply in replies]

    def _permits(self) -> threading.BoundedSemaphore:
        """Return what bounds the connections of this process.

        After a fork it is a new one: of the old one other threads may hold a part, and these are
        only in the parent.
        """
        if self._owner != os.getpid():
            self._connections = threading.BoundedSemaphore(self._max_connections)
            self._owner = os.getpid()
        return self._connections

    def _talk(self, step: Callable[[], T]) -> T:
        try:
            with self._permits():
                return step()
        except UNREACHABLE as error:
            raise ConnectionFailed(
                f"Redis at {address(self._redis)} does not answer ({said(error)}): "
                "the call was not made, or its answer is not known"
            ) from error
        except RedisError as error:
            raise CallError(refusal(address(self._redis), error)) from error

    def _read(self, request: CallRequest, last: bytes, seconds: float) -> ResultEntry | None:
        """Return the newest entry after *last*, asleep until there is one; None if none comes."""
        milliseconds = max(1, round(seconds * 1000))  # 0 would block for ever
        streams: dict[Any, Any] = {results_key(request.job_id): last}
        reply: Any = self._talk(lambda: self._redis.xread(streams, block=milliseconds))
        entries = [entry for found in _streams(reply) for entry in found]
        return entries[-1] if entries else None

    def _job(self, request: CallRequest) -> Job:
        """Return RQ's object for a call, as far as waiting needs one."""
        job = Job(request.job_id, connection=self._redis, serializer=request.serializer)
        job.origin, job.result_ttl = request.queue, self._result_ttl
        return job


def _text(word: Any) -> str | None:
    return word.decode() if isinstance(word, bytes) else word


def _streams(reply: Any) -> Iterator[list[ResultEntry]]:
    """Yield the entries of each stream, in the forms that RESP2 and RESP3 have for them."""
    if isinstance(reply, dict):
        for found in reply.values():
            nested = bool(found) and isinstance(found[0], list)
            yield [entry for part in found for entry in part] if nested else found
    else:
        for _, found in reply or ():
            yield found
