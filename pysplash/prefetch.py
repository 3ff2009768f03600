"""Prefetch: the turn of a worker that gets its next job while a short one runs.

In one step on the server, as in :mod:`pysplash.turn`: the job that begins is marked as started,
the outcome of the one before it is stored, and the one to follow it is taken off its queue. That
one is registered under an execution of this worker as any other, but it stays queued, for nobody
has begun it; the worker's hash names all three.
"""

from __future__ import annotations

from .turn import CLAIM, LAST, NEXT, NOW, REGISTER, STORE

SCRIPT = (
    """
local started = 'rq:job:' .. ARGV[20]
if redis.call('HSET', started, 'last_heartbeat', ARGV[3], 'status', 'started',
    'started_at', ARGV[3], 'worker_name', ARGV[1]) == 4
    and redis.call('HLEN', started) == 4 then
  redis.call('DEL', started)
end
redis.call('HSET', 'rq:worker:' .. ARGV[1], 'state', 'busy', 'current_job', ARGV[20],
  'NEXT', '', 'NOW', ARGV[20] .. ':' .. ARGV[21], 'LAST', ARGV[9] .. ':' .. ARGV[10])
""".replace("NEXT", NEXT)
    .replace("NOW", NOW)
    .replace("LAST", LAST)
    + STORE
    + REGISTER
    + """
present = ARGV[20]
local function rest(answer)
  if id ~= '' then
    call('HSET', worker_key, 'successful_job_count', count, 'total_working_time', seconds)
  end
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
