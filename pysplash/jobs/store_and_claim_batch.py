"""The script by which a worker stores several outcomes and claims several jobs in one step.

What is claimed in a batch is registered as started at once, all of it by one entry each in the
started registry. A record of its execution, as RQ keeps one, a job gets only when it is known to
take longer, or when its outcome is RQ's to store: so who has a record has begun, and who has none
may be put back by whoever knows that it has not. The worker's hash names what it has in hand.

The same script puts back what is not begun after all, and gives the job that runs its record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .rq import ABSENT, PRESENT
from .store_and_claim import (
    CLAIM,
    HEAD,
    MAX_JOB_ID,
    MOST_SECONDS,
    REGISTER,
    WRITE,
    Answer,
    Finish,
    Turn,
)

#: jobs in a batch at most, and of how many that wait it takes one, as the others are for others
MOST, SHARE = 16, 4
#: fields of a worker's hash: the jobs it has in hand, "job:execution" with a space between two, and
#: the turn in which it said so
HAND, BASE = "pysplash_hand", "pysplash_turn"

SCRIPT = (
    (
        HEAD
        + WRITE
        + """
local skipped = {}
local base, present, wanted = ARGV[7], ARGV[8], tonumber(ARGV[10])
local number, light, returned = tonumber(ARGV[12]), ARGV[13], tonumber(ARGV[14])
local share, outcomes = tonumber(ARGV[16]), 17
local entries = outcomes + 10 * number
local queues = entries + returned
local codes, stored, seconds, finished = {}, 0, ARGV[15], {}
local count, claim, id = 0, base .. '00', ''

local function halves(entry) return string.match(entry, '^(.*):([^:]*)$') end
-- Give a job of a batch the record of its execution that RQ keeps.
local function record(job, execution, origin, lease)
  local entry = job .. ':' .. execution
  pcall_('ZADD', 'rq:wip:' .. origin, whole + lease, entry)
  pcall_('ZADD', 'rq:executions:' .. job, whole + lease + 60, execution)
  call('EXPIRE', 'rq:executions:' .. job, lease + 60)
  open(job, execution, lease)
end

-- What there is to know of all of them, in one look: whether any is depended on.
local looked = {'rq:suspended'}
for i = 1, number do looked[i + 1] = 'rq:job:' .. ARGV[outcomes + 10 * i - 10] .. ':dependents' end
local there = call('EXISTS', unpack(looked))
if there > 0 then
  suspended = call('EXISTS', 'rq:suspended') == 1
  if suspended then there = there - 1 end
end

