"""A pool of a fixed size in which one forest after the other grows, and what is seen of each."""

from __future__ import annotations

import itertools
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.results import Result
from rq.utils import as_text

from tests.acceptance.command import Command
from tests.acceptance.tree_jobs import FOREST, LOG, RUNS, Forest, Node, name_of, plant
from tests.acceptance.tree_oracle import Complaint, Judge, Run, Seen, count, lapsed
from tests.acceptance.trees import SERVED, UNSERVED
from tests.generation import at_work_on
from tests.waiting import wait_until

#: seconds until a forest must have come to rest, and to make sure that it stays as it is
END, REST = 40.0, 2.0
#: keys of which none may be left when nothing runs
OURS = ("pysplash:waits:*", "pysplash:stack:*", "pysplash:fan:*", "rq:execution:*", "rq:wip:*")
COUNTS = ("successful_job_count", "failed_job_count")


class Grove:
    """The pool, and the forests it has seen."""

    def __init__(self, folder: Path, redis: Redis, url: str, cap: int) -> None:
        self._folder, self._redis, self._url, self.cap = folder, redis, url, cap
        self._names = (f"f{number}" for number in itertools.count())
        self._start()

    def _start(self) -> None:
        self._redis.flushall()
        self._pids: set[int] = set()
        size = ("-n", str(self.cap), "--preload", "tests.acceptance.tree_jobs")
        self.pool = Command(self._folder, "-q", "-u", self._url, *size, *SERVED)
        self.pool.await_workers(self.cap)

    def end(self) -> list[str]:
        """End the pool; return what outlived it."""
        return self.pool.end()

    def grow(self, forest: Forest) -> list[str]:
        """Let a forest grow; return what is wrong with what became of it."""
        name = next(self._names)
        before = self._counted()
        self._redis.set(FOREST.format(name), pickle.dumps(forest))
        for index in reversed(range(len(forest))):
            if forest[index].owner is None:
                plant(self._redis, name, forest, index)
        wrong = self._await_end(name, forest, before)
        if wrong:
            # what is stuck here must not be in the way of the next one
            left = self.end()
            self._start()
            return wrong + left
        self._clear(name, forest)
        return []

    def _await_end(self, name: str, forest: Forest, before: int) -> list[str]:
        deadline, quiet_since = time.monotonic() + END, 0.0

        def ended() -> list[str]:
            nonlocal quiet_since
            now, quiet = time.monotonic(), self._quiet()
            quiet_since = (quiet_since or now) if quiet else 0.0
            wrong = self._verdict(name, forest, before) if quiet else []
            if quiet and (not wrong or now - quiet_since > REST):
                return [*wrong, "end"]
            if now > deadline:
                stuck = [f"has not come to rest within {END:g} s", *self._scene()]
                return [*stuck, *self._verdict(name, forest, before), "end"]
            return []

        return wait_until(ended, END + 20, "the verdict")[:-1]

    def _quiet(self) -> bool:
        """Return whether nothing waits and nothing runs."""
        with self._redis.pipeline(transaction=True) as pipe:
            for queue in SERVED:
                pipe.llen(f"rq:queue:{queue}")
                pipe.zcard(f"rq:wip:{queue}")
            return not any(pipe.execute())

    def _scene(self) -> Iterator[str]:
        """Yield who waits for whom, and what each worker holds and does."""
        for key in sorted(self._redis.keys("pysplash:waits:*")):
            yield f"{key!r}: {self._redis.smembers(key)}"
        for key in sorted(self._redis.keys("pysplash:stack:*")):
            yield f"{key!r}: {self._redis.lrange(key, 0, -1)}"
        for queue in SERVED:
            yield f"queue {queue}: {Queue(queue, connection=self._redis).job_ids}"
        for key in self._redis.smembers("rq:workers"):
            name = as_text(key).removeprefix("rq:worker:")
            yield f"{key!r}: {self._redis.hget(key, 'state')!r} {at_work_on(self._redis, name)}"
        yield self.pool.err

    def _verdict(self, name: str, forest: Forest, before: int) -> list[str]:
        try:
            runs = count(self._notes(name), len(forest))
        except Complaint as complaint:
            return [str(complaint)]
        ran = sum(_counting(node, node_runs) for node, node_runs in zip(forest, runs, strict=True))
        seen = [self._seen(name, index) for index in range(len(forest))]
        for index, node_runs in enumerate(runs):
            seen[index].runs = node_runs
        wrong = Judge(forest, seen).complaints()
        wrong += [f"{key!r} is left" for pattern in OURS for key in self._redis.keys(pattern)]
        if self._counted() - before < ran:
            wrong.append(f"the workers have counted fewer than {ran} runs")
        if len(self._pids) > self.cap or len(self.pool.workers()) > self.cap:
            wrong.append(f"more than {self.cap} workers: {self._pids}")
        return wrong

    def _notes(self, name: str) -> list[list[Any]]:
        lines: Any = self._redis.lrange(LOG.format(name), 0, -1)
        notes = []
        for line in lines:
            index, number, event, *what = json.loads(line)
            if event == "start":
                self._pids.add(what[0])
            notes.append([index, number, event, *what])
        return notes

    def _seen(self, name: str, index: int) -> Seen:
        job = Job(name_of(name, index), connection=self._redis)
        status: Any = self._redis.hget(job.key, "status")
        result = job.latest_result()
        if status is None or result is None:
            return Seen(status.decode() if status else None)
        kept = result.type is Result.Type.SUCCESSFUL
        return Seen(status.decode(), result.return_value if kept else None, result.exc_string or "")

    def _counted(self) -> int:
        """Return how many runs the workers have on their books."""
        total = 0
        for key in self._redis.smembers("rq:workers"):
            total += sum(int(number or 0) for number in self._redis.hmget(key, COUNTS))
        return total

    def _clear(self, name: str, forest: Forest) -> None:
        """Forget a forest, so that looking for what is left stays quick."""
        names = [name_of(name, index) for index in range(len(forest))]
        keys = [FOREST.format(name), LOG.format(name)]
        for each in names:
            keys += [f"rq:job:{each}", f"rq:results:{each}", RUNS.format(each)]
            keys += [f"rq:job:{each}:dependents", f"rq:job::{each}:dependencies"]
        for queue in (*SERVED, UNSERVED):
            keys += [f"rq:{registry}:{queue}" for registry in ("finished", "failed", "deferred")]
        self._redis.delete(Queue.redis_queue_namespace_prefix + UNSERVED, *keys)


def _counting(node: Node, runs: list[Run]) -> int:
    """Return how many runs of a node, and for it, the workers must have counted at least."""
    late = sum(lapsed(node, number) for number in range(1, len(runs) + 1))
    return sum(1 + len(run.leaves) for run in runs) - late
