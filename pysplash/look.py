"""A look at many jobs at once: one short script that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .outcome import Entry

#: jobs one look takes at most; it holds the server up for about 2 ms
MOST = 1000

#: what is read of one job is read in one step, so the entry is the one the status speaks of
SCRIPT = """
local statuses, newest = {}, {}
for i = 2, #ARGV do
  local status = redis.call('HGET', 'rq:job:' .. ARGV[i], 'status')
  statuses[i - 1] = status
  if status ~= 'finished' or ARGV[1] == '1' then
    local entry = redis.call('XREVRANGE', 'rq:results:' .. ARGV[i], '+', '-', 'COUNT', 1)[1]
    if entry then
      newest[#newest + 1] = i - 2
      newest[#newest + 1] = entry
    end
  end
end
return {statuses, newest}
"""


def at(client: Any, ids: Sequence[str], results: bool) -> Any:
    """Send one look at *ids* by *client*, or put it into that pipeline; return its reply.

    With *results* it is told what finished jobs returned.
    """
    return client.eval(SCRIPT, 0, int(results), *ids)


def seen(reply: Any) -> Iterator[tuple[bytes | None, Entry | None]]:
    """Yield from a look's reply, for each id, the status and the newest entry of its results.

    None for the status of a job that is gone, and for an entry that was not asked for.
    """
    statuses, newest = reply
    entries = dict(zip(newest[::2], newest[1::2], strict=True))
    for index, status in enumerate(statuses):
        entry = entries.get(index)
        if entry is None:
            yield status, None
        else:
            number, fields = entry
            yield status, (number, dict(zip(fields[::2], fields[1::2], strict=True)))
