"""Calls of tasks, as both clients make them: the job to enqueue, and its answer.

A call is an RQ job like any other. It is enqueued by one script, which checks in the same step
that a pool that serves it is alive; sending it twice enqueues it once. Most fields of a job are
alike for all calls of a task: they are taken once from a job that RQ itself has made. Only the id,
the arguments and the times are filled in.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from redis import Redis
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import resolve_serializer

from pysplash.connections.scripts import Script, ScriptCall
from pysplash.errors import CallError, ExecutionError
from pysplash.jobs import bundles as parts
from pysplash.jobs.restoring import stamp
from pysplash.jobs.results import ENDED, VANISHED, ResultEntry, results_key

from .routing import Route
from .safe_pickle import PrimitiveSerializer
from .terms import Terms

#: where a task is to be found by a worker, whatever module it is from
ENTRY, PLAIN_ENTRY = "pysplash.tasks.{}", "pysplash.plain_tasks.{}"
#: a script's words
Words = list[str | bytes | int | float]

#: enqueues one job if one of the pools takes jobs; reading the stream's length makes a client
#: that tracks what it reads hear of the answer: of a key that is given as such, on any server
ENQUEUE = Script(
    """
local id, queue, ttl, pools = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local key = 'rq:job:' .. id
redis.call('XLEN', KEYS[1])
if redis.call('EXISTS', key) == 1 then return 1 end
local open = false
for i = 5, 4 + pools do
  if redis.call('HGET', ARGV[i], 'open') == '1' then open = true break end
end
if not open then return 0 end
redis.call('HSET', key, unpack(ARGV, 5 + pools))
if ttl > 0 then redis.call('EXPIRE', key, ttl) end
redis.call('SADD', 'rq:queues', 'rq:queue:' .. queue)
redis.call('RPUSH', 'rq:queue:' .. queue, id)
return 1
"""
)
#: takes a job off its queue, or asks its worker to stop it; 0 if there was neither to be done
CANCEL = Script(
    """
local id = ARGV[1]
local key = 'rq:job:' .. id
local job = redis.call('HMGET', key, 'status', 'origin', 'worker_name')
if job[1] == 'queued' and redis.call('LREM', 'rq:queue:' .. job[2], 1, id) == 1 then
  redis.call('HSET', key, 'status', 'canceled')
  redis.call('EXPIRE', key, ARGV[2])
  return 1
end
if job[1] == 'started' and job[3] then
  redis.call('PUBLISH', 'rq:pubsub:' .. job[3],
    cjson.encode({command = 'stop-job', job_id = id}))
  return 1
