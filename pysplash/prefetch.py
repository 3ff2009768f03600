"""Prefetch: the turn of a worker that gets its next job while a short one runs.

In one step on the server, as in :mod:`pysplash.turn`: the job that begins is marked as started,
the outcome of the one before it is stored, and the one to follow it is taken off its queue. That
one is registered under an execution of this worker as any other, but it stays queued, for nobody
has begun it; the worker's hash names all three.
"""

from __future__ import annotations

from .turn import CLAIM, LAST, NEXT, NOW, REGISTER, STORE

SCRIPT = (
    STORE
    + """
local job = ARGV[20]
local present_key = 'rq:job:' .. job
if call('HSET', present_key, 'last_heartbeat', stamp, 'status', 'started',
    'started_at', stamp, 'worker_name', worker) == 4 and call('HLEN', present_key) == 4 then
  call('DEL', present_key)
end
-- Say what the worker has in hand: `held`, or nothing, is to follow; `counted` is what has ended.
local function hold(held, counted)
  if counted then
    call('HSET', worker_key, 'state', 'busy', 'current_job', job, 'current_job_working_time', 0,
      'last_heartbeat', stamp, 'NEXT', held, 'NOW', job .. ':' .. ARGV[21], 'LAST', ended,
      'successful_job_count', count, 'total_working_time', seconds)
  else
    call('HSET', worker_key, 'state', 'busy', 'current_job', job, 'current_job_working_time', 0,
      'last_heartbeat', stamp, 'NEXT', held, 'NOW', job .. ':' .. ARGV[21], 'LAST', ended)
  end
end
if id == '' then suspended = call('EXISTS', 'rq:suspended') == 1
else
  -- An outcome that cannot be stored, as a key is no such key, does not hide what has begun.
  local stored, answer = pcall(store)
  if not stored or answer then hold('', false) end
  if not stored then return {err = type(answer) == 'table' and answer.err or answer} end
  if answer then return answer end
end
local function busy(next, entry) hold(entry, id ~= '') end
""".replace("NEXT", NEXT)
    .replace("NOW", NOW)
    .replace("LAST", LAST)
    + REGISTER
    + """
present = job
local function rest(answer)
  hold('', id ~= '')
  return {answer, '', '', skipped}
end

"""
    + CLAIM
    + """
return take(22) or rest('empty')
"""
)

#: put back a job that is not begun: worker, queue, origin, job, execution
GIVE_BACK = """
local call = redis.call
local worker, name, origin, id, execution = unpack(ARGV)
call('HSET', 'rq:worker:' .. worker, 'NEXT', '')
if call('DEL', 'rq:execution:' .. id .. ':' .. execution) == 0 then return 0 end
call('ZREM', 'rq:wip:' .. origin, id .. ':' .. execution)
call('ZREM', 'rq:executions:' .. id, execution)
local status = call('HGET', 'rq:job:' .. id, 'status')
if status ~= 'queued' and status ~= 'started' then return 0 end
call('HSET', 'rq:job:' .. id, 'status', 'queued')
call('LPUSH', 'rq:queue:' .. name, id)
return 1
""".replace("NEXT", NEXT)
