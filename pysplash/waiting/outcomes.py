"""How jobs ended: a script that reads many jobs at once, and the outcome of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq.job import Job, JobStatus
from rq.results import Result

from pysplash.errors import JobFailed
from pysplash.jobs.results import (
    ENDED,
    VANISHED,
    ResultEntry,
    as_entry,
    job_key,
    results_key,
)

#: what RQ calls the worker of a job that a synchronous queue runs
SYNC = "sync"
_FAILURES = frozenset((Result.Type.FAILED, Result.Type.STOPPED))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How *job* ended: its last status, and the newest entry of its result stream."""

    job: Job
    status: str
    entry: ResultEntry | None = None

    @property
    def ok(self) -> bool:
        """Whether the job finished."""
        return self.status == JobStatus.FINISHED

    def value(self) -> Any:
        """Return what the job returned; None where that is not kept."""
        result = self._restored()
        return result.return_value if result and result.type is Result.Type.SUCCESSFUL else None

    def failure(self) -> JobFailed:
        """Return the error for a job that did not finish, with the remote traceback if any."""
        result = self._restored()
        known = result is not None and result.type in _FAILURES
        return JobFailed(self.job, self.status, (result.exc_string or "") if known else "")

    def _restored(self) -> Any:
        if self.entry is None:
            return None
        number, fields = self.entry
        job = self.job
        return Result.restore(job.id, number.decode(), dict(fields), job.connection, job.serializer)


def classify(job: Job, status: bytes | None, entry: ResultEntry | None) -> Outcome | None:
    """Return how *job* ended; None if it is still to end.

    *status* and *entry* must be read in one step. The status alone decides: an entry may be that
    of an earlier run, of a job since put back in its queue or retried. A job that is gone although
    nothing but its success removes it (``result_ttl=0``) finished. Of one that a synchronous queue
    has run the entry decides: RQ's ``enqueue_many`` then writes over its status that it is queued.
    """
    if status is None:
        if job.result_ttl == 0:
            return Outcome(job, JobStatus.FINISHED.value)
        return Outcome(job, VANISHED)
    text = status.decode()
    if text == JobStatus.QUEUED and entry is not None and _was_run_here(job):
        succeeded = int(entry[1][b"type"]) == Result.Type.SUCCESSFUL.value
        text = (JobStatus.FINISHED if succeeded else JobStatus.FAILED).value
    return Outcome(job, text, entry) if text in ENDED else None


def _was_run_here(job: Job) -> bool:
    """Return whether *job* was run by whoever enqueued it, and not enqueued again since."""
    if job.worker_name != SYNC or job.started_at is None or job.enqueued_at is None:
        return False
    return bool(job.started_at >= job.enqueued_at)


def collect(outcomes: Iterable[Outcome], on_failure: str) -> list[Any]:
    """Return the results in the order of *outcomes*.

    For a job that did not finish: None if *on_failure* is ``"none"``, else its JobFailed.
    """

    def result(outcome: Outcome) -> Any:
        if outcome.ok:
            return outcome.value()
        return None if on_failure == "none" else outcome.failure()

    return [result(outcome) for outcome in outcomes]


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
    """Run the script for *ids* on *client*, or add it to that pipeline; return its reply.

    With *results* it is told what finished jobs returned.
    """
    return client.eval(SCRIPT, 0, int(results), *ids)


def without_script(client: Redis, ids: Sequence[str]) -> Any:
    """Read what the script reads, on a server that runs none: in a transaction, so in one step."""
    with client.pipeline(transaction=True) as pipeline:
        for name in ids:
            pipeline.hget(job_key(name), "status")
            pipeline.xrevrange(results_key(name), count=1)
        found = pipeline.execute()
    newest: list[Any] = []
    for index, entries in enumerate(found[1::2]):
        for number, fields in entries:
            newest += (index, (number, [word for pair in fields.items() for word in pair]))
    return found[::2], newest


def seen(reply: Any) -> Iterator[tuple[bytes | None, ResultEntry | None]]:
    """Yield from the script's reply each id's status and newest result entry.

    None for the status of a job that is gone, and for an entry that was not asked for.
    """
    statuses, newest = reply
    entries = dict(zip(newest[::2], newest[1::2], strict=True))
    for index, status in enumerate(statuses):
        entry = entries.get(index)
        yield status, None if entry is None else as_entry(*entry)
