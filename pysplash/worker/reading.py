"""Reading what was claimed: a job, and its queue; what cannot be read is set aside."""

from __future__ import annotations

from collections.abc import Mapping

from rq.job import Job
from rq.queue import Queue

from pysplash.jobs.quarantine import Quarantine, reason
from pysplash.jobs.restoring import Restorer
from pysplash.jobs.store_and_claim import Turn

from .claims import Claims
from .supervised import Supervised

#: fields of a job's hash that make its success RQ's business
SLOW_FIELDS = (b"success_callback_name", b"webhooks", b"repeats_left", b"rate_limit_key")


def _is_special(fields: dict[bytes, bytes]) -> bool:
    """Return whether a job's hash makes its success RQ's business."""
    return b"created_at" not in fields or any(fields.get(name) for name in SLOW_FIELDS)


class ClaimedJobs:
    """Reads the jobs that *worker* has claimed."""

    def __init__(self, worker: Supervised, claims: Claims, quarantine: Quarantine) -> None:
        self._worker = worker
        self._claims = claims
        self._quarantine = quarantine
        self._restorer = Restorer(worker.connection, worker.serializer)

    def prepare(self) -> None:
        """Have ready what the next job takes, while there is time."""
        self._restorer.prepare()

    def read(self, turn: Turn) -> tuple[Job, bool]:
        """Return a claimed job, and whether its success is RQ's business.

        Raises whatever is raised for a job that cannot be read.
        """
        if self._worker.job_class is Job:
            plain = self._restorer.restore_plain(turn.job_id.decode(), turn.raw)
            if plain is not None:
                return plain, False
        fields = turn.hash()
        return self._restore(turn.job_id, fields), _is_special(fields)

    def _restore(self, raw_id: bytes, fields: Mapping[bytes, bytes]) -> Job:
        worker, job_id = self._worker, raw_id.decode()
        if worker.job_class is Job:
            job = self._restorer.restore(job_id, fields)
        else:
            job = worker.job_class(
                job_id, connection=worker.connection, serializer=worker.serializer
            )
            job.restore(fields)
        worker._seconds(job)  # raises for a timeout of three hundred digits
        return job

    def set_aside(self, turn: Turn, error: Exception) -> None:
        """Set a claimed job aside that cannot be read, for *error*."""
        fields = turn.hash()
        why = reason(lambda some: self._restore(turn.job_id, some), fields, error)
        self._quarantine.set_aside_claimed(
            turn.queue, turn.job_id, self._claims.execution, fields, why
        )

    def queue(self, name: str) -> Queue:
        """Return the queue of that *name*."""
        worker = self._worker
        for queue in worker.queues:
            if queue.name == name:
                return queue
        return worker.queue_class(name, connection=worker.connection, serializer=worker.serializer)
