"""Enqueuing a dependent job once, even where two jobs it depends on fail at the same time.

RQ stores a failure first and enqueues what depends on the job afterwards. Of two jobs that fail
at the same time each then sees that the other has ended, and each enqueues what depends on both.
"""

from __future__ import annotations

import copy
from typing import Any

from redis.client import Pipeline
from rq.job import Job, JobStatus
from rq.queue import Queue


class Dependent(Job):
    """A dependent job that is released only while it is still deferred."""

    def dependencies_are_met(
        self,
        parent_job: Job | None = None,
        pipeline: Pipeline | None = None,
        *arguments: Any,
        **options: Any,
    ) -> bool:
        """Return RQ's answer; False for a job that somebody else has released.

        Watches the job, so that who enqueues it next to nobody else fails and looks again.
        """
        if pipeline is not None:
            pipeline.watch(self.key)
            status: Any = pipeline.hget(self.key, "status")
            if status != JobStatus.DEFERRED.encode():
                return False
        return super().dependencies_are_met(parent_job, pipeline, *arguments, **options)


def releasing_once(queue: Queue) -> Queue:
    """Return *queue*, made to enqueue dependents once; as it is if it has a class of jobs."""
    if queue.job_class is not Job:
        return queue
    same = copy.copy(queue)
    same.job_class = Dependent  # RQ fetches the dependents as jobs of their queue's class
    releasing = copy.copy(queue)
    releasing.enqueue_dependents = same.enqueue_dependents  # type: ignore[method-assign]
    return releasing
