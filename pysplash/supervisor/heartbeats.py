"""Heartbeats and leases for all workers of a pool.

One script for all of them, instead of a timer and a connection in each. A worker that runs jobs
inside one another has them all renewed, as has one that holds a batch. The script renews only
what exists: it recreates no worker that has left and no job that has ended, and shortens no lease
its worker has set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis
from rq.utils import as_text

from pysplash.jobs.claim_named import STACK_KEY
from pysplash.jobs.restoring import stamp
from pysplash.jobs.rq import PROLONGED
from pysplash.jobs.store_and_claim_batch import HAND
from pysplash.waiting.deadlock import KEY as WAITS_KEY

#: seconds a job's lease runs from its last renewal
LEASE = 90
#: workers renewed in one call; it holds the server up for less than a millisecond
MOST = 50

SCRIPT = (
    """
local now, stamp, ttl, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local call, whole = redis.call, math.floor(tonumber(now))
local function prolong(key, seconds)
  local left = call('TTL', key)
  if left >= 0 and left < seconds then call('EXPIRE', key, seconds) end
end
local function renew(id, execution)
  local running = 'rq:execution:' .. id .. ':' .. execution
  local on_record = call('EXISTS', running) == 1
  if on_record then
    call('HSET', running, 'last_heartbeat', now)
    prolong(running, lease)
    call('ZADD', 'rq:executions:' .. id, 'XX', 'GT', whole + lease + 60, execution)
    prolong('rq:executions:' .. id, lease + 60)
    prolong('WAITS' .. id, lease)
  end
  local origin = call('HGET', 'rq:job:' .. id, 'origin')
  if not origin then return end
  local entry, started = id .. ':' .. execution, 'rq:wip:' .. origin
  if on_record or call('ZSCORE', started, entry) then
    call('HSET', 'rq:job:' .. id, 'last_heartbeat', stamp)
    call('ZADD', started, 'XX', 'GT', whole + lease, entry)
  end
end
for i = 5, #ARGV, 3 do
  local worker, id, execution = 'rq:worker:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if call('EXISTS', worker) == 1 and call('HEXISTS', worker, 'death') == 0 then
    call('HSET', worker, 'last_heartbeat', stamp)
    prolong(worker, ttl)
    PROLONGED
  end
  if execution ~= '' then
    renew(id, execution)
    for held in string.gmatch(call('HGET', worker, 'HAND') or '', '%S+') do
      if held ~= id .. ':' .. execution then renew(string.match(held, '^(.*):([^:]*)$')) end
    end
    for _, held in ipairs(call('LRANGE', 'STACK' .. ARGV[i], 1, -1)) do
      renew(string.match(held, '^(.*):([^:]*)$'))
    end
  end
end
""".replace("HAND", HAND)
    .replace("WAITS", WAITS_KEY.format(""))
    .replace("STACK", STACK_KEY.format(""))
    .replace("PROLONGED", PROLONGED)
)


class Pulse(NamedTuple):
    """One worker's heartbeat, with the job it runs, if any."""

    worker: str
    job_id: str = ""
    execution_id: str = ""


class Heartbeats:
    """Sends the workers' heartbeats; *ttl*: seconds a worker's key lives."""

    def __init__(self, client: Redis, ttl: int) -> None:
        self._client = client
        self._script = client.register_script(SCRIPT)
        self._ttl = ttl

    def send(self, pulses: Sequence[Pulse]) -> None:
        """Renew heartbeats and leases; raises redis's errors if Redis cannot be reached."""
        now = time.time()
        for start in range(0, len(pulses), MOST):
            words = [word for pulse in pulses[start : start + MOST] for word in pulse]
            self._script(args=[now, stamp(now), self._ttl, LEASE, *words])

    def runs_inside(self, worker: str, job_id: str, execution_id: str) -> bool:
        """Return whether *worker* runs a job inside another; of any execution if none is given."""
        held: Any = self._client.lrange(STACK_KEY.format(worker), 1, -1)
        found = [as_text(entry).rpartition(":")[::2] for entry in held]
        return any(job_id == job and execution_id in ("", execution) for job, execution in found)