end
return 0
"""
)
_SUCCESS = str(Result.Type.SUCCESSFUL.value).encode()
#: serializers every client has, by what a pool may call them
_SERIALIZERS = {
    None: None,
    "pickle": None,
    "json": "json",
    "rq.serializers.DefaultSerializer": None,
    "rq.serializers.PickleSerializer": None,
    "rq.serializers.JSONSerializer": "json",
}


def _serializer(terms: Terms, route: Route) -> Any:
    """Return the serializer for a call; raise :class:`CallError` if the client lacks it."""
    if terms.serializer is not None:
        return resolve_serializer(terms.serializer)
    if route.serializer not in _SERIALIZERS:
        raise CallError(
            f"the pool of task {route.task!r} uses the serializer {route.serializer}: "
            "give the client the same one, as serializer="
        )
    known = _SERIALIZERS[route.serializer]
    return PrimitiveSerializer if terms.plain and known is None else resolve_serializer(known)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """One call, ready to be enqueued."""

    job_id: str
    task: str
    queue: str
    serializer: Any
    #: what ENQUEUE is given
    words: Words
    #: whether its result is JSON text
    plain: bool = False
    #: whether it is a bundle of bytes, with a result of that form
    as_bytes: bool = False

    @property
    def call(self) -> ScriptCall:
        """What ENQUEUE is given, and the keys that it is to be told of."""
        return (results_key(self.job_id),), self.words


def build(
    route: Route,
    terms: Terms,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    ttl: float | None = None,
    entry: str | None = None,
    *,
    as_bytes: bool = False,
) -> CallRequest:
    """Return the call of a task; it is dropped unstarted after *ttl* seconds.

    *entry* is where a worker finds the task, if not as the terms say. Its result is that of a
    bundle of bytes if *as_bytes*. Raises :class:`CallError`
    for arguments that cannot be serialised. The job's description is the task's name alone:
    arguments are nobody's business in a log.
    """
    serializer = _serializer(terms, route)
    function = entry or (PLAIN_ENTRY if terms.plain else ENTRY).format(route.task)
    try:
        data = serializer.dumps((function, None, arguments, named))
    except Exception as error:
        raise CallError(
            f"the arguments of task {route.task!r} cannot be sent "
            f"({type(error).__name__}: {error}): give values that can be serialised"
        ) from error
    ttls = (terms.result_ttl, terms.failure_ttl)
    fields = job_fields(function, route.queue, route.timeout or 180, ttls, route.task, data)
    lasts = 0 if ttl is None else max(1, math.ceil(ttl))
    job_id = new_id()
    words: Words = [job_id, route.queue, lasts, len(route.pools), *route.pools, *fields]
    plain = terms.plain and not as_bytes
    return CallRequest(job_id, route.task, route.queue, serializer, words, plain, as_bytes)


def build_bundle(route: Route, terms: Terms, payloads: Sequence[bytes], ttl: float) -> CallRequest:
    """Return the calls of a task, one with each of *payloads*, as one job.

    The bytes travel as they are where all pools of the queue know that and pickles carry them;
    else as base64 texts.
    """
    entry = parts.PLACE + route.task
    if route.takes_bytes and terms.serializer is None and _is_pickle(route.serializer):
        return build(route, terms, tuple(payloads), parts.BYTES, ttl, entry, as_bytes=True)
    texts = tuple(b64encode(payload).decode() for payload in payloads)
    return build(route, terms, texts, {}, ttl, entry)


def _is_pickle(serializer: str | None) -> bool:
    return serializer in _SERIALIZERS and _SERIALIZERS[serializer] is None


def has_large(arguments: Sequence[Any]) -> bool:
    """Return whether making a job of these takes long enough to keep others waiting."""
    return any(isinstance(one, str | bytes) and len(one) > LARGE for one in arguments)


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """How a call ended."""

    status: str
    value: Any = None
    error: CallError | None = None

    def get(self) -> Any:
        """Return the value; raise the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


def read_answer(
    request: CallRequest, status: str | None, entry: ResultEntry | None
) -> CallAnswer | None:
    """Return how a call ended; None if it is still to end.

    *status* is that of its job (None: it is gone), read no later than *entry*, the newest of its
    results. An entry of a retry ends nothing.
    """
    if entry is not None:
        return _read_entry(request, status, entry)
    if status is None:
        status = VANISHED
    if status == JobStatus.FINISHED.value:
        return CallAnswer(status)
    if status in ENDED or status == VANISHED:
        return CallAnswer(status, error=ExecutionError(request.task, status, "", request.job_id))
    return None


def is_success(entry: ResultEntry) -> bool:
    """Return whether an entry is the result of a job that returned: whatever its status is."""
    return entry[1].get(b"type") == _SUCCESS


def _read_entry(request: CallRequest, status: str | None, entry: ResultEntry) -> CallAnswer | None:
    number, fields = entry
    kind = Result.Type(int(fields[b"type"]))
    if kind is Result.Type.RETRIED:
        return None
    if kind is Result.Type.SUCCESSFUL:
        return _read_value(request, fields.get(b"return_value"))
    try:
        result = Result.restore(
            request.job_id, number.decode(), dict(fields), NOWHERE, request.serializer
        )
    except Exception as error:
        return CallAnswer(JobStatus.FAILED.value, None, _unread(request, error))
    ended = status if status in ENDED and status else JobStatus.FAILED.value
    failure = ExecutionError(request.task, ended, result.exc_string or "", request.job_id)
    if failure.traceback:
        failure.add_note("Remote traceback:\n" + failure.traceback.rstrip())
    return CallAnswer(ended, None, failure)


