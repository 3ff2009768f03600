"""Forwarding of pipeline items: the output is enqueued and the input removed in one step.

An item is a job in the queue of its stage. A worker that is killed has done both or neither. The
script first checks that the item is still its worker's, so an item that was settled meanwhile
forwards nothing. RQ's own workers read the status of a job they have run, then delete it; for
them a hash with nothing but the status is left.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

from redis import Redis
from rq.job import Job, JobStatus, Retry
from rq.utils import utcformat, utcparse

from pysplash.config import check_queues
from pysplash.connections.outage import patiently, pause
from pysplash.connections.scripts import Script
from pysplash.errors import ItemLost, NotBytes, StageError
from pysplash.jobs.rq import RECORDS

#: retries an item is enqueued with; its stage ends them earlier
RETRIES = 99
#: items forwarded in one step
MOST = 50_000
#: the names of all stages that ever were pushed to
STAGES_KEY = "pysplash:stages"
ENTRY = "pysplash.items.{}"

_FORWARD = Script(
    """
local item, worker, origin, ends, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local key, worker_key = 'rq:job:' .. item, 'rq:worker:' .. worker
local call, pcall_ = redis.call, redis.pcall
RECORDS
if item ~= '' then
  local job = redis.call('HMGET', key, 'status', 'worker_name')
  if job[1] ~= 'started' or job[2] ~= worker then return 0 end
end
local fields, known = {}, {}
for i = 1, count do fields[i] = ARGV[5 + i] end
for i = 6 + count, #ARGV, 4 do
  local queue, id = ARGV[i], ARGV[i + 1]
  redis.call('HSET', 'rq:job:' .. id, 'origin', queue, 'description', queue,
    'timeout', ARGV[i + 2], 'data', ARGV[i + 3], unpack(fields))
  redis.call('RPUSH', 'rq:queue:' .. queue, id)
  if not known[queue] then
    known[queue] = true
    redis.call('SADD', 'rq:queues', 'rq:queue:' .. queue)
    redis.call('SADD', 'pysplash:stages', queue)
  end
end
if ends ~= '' then
  local executions = 'rq:executions:' .. item
  for _, execution in ipairs(redis.call('ZRANGE', executions, 0, -1)) do
    redis.call('DEL', 'rq:execution:' .. item .. ':' .. execution)
    redis.call('ZREM', 'rq:wip:' .. origin, item .. ':' .. execution)
    close(item, execution)
  end
  redis.call('DEL', key, executions, 'rq:results:' .. item, 'pysplash:deaths:' .. item,
    'pysplash:memory-kills:' .. item)
  if ends == 'RQ' then
    redis.call('HSET', key, 'status', 'finished')
    redis.call('EXPIRE', key, 60)
  else
    redis.call('HINCRBY', worker_key, 'successful_job_count', 1)
    redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', ends)
  end
end
return 1
""".replace("RECORDS", RECORDS)
)


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a stage: data, the next stage, and seconds it may take there."""

    queue: str
    data: bytes
    timeout: int


@dataclass(frozen=True, slots=True)
class Item:
    """An item that a worker works on."""

    id: str
    queue: str
    worker: str
    connection: Redis
    #: since when it is worked on, if the worker leaves its end to the item; None: it is RQ's own
    began: datetime | None


def check_output(queue: Any, data: Any) -> None:
    """Raise :class:`NotBytes` or :class:`StageError` for what cannot be forwarded."""
    if not isinstance(data, bytes):
        raise NotBytes(
            f"a stage takes bytes, not {type(data).__name__}: encode what is to be forwarded"
        )
    if not isinstance(queue, str):
        raise StageError(f"{queue!r} is no name of a stage: give a text such as 'output'")
    check_queues([queue])


def push(connection: Redis, outputs: Sequence[Output]) -> list[str]:
    """Enqueue items from outside; return their ids."""
    words, ids = _words(None, outputs, ends=False)
    _FORWARD.run(connection, words)
    return ids


