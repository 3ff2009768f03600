"""One turn of a worker, in one script on the server: store an outcome, claim the next job.

What the script writes is what RQ writes for a job that succeeds and for one that starts, to the
same keys. A job is taken off its queue and registered as started in the same step, so there is
no moment in which it is nowhere, with any number of queues. An outcome is stored only while the
execution is still open: who settled the job meanwhile is right.

Single server only, as RQ itself: the keys are not declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

#: ids a turn may set aside or skip before it gives up until the next one
MOST_SKIPPED = 100

SCRIPT = """
local worker, now, stamp, cap = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local worker_key = 'rq:worker:' .. worker
local whole = math.floor(now)
local call, pcall_ = redis.call, redis.pcall
local id, execution, queue, ttl = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
if id ~= '' then
  local key = 'rq:job:' .. id
  local execution_key = 'rq:execution:' .. id .. ':' .. execution
  if call('EXISTS', execution_key) == 0 then return {'fenced'} end
  if call('EXISTS', key .. ':dependents') == 1 or call('EXISTS', key) == 0 then
    return {'dependents'}
  end
  local results = 'rq:results:' .. id
  local value = ARGV[12]
  if value == '' then
    call('XADD', results, 'MAXLEN', '~', 10, '*', 'type', 1, 'worker_name', worker,
      'execution_id', execution, 'execution_started_at', ARGV[13], 'execution_ended_at', ARGV[14])
  else
    call('XADD', results, 'MAXLEN', '~', 10, '*', 'type', 1, 'worker_name', worker,
      'return_value', value,
      'execution_id', execution, 'execution_started_at', ARGV[13], 'execution_ended_at', ARGV[14])
  end
  call('HINCRBY', worker_key, 'successful_job_count', 1)
  call('HINCRBYFLOAT', worker_key, 'total_working_time', ARGV[9])
  call('HSET', key, 'status', 'finished', 'started_at', ARGV[10], 'ended_at', ARGV[11],
    'last_heartbeat', ARGV[11])
  if tonumber(ttl) > 0 then
    call('EXPIRE', results, ttl)
    call('EXPIRE', key, ttl)
    call('EXPIRE', 'rq:job::' .. id .. ':dependencies', ttl)
    call('ZADD', 'rq:finished:' .. queue, whole + ttl, id)
  else
    call('PERSIST', results)
    call('ZADD', 'rq:finished:' .. queue, ttl == '-1' and '+inf' or ttl, id)
  end
  call('DEL', execution_key)
  call('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
  call('ZREM', 'rq:executions:' .. id, execution)
end

local function rest(answer, skipped)
  if id ~= '' or execution ~= '' then
    call('HSET', worker_key, 'state', 'idle', 'last_heartbeat', stamp)
    call('HDEL', worker_key, 'current_job')
    call('EXPIRE', worker_key, ARGV[16])
  end
  return {answer, '', '', skipped}
end

if #ARGV > 16 and call('EXISTS', 'rq:suspended') == 1 then return rest('suspended', {}) end
local skipped, claim = {}, ARGV[15]
for i = 17, #ARGV do
  local name = ARGV[i]
  local queue_key = 'rq:queue:' .. name
  while #skipped < MOST_SKIPPED do
    local next = pcall_('LPOP', queue_key)
    if not next then break end
    if type(next) == 'table' then skipped[#skipped + 1] = {'queue', name, next['err']} break end
    local key = 'rq:job:' .. next
    local raw = pcall_('HGETALL', key)
    if #raw == 0 and not raw['err'] then
      skipped[#skipped + 1] = {'vanished', name, next}
    else
      local timeout, data, lease, origin = nil, false, nil, ''
      for j = 1, #raw, 2 do
        if raw[j] == 'timeout' then timeout = tonumber(raw[j + 1])
        elseif raw[j] == 'data' then data = true
        elseif raw[j] == 'origin' then origin = raw[j + 1] end
      end
      if timeout == -1 then lease = cap > 0 and cap + 60 or 420
      else
        lease = timeout or 420
        if cap > 0 and lease > cap then lease = cap end
        lease = math.floor(lease) + 60
      end
      if not data then
        call('RPUSH', 'pysplash:quarantine:' .. name, next)
        skipped[#skipped + 1] = {'unreadable', name, next}
      else
      local execution_key = 'rq:execution:' .. next .. ':' .. claim
      call('HSET', execution_key, 'id', claim, 'created_at', ARGV[2], 'last_heartbeat', ARGV[2],
        'worker_name', worker)
      call('EXPIRE', execution_key, lease)
      call('ZADD', 'rq:executions:' .. next, whole + lease + 60, claim)
      call('EXPIRE', 'rq:executions:' .. next, lease + 60)
      call('ZADD', 'rq:wip:' .. origin, whole + lease, next .. ':' .. claim)
      call('HSET', worker_key, 'state', 'busy', 'current_job', next, 'current_job_working_time', 0,
        'last_heartbeat', stamp)
      call('EXPIRE', worker_key, lease)
      call('HSET', key, 'last_heartbeat', stamp, 'status', 'started', 'started_at', stamp,
        'worker_name', worker)
      call('PERSIST', key)
      return {'job', name, next, skipped, raw}
      end
    end
  end
end
-- Only reading commands are tracked: whoever asked to be told hears of the next push.
for i = 17, #ARGV do pcall_('LLEN', 'rq:queue:' .. ARGV[i]) end
return rest('empty', skipped)
""".replace("MOST_SKIPPED", str(MOST_SKIPPED))


class Answer(Enum):
    """What a turn came to."""

    JOB = b"job"  #: a job is claimed, and the outcome stored
    EMPTY = b"empty"  #: the outcome is stored; nothing waits
    SUSPENDED = b"suspended"  #: the outcome is stored; RQ is suspended
    FENCED = b"fenced"  #: nothing was done: the execution is no longer this worker's
    DEPENDENTS = (
        b"dependents"  #: nothing was done: others depend on the job, or it lost its hash; RQ has to
    )


@dataclass(slots=True)
class Finish:
    """The outcome of a job that returned, ready to be stored."""

    job_id: str
    execution_id: str
    queue: str
    #: seconds the result is kept; -1: for ever
    ttl: int
    seconds: float
    started_at: str
    ended_at: str
    #: the serialised result in base64; empty for None
    value: bytes
    #: the same two moments in seconds since the epoch, as RQ writes them in a result
    execution_started_at: str
    execution_ended_at: str

    def words(self) -> tuple[str | bytes | int | float, ...]:
        """Return it as the script takes it."""
        return (
            self.job_id,
            self.execution_id,
            self.queue,
            self.ttl,
            self.seconds,
            self.started_at,
            self.ended_at,
            self.value,
            self.execution_started_at,
            self.execution_ended_at,
        )


#: no outcome to store; and the same from a worker that Redis still has as busy
NOTHING = ("",) * 10
UNREST = ("", "idle", *NOTHING[2:])


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to one turn."""

    answer: Answer
    queue: str
    job_id: bytes
    #: what was passed over: ("queue", name, error), ("unreadable" | "vanished", name, id)
    skipped: Sequence[Any]
    raw: Sequence[bytes]

    def hash(self) -> dict[bytes, bytes]:
        """Return the claimed job's hash as Redis has it."""
        return dict(zip(self.raw[::2], self.raw[1::2], strict=True))


def read(reply: Sequence[Any]) -> Turn:
    """Return the script's reply as a Turn."""
    if len(reply) == 1:
        return Turn(Answer(reply[0]), "", b"", (), ())
    raw = reply[4] if len(reply) > 4 else ()
    return Turn(Answer(reply[0]), reply[1].decode(errors="replace"), reply[2], reply[3], raw)