def _read_value(request: CallRequest, stored: bytes | None) -> CallAnswer:
    try:
        value = None if stored is None else request.serializer.loads(b64decode(stored))
        if request.plain:
            value = json.loads(str(value))
        elif request.as_bytes:
            value = parts.opened(value)
    except Exception as error:
        return CallAnswer(JobStatus.FINISHED.value, None, _unread(request, error))
    return CallAnswer(JobStatus.FINISHED.value, value)


def _unread(request: CallRequest, error: Exception) -> CallError:
    return CallError(
        f"the answer of task {request.task!r} cannot be read here "
        f"({type(error).__name__}: {error}): let it return plain values, or import its class"
    )


class Named:
    """A task as an attribute of a client: call it, or go on to a name with dots."""

    def __init__(self, execute: Callable[..., Any], name: str) -> None:
        self._execute = execute
        self._name = name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the task; all arguments are its own."""
        return self._execute(self._name, arguments, named)

    def __getattr__(self, name: str) -> Named:
        if name.startswith("_"):
            raise AttributeError(f"no task is named {self._name}.{name}")
        return Named(self._execute, f"{self._name}.{name}")


#: never connected: RQ's job wants a client where it only keeps one
NOWHERE = Redis()
#: bytes up to which arguments are not made smaller: that would take longer than all the rest
SMALL = 1024
#: bytes from which on a sample of them shows whether they can be made smaller, and its size
TRIED, SAMPLE = 2**13, 512
#: bytes from which on whoever has others to see to lets a thread pack or read them
LARGE = 2**16
#: fields that differ from call to call
_OWN = ("created_at", "enqueued_at", "data")
#: what a stored block in zlib's form begins with
_STORED = b"\x78\x01\x01"


def job_fields(
    function: str, queue: str, timeout: int, ttls: tuple[int, int], description: str, data: bytes
) -> list[str | bytes | int | float]:
    """Return the names and values of a job's fields, enqueued now with serialised *data*.

    *ttls* are the seconds for which a result and a failure are kept.
    """
    now = stamp(time.time())
    alike = _alike(function, queue, timeout, ttls, description)
    return ["created_at", now, "enqueued_at", now, "data", packed(data), *alike]


def _is_dense(data: bytes) -> bool:
    """Return whether a sample from the middle is made smaller by less than an eighth."""
    sample = data[len(data) // 2 :][:SAMPLE]
    return len(zlib.compress(sample, 1)) > len(sample) * 7 // 8


def new_id() -> str:
    """Return an id that no other job has."""
    return os.urandom(16).hex()


@lru_cache(maxsize=1024)
def _alike(
    function: str, queue: str, timeout: int, ttls: tuple[int, int], description: str
) -> tuple[Any, ...]:
    """Return the fields that all such jobs share, name after value after name."""
    job = Job.create(
        function,
        connection=NOWHERE,
        origin=queue,
        timeout=timeout,
        result_ttl=ttls[0],
        failure_ttl=ttls[1],
        description=description,
        status=JobStatus.QUEUED,
    )
    fields = job.to_dict()
    return tuple(word for name in fields if name not in _OWN for word in (name, fields[name]))


def packed(data: bytes) -> bytes:
    """Return *data* in the form of zlib, as RQ keeps it.

    What is small is not made smaller, nor is what a sample shows to be dense already.
    """
    size = len(data)
    if size > SMALL:
        return zlib.compress(data, 0 if size > TRIED and _is_dense(data) else 1)
    length = size.to_bytes(2, "little")
    inverse = (size ^ 0xFFFF).to_bytes(2, "little")
    return b"".join((_STORED, length, inverse, data, zlib.adler32(data).to_bytes(4, "big")))