-- Store one outcome; return 's', 'f' where it is not this worker's any more, 'r' if RQ has to.
local function store(at, kind)
  local job, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local key, entry = 'rq:job:' .. job, job .. ':' .. execution
  local wanted_by = kind ~= '2' and there > 0 and call('EXISTS', key .. ':dependents') == 1
  if kind == '1' then
    local status = call('HGET', key, 'status')
    if status ~= 'started' or wanted_by then
      if call('ZREM', 'rq:wip:' .. queue, entry) == 0 or status ~= 'started' then return 'f' end
      record(job, execution, queue, 60)
      return 'r'
    end
    if call('ZREM', 'rq:wip:' .. queue, entry) == 0 then return 'f' end
  else
    if wanted_by or call('EXISTS', key) == 0 then return 'r' end
    if call('DEL', 'rq:execution:' .. entry) == 0 then return 'f' end
    call('ZREM', 'rq:wip:' .. queue, entry)
    call('ZREM', 'rq:executions:' .. job, execution)
    close(job, execution)
  end
  local score = write(at, job, key)
  if not score then return 'f' end
  local list = finished[queue] or {}
  finished[queue] = list
  list[#list + 1], list[#list + 2] = score, job
  return 's'
end

for i = 1, number do
  local at = outcomes + 10 * i - 10
  local fine, code = pcall(store, at, string.sub(light, i, i))
  if not fine then
    local why = type(code) == 'table' and code.err or code
    if not string.find(why, 'WRONGTYPE') then return {err = why} end
    -- A key is no such key: stored in part, and RQ's to store.
    record(ARGV[at], ARGV[at + 1], ARGV[at + 2], 60)
    code = 'r'
  end
  if code == 's' then stored = stored + 1 end
  codes[i] = code
end
for queue, list in pairs(finished) do
  if type(pcall_('ZADD', 'rq:finished:' .. queue, unpack(list))) == 'table' then
    for i = 1, number do
      local at = outcomes + 10 * i - 10
      if ARGV[at + 2] == queue and codes[i] == 's' then
        record(ARGV[at], ARGV[at + 1], queue, 60)
        codes[i], stored = 'r', stored - 1
      end
    end
  end
end

-- Put back what is not begun, the last first.
for i = queues - 1, entries, -1 do
  local job = halves(ARGV[i])
  local key = 'rq:job:' .. job
  local known = pcall_('HMGET', key, 'status', 'origin')
  if known[1] == 'started' and call('EXISTS', 'rq:execution:' .. ARGV[i]) == 0
    and call('ZREM', 'rq:wip:' .. known[2], ARGV[i]) == 1 then
    call('HSET', key, 'status', 'queued', 'started_at', '', 'last_heartbeat', '',
      'worker_name', '')
    call('LPUSH', 'rq:queue:' .. known[2], job)
  end
end

if ARGV[9] == '1' then
  local job, execution = halves(present)
  local known = pcall_('HMGET', 'rq:job:' .. job, 'status', 'origin')
  local ends = known[1] == 'started' and call('ZSCORE', 'rq:wip:' .. known[2], present)
  if ends then
    record(job, execution, known[2], math.max(60, math.floor(tonumber(ends)) - whole))
  end
end

local function busy(next)
  call('HSET', worker_key, 'state', 'busy', PRESENT 'last_heartbeat', stamp,
    'HAND', ARGV[11], 'BASE', base)
end
local answered = nil
local function rest(answer)
  answered = answer
  if present ~= '' then return busy((halves(present))) end
  call('HSET', worker_key, 'state', 'idle', 'last_heartbeat', stamp, 'HAND', '', 'BASE', base)
  ABSENT
  call('EXPIRE', worker_key, idle_ttl)
end
"""
        + REGISTER
        + CLAIM
        + """
-- What RQ writes for every queued job: 1 must be there, 2 may be there, 3 must be empty.
local FIELDS = {status = 1, created_at = 1, data = 1, origin = 1, enqueued_at = 1, timeout = 1,
  description = 2, result_ttl = 2, failure_ttl = 2, started_at = 3, ended_at = 3,
  last_heartbeat = 3, worker_name = 3, group_id = 3, success_callback_name = 3,
  failure_callback_name = 3, stopped_callback_name = 3}
-- Return the lease of a job that may be one of a batch; nil for one with anything special.
local function plain(name, job, raw)
  if #job > MOST_ID or string.find(job, '[^%w_%-]') then return nil end
  local needed, timeout = 0, nil
  for j = 1, #raw, 2 do
    local field, value = raw[j], raw[j + 1]
    local kind = FIELDS[field]
    if kind == 1 then
      if value == '' then return nil end
      if field == 'status' and value ~= 'queued' or field == 'origin' and value ~= name then
        return nil
      end
      if field == 'timeout' then timeout = tonumber(value) end
      needed = needed + 1
    elseif not kind or kind == 3 and value ~= '' then return nil end
  end
  if needed < 6 or not timeout or not (timeout > 0 and timeout < MOST_SECONDS) then return nil end
  if cap > 0 and timeout > cap then timeout = cap end
  return math.floor(timeout) + 60
end

local jobs, hand, from = {}, {}, ''
-- Claim from one queue; return whether something else there is first.
local function batch(name)
  local queue_key, scores, lease = 'rq:queue:' .. name, {}, 0
  local waiting = pcall_('LLEN', queue_key)
  if type(waiting) == 'table' then return true end
  if waiting == 0 then return false end
  local part = math.min(wanted, math.max(1, math.floor(waiting / share)))
  local names = call('LPOP', queue_key, part)
  local left = #names + 1
  for i, next in ipairs(names) do
    local raw = pcall_('HGETALL', 'rq:job:' .. next)
    local seconds_ = not raw['err'] and plain(name, next, raw)
    if not seconds_ then left = i break end
    local entry = string.format('%s:%s%02x', next, base, i)
    jobs[2 * i - 1], jobs[2 * i] = next, raw
    scores[2 * i - 1], scores[2 * i] = whole + seconds_, entry
    hand[i], lease = entry, math.max(lease, seconds_)
  end
  if left > 1 and type(pcall_('ZADD', 'rq:wip:' .. name, unpack(scores))) == 'table' then
    jobs, hand, left = {}, {}, 1
  end
  for i = #names, left, -1 do call('LPUSH', queue_key, names[i]) end
  if left == 1 then return true end
  from = name
  for i = 1, left - 1 do
    call('HSET', 'rq:job:' .. names[i], 'last_heartbeat', stamp, 'status', 'started',
      'started_at', stamp, 'worker_name', worker)
  end
  if refresh or lease > idle_ttl - 60 then
    call('EXPIRE', worker_key, math.max(lease, idle_ttl))
  end
end

-- What is not for a batch is claimed by itself, by a worker that has nothing in hand.
local single = false
if wanted > 0 and not suspended then
  for i = queues, #ARGV do
    local other = batch(ARGV[i])
    if other and present == '' then single = take(queues) end
    if other or #hand > 0 then break end
  end
end
if #hand > 0 then
  busy(present ~= '' and halves(present) or jobs[1])
  local held = table.concat(hand, ' ')
  call('HSET', worker_key, 'HAND', ARGV[11] == '' and held or ARGV[11] .. ' ' .. held)
  answered = 'job'
elseif single then
  -- RQ forgets what a worker runs when it stores an outcome of the job before.
  if not string.find(single[3], '[^%w_%-]') then
    call('HSET', worker_key, 'HAND', single[3] .. ':' .. claim)
  end
  from, jobs, answered = single[2], {single[3], single[5]}, 'job'
elseif not answered then rest(suspended and wanted > 0 and 'suspended' or 'empty')
end
if stored > 0 then
  count = call('HINCRBY', worker_key, 'successful_job_count', stored)
  seconds = call('HINCRBYFLOAT', worker_key, 'total_working_time', seconds)
end
return {answered, table.concat(codes), single and 1 or 0, from, skipped, jobs,
  count, seconds}
""".replace("MOST_ID", str(MAX_JOB_ID)).replace("MOST_SECONDS", str(MOST_SECONDS))
    )
    .replace("'HAND'", f"'{HAND}'")
    .replace("'BASE'", f"'{BASE}'")
    .replace("PRESENT", PRESENT)
    .replace("ABSENT", ABSENT)
)

_CODES = {"s": Answer.EMPTY, "f": Answer.FENCED, "r": Answer.DEPENDENTS}


class BatchRequest(NamedTuple):
    """What to store, to put back and to claim."""

    #: the outcomes to store; a mark for each: 0 for one with a record of its execution, 1 for one
    #: without, 2 for one that is to be stored although others wait for it; their seconds together
    done: Sequence[Finish] = ()
    light: str = ""
    seconds: float = 0.0
    #: what is not begun and to be put back, in the order it was claimed in
    back: Sequence[str] = ()
    #: what runs meanwhile, empty for nothing; whether it is to have its record
    present: str = ""
    record: bool = False
    #: what is in hand, and runs, beside what will be claimed
    held: str = ""
    #: how many jobs to claim at most, and from where
    wanted: int = 0
    share: int = SHARE
    queues: Sequence[str] = ()


class Reply(NamedTuple):
    """What was stored and claimed."""

    answer: Answer
    #: what became of each outcome: EMPTY for one that is stored
    outcomes: Sequence[Answer] = ()
    jobs: Sequence[Turn] = ()
    skipped: Sequence[Sequence[bytes]] = ()
    #: the worker's counters; None where nothing was stored
    counters: tuple[int, float] | None = None


def words(request: BatchRequest, base: str) -> Iterator[Any]:
    """Yield the script's own arguments, which follow those that all claim scripts take."""
    yield base
    yield request.present
    yield "1" if request.record else ""
    yield request.wanted
    yield request.held
    yield len(request.done)
    yield request.light
    yield len(request.back)
    yield request.seconds
    yield request.share
    for done in request.done:
        yield from done
    yield from request.back
    yield from request.queues


def read(reply: Sequence[Any], base: str) -> Reply:
    """Return the script's reply to a turn of that *base*."""
    answer, codes, single, queue, skipped, found, count, seconds = reply
    name = queue.decode(errors="replace")
    pairs = zip(found[::2], found[1::2], strict=True)
    jobs = [
        Turn(Answer.JOB, name, job_id, (), raw, f"{base}{0 if single else place:02x}", not single)
        for place, (job_id, raw) in enumerate(pairs, start=1)
    ]
    return Reply(
        Answer(answer),
        [_CODES[code] for code in codes.decode()],
        jobs,
        skipped,
        (count, float(seconds)) if count else None,
    )
