"""The script by which a job that waits has its worker claim one of the jobs it waits for, by id.

As in :mod:`pysplash.jobs.store_and_claim` all is done in one step: the outcome of the last nested
job is stored, and of the named candidates the first that is queued is taken off its queue and
registered as started. For candidates that are not queued the script returns the jobs they wait for
in turn: a running job may wait for others, a deferred one depends on others, one held back by a
rate limit waits for those that are not. With each claim the worker's stack of jobs is stored, so
that they are known if it dies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .rq import PRESENT
from .store_and_claim import AT_ONCE, BUSY, REGISTER, Answer, Turn

#: the jobs a worker holds, outermost first, as "job:execution"; only while it holds several
STACK_KEY = "pysplash:stack:{}"
#: seconds a stack outlives its last change: longer than any job it tells of
STACK_TTL = 7 * 86400
#: entries at either end of a queue among which a job is looked for before the whole is searched
NEAR = 1000

SCRIPT = (
    AT_ONCE
    + BUSY
    + REGISTER
    + """
local keeper, depth, root, stack = ARGV[20], tonumber(ARGV[21]), ARGV[22], ARGV[23]
local waits = 'pysplash:waits:' .. keeper
local first = 25 + tonumber(ARGV[24])
local served, beneath, running, stuck, seen = {}, {}, {}, {}, 0
for i = 25, first - 1 do served[ARGV[i]] = true end

if depth > 1 then call('LTRIM', stack, 0, depth - 1) else call('DEL', stack) end

local function rest(answer)
  if id ~= '' then
    call('HSET', worker_key, 'successful_job_count', count, 'total_working_time', seconds)
  end
  local next = keeper
  call('HSET', worker_key, 'state', 'busy', PRESENT 'last_heartbeat', stamp)
  return {answer, '', '', skipped, {}, seen, beneath, running, stuck}
end

local function take(queue_key, next)
  if call('LPOS', queue_key, next, 'MAXLEN', NEAR) then
    return call('LREM', queue_key, 1, next) == 1
  elseif call('LPOS', queue_key, next, 'RANK', -1, 'MAXLEN', NEAR) then
    return call('LREM', queue_key, -1, next) == 1
  end
  return call('LREM', queue_key, 1, next) == 1
end

if #ARGV >= first and suspended then return rest('suspended') end
for i = first, #ARGV do
  local next = ARGV[i]
  local key = 'rq:job:' .. next
  local known = pcall_('HMGET', key, 'status', 'origin')
  local status, name = known[1], known[2]
  seen = seen + 1
  if status == 'queued' and not served[name] then
    if #stuck < 20 then stuck[#stuck + 1] = next stuck[#stuck + 1] = name or '' end
  elseif status == 'queued' and take('rq:queue:' .. name, next) then
    local raw = call('HGETALL', key)
    local lease = register(name, next, raw)
    if lease then
      -- The keeper cannot go on before this job ends, nor renew what it has told.
      call('SADD', waits, next)
      call('EXPIRE', waits, lease)
      if depth == 1 then call('RPUSH', stack, root) end
      call('RPUSH', stack, next .. ':' .. claim)
      call('EXPIRE', stack, STACK_TTL)
      return {'job', name, next, skipped, raw, seen, beneath, running, stuck}
    end
  elseif status == 'started' then
    local waits = call('SMEMBERS', 'pysplash:waits:' .. next)
    if #waits == 0 then running[#running + 1] = next end
    for _, other in ipairs(waits) do beneath[#beneath + 1] = other end
  elseif status == 'deferred' then
    for _, other in ipairs(call('SMEMBERS', 'rq:job::' .. next .. ':dependencies')) do
      beneath[#beneath + 1] = other
    end
  elseif status == 'rate_limited' then
    -- Since RQ 3: it waits for those that its limit has let through.
    local limit = call('HGET', key, 'rate_limit_key') or ''
    for _, other in ipairs(call('ZRANGE', 'rq:rl:' .. limit .. ':allowed', 0, NEAR)) do
      beneath[#beneath + 1] = other
    end
  end
end
return rest('empty')
""".replace("STACK_TTL", str(STACK_TTL))
    .replace("NEAR", str(NEAR))
    .replace("PRESENT", PRESENT)
)


@dataclass(frozen=True, slots=True)
class NamedTurn:
    """The script's reply: the claimed job, or where to search next."""

    turn: Turn
    #: how many of the candidates were looked at
    seen: int = 0
    beneath: Sequence[str] = ()
    running: Sequence[str] = ()
    #: (job, queue) of candidates queued where this worker does not serve
    stuck: Sequence[tuple[str, str]] = ()


def read(reply: Sequence[Any]) -> NamedTurn:
    """Return the script's reply as a NamedTurn."""
    if len(reply) == 1:
        return NamedTurn(Turn(Answer(reply[0])))
    answer, queue, job_id, skipped, raw, seen, beneath, running, stuck = reply
    turn = Turn(Answer(answer), queue.decode(errors="replace"), job_id, skipped, raw)
    beside = [[name.decode(errors="replace") for name in names] for names in (running, stuck)]
    return NamedTurn(
        turn,
        seen,
        [name.decode(errors="replace") for name in beneath],
        beside[0],
        list(zip(beside[1][::2], beside[1][1::2], strict=True)),
    )


def words(
    keeper: str, depth: int, root: str, worker: str, served: Sequence[str], names: Sequence[str]
) -> tuple[str | int, ...]:
    """Return the script's own arguments, beside those that all claim scripts take.

    *keeper* is the job that waits, *depth* how many the worker holds, *root* the outermost of them
    as "job:execution", *names* the candidates.
    """
    stack = STACK_KEY.format(worker)
    return (keeper, depth, root, stack, len(served), *served, *names)