def forward(item: Item, outputs: Sequence[Output], *, ends: bool) -> None:
    """Enqueue the outputs of *item* and, if that *ends* it, remove it in the same step.

    Waits while Redis is away. Raises :class:`ItemLost` if the item is no longer its worker's.
    """
    words, _ = _words(item, outputs, ends=ends)
    sent = False

    def again(error: Exception, seconds: float) -> None:
        nonlocal sent
        sent = ends  # perhaps it was done and only its reply is lost: then the item is gone
        pause(error, seconds)

    if not patiently(lambda: _FORWARD.run(item.connection, words), again) and not sent:
        raise ItemLost(
            f"item {item.id} of stage {item.queue} was settled meanwhile; its outcome is dropped"
        )


def entry(queue: str) -> str:
    """Return the function name of a stage's items."""
    name = quote(queue, safe="").replace(".", "%2E")
    return ENTRY.format("%5F" + name[1:] if name.startswith("_") else name)


def stage_name(attribute: str) -> str:
    """Return the stage named by the last part of a function name."""
    return unquote(attribute)


def _words(
    item: Item | None, outputs: Sequence[Output], *, ends: bool
) -> tuple[list[Any], list[str]]:
    if len(outputs) > MOST:
        raise StageError(
            f"{len(outputs)} pairs are too many to forward in one step (at most {MOST}): "
            "return a generator"
        )
    fields = _fields() if outputs else []
    ids = [uuid4().hex for _ in outputs]
    words: list[Any] = ["", "", ""] if item is None else [item.id, item.worker, item.queue]
    words += [_end(item) if item is not None and ends else "", len(fields), *fields]
    for output, job_id in zip(outputs, ids, strict=True):
        words += (output.queue, job_id, output.timeout, _data(output))
    return words, ids


def _end(item: Item) -> str:
    """Return how an item's end is to be stored: the seconds it took, or as RQ expects it."""
    if item.began is None:
        return "RQ"
    return f"{max(0.0, (datetime.now(UTC) - item.began).total_seconds()):.6f}"


def _data(output: Output) -> bytes:
    """Return the call that an item is, as RQ's default serializer writes it."""
    call: Any = (entry(output.queue), None, (output.data,), {})
    return zlib.compress(pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL))


def _fields() -> list[Any]:
    """Return what all items enqueued now have in common, as RQ stores it."""
    now = utcformat(datetime.now(UTC))
    return ["created_at", now, "enqueued_at", now, *_settings()]


@cache
def _settings() -> tuple[Any, ...]:
    """Return what all items ever have in common."""
    job = Job.create(
        ENTRY,
        connection=Redis(),  # never connected: RQ's job wants a client where it only keeps one
        result_ttl=0,
        status=JobStatus.QUEUED,
        retry=Retry(RETRIES, enqueue_at_front=True),
    )
    own = ("created_at", "enqueued_at", "data", "origin", "description", "timeout")
    stored = {name: value for name, value in job.to_dict().items() if name not in own}
    return tuple(word for pair in stored.items() for word in pair)


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What waits at one stage: items, and the seconds for which the first has waited."""

    name: str
    waiting: int
    running: int
    failed: int
    oldest: float | None


def read_stages(connection: Redis) -> list[StageFacts]:
    """Return what waits at every stage that was ever pushed to, by name; changes nothing."""
    members: Any = connection.smembers(STAGES_KEY)
    names = sorted(name.decode() for name in members)
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.llen(f"rq:queue:{name}")
            pipeline.zcard(f"rq:wip:{name}")
            pipeline.zcard(f"rq:failed:{name}")
            pipeline.lindex(f"rq:queue:{name}", 0)
        counted: list[Any] = pipeline.execute()
        for first in counted[3::4]:
            pipeline.hget(b"rq:job:" + (first or b""), "enqueued_at")
        since: list[Any] = pipeline.execute()
    rows = zip(names, counted[::4], counted[1::4], counted[2::4], since, strict=True)
    return [
        StageFacts(name, waiting, running, failed, _age(moment))
        for name, waiting, running, failed, moment in rows
    ]


def _age(moment: bytes | None) -> float | None:
    if not moment:
        return None
    return max(0.0, (datetime.now(UTC) - utcparse(moment.decode())).total_seconds())
