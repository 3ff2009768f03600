"""The script by which a worker stores the outcome of one job and claims the next one.

What the script writes is what RQ writes for a job that succeeds and for one that starts, to the
same keys. A job is taken off its queue and registered as started in the same step, so there is
no moment in which it is nowhere, with any number of queues. An outcome is stored only while the
execution is still open: who settled the job meanwhile is right.

Single server only, as RQ itself: keys are declared only where the server is to tell of changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

from .rq import ABSENT, PRESENT, RECORDS

#: longest timeout of a job, and longest time its result is kept, in seconds; more means this
MOST_SECONDS = 10**9
#: bytes of the longest job id the scoreboard keeps
MAX_JOB_ID = 255

#: ids a turn may set aside or skip before it gives up until the next one
MOST_SKIPPED = 100
#: seconds a worker's key must live on at least once a lease has ended
ROOM = 60

#: declares a worker's connection lost, or all of a dead worker; for how many seconds
CLOSED, CLOSED_TTL = "pysplash:closed:{}", 3600
#: what scripts begin with where the server closes no connections: its last key declares this one
#: lost, and nothing is done then
FENCE = """
if redis.call('EXISTS', KEYS[#KEYS], 'CLOSED' .. ARGV[1]) > 0 then
  return redis.error_reply('CLOSED this connection of the worker was declared lost')
end
""".replace("CLOSED' ..", CLOSED.format("") + "' ..")

#: what every script of a turn begins with
HEAD = (
    """
local worker, now, stamp, cap = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local idle_ttl, refresh = tonumber(ARGV[5]), ARGV[6] == '1'
local worker_key = 'rq:worker:' .. worker
local whole = math.floor(now)
local call, pcall_ = redis.call, redis.pcall
local suspended = false
"""
    + RECORDS
)

#: `write`: write the outcome whose words begin at argument `at` to the job `key`; return its score
#: in the finished registry, or false if it is gone
WRITE = """
local function write(at, id, key)
  local ended, ttl, value = ARGV[at + 5], tonumber(ARGV[at + 3]), ARGV[at + 6]
  if call('HSET', key, 'status', 'finished', 'started_at', ARGV[at + 4], 'ended_at', ended,
    'last_heartbeat', ended) > 1 then
    call('DEL', key)
    return false
  end
  local results = 'rq:results:' .. id
  if value == '' then
    call('XADD', results, 'MAXLEN', '~', 10, '*', 'type', 1, 'worker_name', worker, 'execution_id',
      ARGV[at + 1], 'execution_started_at', ARGV[at + 7], 'execution_ended_at', ARGV[at + 8])
  else
    call('XADD', results, 'MAXLEN', '~', 10, '*', 'type', 1, 'worker_name', worker,
      'return_value', value, 'execution_id', ARGV[at + 1],
      'execution_started_at', ARGV[at + 7], 'execution_ended_at', ARGV[at + 8])
  end
  if ttl > 0 then
    call('EXPIRE', results, ttl)
    call('EXPIRE', key, ttl)
    if ARGV[at + 9] == '1' then call('EXPIRE', 'rq:job::' .. id .. ':dependencies', ttl) end
    return whole + ttl
  end
  call('PERSIST', results)
  call('PERSIST', key)
  return '+inf'
end
"""

#: `store`: store an outcome, or say that it must not be stored, or that RQ has to
STORE = (
    WRITE
    + """
local function store()
  local key, execution_key = 'rq:job:' .. id, 'rq:execution:' .. ended
  -- One look for three keys. The job's counts for more than the others together.
  local there = call('EXISTS', key, key, key, key .. ':dependents', 'rq:suspended')
  if there ~= 3 then
    if call('EXISTS', key, key .. ':dependents') ~= 1 then return {'dependents'} end
    suspended = call('EXISTS', 'rq:suspended') == 1
  end
  if call('DEL', execution_key) == 0 then return {'fenced'} end
  local score = write(9, id, key)
  if not score then
    open(id, execution, 60)
    return {'dependents'}
  end
  call('ZADD', 'rq:finished:' .. queue, score, id)
  call('ZREM', 'rq:wip:' .. queue, ended)
  call('ZREM', 'rq:executions:' .. id, execution)
  close(id, execution)
end
"""
)

#: storing what there is, and a worker's hash while it runs a job: the beginning of scripts that
#: claim to run at once. Of functions there are only those that are called: making one takes time.
AT_ONCE = (
    HEAD
    + """
local id, execution, queue = ARGV[9], ARGV[10], ARGV[11]
local count, seconds = ARGV[7], ARGV[8]
if id == '' then suspended = call('EXISTS', 'rq:suspended') == 1
else
  local ended = id .. ':' .. execution
"""
    + STORE
    + """
  local answer = store()
  if answer then return answer end
end
local skipped = {}
"""
)

#: a worker's hash while it runs a job
BUSY = (
    """
local claim = ARGV[19]
local function busy(next)
  if id == '' then
    call('HSET', worker_key, 'state', 'busy', PRESENT 'last_heartbeat', stamp)
  else
    call('HSET', worker_key, 'state', 'busy', PRESENT 'last_heartbeat', stamp,
      'successful_job_count', count, 'total_working_time', seconds)
  end
end

"""
).replace("PRESENT", PRESENT)

#: what a claim writes, for scripts that say how the worker is `busy` with it
REGISTER = (
    """
-- Whether the id of a job that depends on others is in its queue once more than it may run. RQ puts
-- it there twice if two of those others fail at the same time.
local function surplus(next, status, origin)
  local over = {finished = 1, failed = 1, stopped = 1, canceled = 1, scheduled = 1}
  if over[status] then return true end
  local open = pcall_('ZRANGE', 'rq:executions:' .. next, 0, -1)
  for _, one in ipairs(open) do
    local held = pcall_('ZSCORE', 'rq:wip:' .. origin, next .. ':' .. one)
    if type(held) == 'string' and call('EXISTS', 'rq:execution:' .. next .. ':' .. one) == 1 then
      call('HSET', 'rq:job:' .. next, 'status', 'started')
      return true
    end
  end
  return false
end
-- Register job `next`, taken off `name`, as started; return its lease, or false: it is not to be
-- run, or a key of its is of the wrong type.
local function register(name, next, raw)
  local timeout, lease, origin, status, depends = nil, 420, '', '', false
  for j = 1, #raw, 2 do
    if raw[j] == 'timeout' then timeout = tonumber(raw[j + 1])
    elseif raw[j] == 'origin' then origin = raw[j + 1]
    elseif raw[j] == 'status' then status = raw[j + 1]
    elseif raw[j] == 'dependency_ids' then depends = true end
  end
  if depends and surplus(next, status, origin) then
    skipped[#skipped + 1] = {'surplus', name, next}
    return false
  end
  if timeout ~= -1 then
    -- NaN, too, is not within the limits
    if timeout and timeout > 0 and timeout < MOST_SECONDS then lease = timeout end
    if cap > 0 and lease > cap and #next <= MOST_ID then lease = cap end
    lease = math.floor(lease) + 60
  end
  local executions_key, entry = 'rq:executions:' .. next, next .. ':' .. claim
  local kept = pcall_('ZADD', 'rq:wip:' .. origin, whole + lease, entry)
  if type(kept) == 'number' then
    kept = pcall_('ZADD', executions_key, whole + lease + 60, claim)
  end
  if type(kept) == 'table' then
    pcall_('ZREM', 'rq:wip:' .. origin, entry)
    skipped[#skipped + 1] = {'unreadable', name, next, kept['err']}
    return false
  end
  open(next, claim, lease)
  call('EXPIRE', executions_key, lease + 60)
  busy(next)
  if refresh or lease > idle_ttl - ROOM then
    call('EXPIRE', worker_key, math.max(lease, idle_ttl))
  end
  call('HSET', 'rq:job:' .. next, 'last_heartbeat', stamp, 'status', 'started',
    'started_at', stamp, 'worker_name', worker)
  call('PERSIST', 'rq:job:' .. next)
  return lease
end
""".replace("ROOM", str(ROOM))
    .replace("MOST_ID", str(MAX_JOB_ID))
    .replace("MOST_SECONDS", str(MOST_SECONDS))
)

#: claiming from the queues named from argument `first` on, for scripts that say how to `rest`
CLAIM = """
local function take(first)
  if #ARGV >= first and suspended then return rest('suspended') end
  for i = first, #ARGV do
    local name = ARGV[i]
    local queue_key = 'rq:queue:' .. name
    while #skipped < MOST_SKIPPED do
      local next = pcall_('LPOP', queue_key)
      if not next then break end
      if type(next) == 'table' then skipped[#skipped + 1] = {'queue', name, next['err']} break end
      local raw = pcall_('HGETALL', 'rq:job:' .. next)
      if raw['err'] then skipped[#skipped + 1] = {'unreadable', name, next, raw['err']}
      elseif #raw == 0 then skipped[#skipped + 1] = {'vanished', name, next}
      elseif register(name, next, raw) then
        return {'job', name, next, skipped, raw}
      end
    end
  end
  return nil
end
""".replace("MOST_SKIPPED", str(MOST_SKIPPED))

SCRIPT = (
    AT_ONCE
    + """
local function rest(answer)
  if id ~= '' then
    call('HSET', worker_key, 'state', 'idle', 'last_heartbeat', stamp,
      'successful_job_count', count, 'total_working_time', seconds)
  elseif execution ~= '' then
    call('HSET', worker_key, 'state', 'idle', 'last_heartbeat', stamp)
  end
  if id ~= '' or execution ~= '' then
    ABSENT
    call('EXPIRE', worker_key, idle_ttl)
  end
  if #skipped == 0 then return {answer} end
  return {answer, '', '', skipped}
end

-- A job that came alone is probably followed by none.
if id ~= '' and not suspended then
  local waits = false
  for i = 20, #ARGV do waits = waits or call('EXISTS', 'rq:queue:' .. ARGV[i]) == 1 end
  if not waits then return rest('empty') end
end
""".replace("ABSENT", ABSENT)
    + BUSY
    + REGISTER
    + CLAIM
    + """
local found = take(20)
if found then return found end
-- Only reading commands are tracked: who asked to be told hears of the next push.
for i = 20, #ARGV do pcall_('LLEN', 'rq:queue:' .. ARGV[i]) end
return rest('empty')
"""
)


class Answer(Enum):
    """Whether a job was claimed, and if not, why."""

    JOB = b"job"  #: a job is claimed, and the outcome stored
    EMPTY = b"empty"  #: the outcome is stored; nothing waits
    SUSPENDED = b"suspended"  #: the outcome is stored; RQ is suspended
    FENCED = b"fenced"  #: nothing was done: the execution is no longer this worker's
    #: nothing was done: others depend on the job, or a key of its is not as it was; RQ has to
    DEPENDENTS = b"dependents"


_ANSWERS = {answer.value: answer for answer in Answer}


class Finish(NamedTuple):
    """The outcome of a job that returned, ready to be stored, as the script takes it."""

    job_id: str
    execution_id: str
    queue: str
    #: seconds the result is kept; -1: for ever
    ttl: int
    started_at: str
    ended_at: str
    #: the serialised result in base64; empty for None
    value: bytes
    #: the same two moments in seconds since the epoch, as RQ writes them in a result
    execution_started_at: str
    execution_ended_at: str
    #: "1" where the job depends on others
    depends: str


#: no outcome to store; and the same from a worker that Redis still has as busy
NOTHING = ("",) * 10
UNREST = ("", "idle", *NOTHING[2:])


class Turn(NamedTuple):
    """The script's reply: the job that was claimed, or why none was."""

    answer: Answer
    queue: str = ""
    job_id: bytes = b""
    #: what was passed over: ("queue", name, error), ("unreadable", name, id, error),
    #: ("vanished", name, id), ("surplus", name, id)
    skipped: Sequence[Sequence[bytes]] = ()
    raw: Sequence[bytes] = ()
    #: the execution it was claimed by, where that is another than the claims' last
    execution: str = ""
    #: whether it is one of a batch: plain, and without a record of its execution in Redis
    light: bool = False

    @property
    def entry(self) -> str:
        """Its entry in the started registry: "job:execution"."""
        return f"{self.job_id.decode()}:{self.execution}"

    @property
    def moved(self) -> bool:
        """Whether anything was taken off a queue."""
        return bool(self.job_id) or any(kind != b"queue" for kind, *_ in self.skipped)

    def hash(self) -> dict[bytes, bytes]:
        """Return the claimed job's hash as Redis has it."""
        words = iter(self.raw)
        return dict(zip(words, words, strict=True))


def read(reply: Sequence[Any]) -> Turn:
    """Return the script's reply as a Turn."""
    answer = _ANSWERS[reply[0]]
    if len(reply) == 1:
        return Turn(answer)
    raw = reply[4] if len(reply) > 4 else ()
    return Turn(answer, reply[1].decode(errors="replace"), reply[2], reply[3], raw)
