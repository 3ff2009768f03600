"""Settlement: requeues, retries, stores or fails the jobs of a dead worker, each exactly once.

A job that was claimed but never started goes back to the front of its queue, whatever its
settings. A started one is failed through RQ's own code, which retries it if it was enqueued
with ``Retry``; with ``on_crash="requeue"`` it is requeued instead. A worker may run several jobs,
each inside the one that waits for it; all are settled. A job whose workers died three times in
three days is taken for the cause and failed. A job that the pool killed for its memory is
requeued, which counts as no retry; the third time it is failed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError
from rq.exceptions import NoSuchJobError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import as_text, import_attribute, now
from rq.worker import SimpleWorker

from pysplash.config import WorkerSettings
from pysplash.connections.clients import numbers, own
from pysplash.connections.outage import AWAY
from pysplash.jobs import bundles as parts
from pysplash.jobs.abandoned import STOPPED, abandoned
from pysplash.jobs.bundles import noted
from pysplash.jobs.claim_named import STACK_KEY
from pysplash.jobs.dependents import releasing_once
from pysplash.jobs.quarantine import Quarantine, diagnosis
from pysplash.jobs.restoring import stamp
from pysplash.jobs.rq import current_job_ids, fail, held, hold, recover, requeue
from pysplash.jobs.store_and_claim import CLOSED, CLOSED_TTL, Answer, Finish
from pysplash.jobs.store_and_claim_batch import HAND, SCRIPT, BatchRequest, Reply, read, words
from pysplash.log import logger
from pysplash.waiting.deadlock import forget

from .settled import Settled, SettledJobs

DEATHS_KEY = "pysplash:deaths:{}"
RELIEFS_KEY = "pysplash:memory-kills:{}"
#: worker deaths a job may cause within DEATHS_TTL seconds
MOST_DEATHS, DEATHS_TTL = 3, 72 * 3600

#: seconds a job's lease runs, 60 s aside, and a dead worker's key lives on, while it is settled
LEASE, DEATH = 30, 60

log = logger("settlement")


@dataclass(frozen=True, slots=True)
class Loss:
    """A dead worker, the job it ran according to the scoreboard, and how it ended."""

    worker: str
    job_id: str
    execution_id: str
    cause: str
    #: whether the job may be the cause; not where the pool itself ended the worker
    suspect: bool = True
    #: whether the pool killed it so that memory stays below its limit
    relief: bool = False
    #: outcomes in its journal, which may not be stored yet
    outcomes: Sequence[Finish] = ()
    #: how far its jobs of several calls got, as they noted it
    notes: Sequence[Sequence[str]] = ()
    #: whether its row could be read; if not, it is unknown which job of a batch had begun
    seen: bool = True
    #: the job that a command asked to end, so that the worker was killed; whether to stop it
    ended_job: str = ""
    is_stop: bool = False


def legible(outcomes: Sequence[Sequence[str]]) -> list[Finish]:
    """Return those *outcomes* of a worker's journal that can be read."""
    return [
        Finish(*(word.encode(errors="surrogateescape").decode(errors="replace") for word in words))  # type: ignore[arg-type]
        for words in outcomes
        if len(words) == len(Finish._fields)
    ]


def is_bundle(job: Job) -> bool:
    """Return whether a job is several calls in one."""
    try:
        return str(job.func_name).startswith(parts.PLACE) and len(job.args) > 1
    except Exception:  # it cannot be read: nothing of it has run
        return False


class Settlement:
    """Settles the jobs of dead workers over a connection of its own."""

    def __init__(self, connection: Redis, settings: WorkerSettings, on_crash: str) -> None:
        self._connection = own(connection, repeats=0)  # a retry that is sent twice is made twice
        self._settings = settings
        self._requeue = on_crash == "requeue"
        self._settled = SettledJobs()

    def settle(self, loss: Loss) -> str:
        """Settle one dead worker; return what was done with its job, "" if there was none.

        Outcomes in its journal are stored first. Jobs of a batch it had claimed and not begun are
        put back. Jobs that ran inside another are settled before that one.

        One of ``"returned"`` (never started), ``"requeued"``, ``"retried"``, ``"failed"``,
        ``"stopped"``, ``"kept"`` (its outcome is stored already), ``"vanished"``, ``"set aside"``
        (it cannot be read). Raises redis's errors if Redis cannot be reached; nothing is lost then,
        and the call may be made again.
        """
        self._close_connections(loss.worker)
        worker = self._rq_worker(loss.worker)
        present = current_job_ids(worker)  # settling any of them takes it away
        hand = self._claimed_batch(loss.worker)
        self._settle_batch(worker, loss, hand)
        mine = f"{loss.job_id}:{loss.execution_id}"
        others = [entry for entry in hand if entry != mine and self._has_record(entry)]
        pairs = [entry.rpartition(":")[::2] for entry in others]
        settled = [*hand, *(f"{done.job_id}:" for done in loss.outcomes)]
        present = [job for job in present if not self._is_settled(job, settled, others)]
        begun = [replace(loss, job_id=job, execution_id=execution) for job, execution in pairs]
        outcome = ""
        for part in (*begun, *self._parts(loss, present)):
            outcome = self._settle_part(worker, part)
        for queue in worker.queues:
            recover(queue)
        worker.register_death()
        self._connection.delete(STACK_KEY.format(loss.worker))
        return outcome

    def take(self) -> list[Settled]:
        """Return what was done with each job since the last call, in that order."""
        return self._settled.take()

    def _is_settled(self, current: str, batch: list[str], others: list[str]) -> bool:
        """Return whether *current* is one of *others*, or of a *batch* and put back or stored."""

        def among(entries: list[str]) -> bool:
            return any(entry.rpartition(":")[0] == current for entry in entries)

        on_record = self._connection.exists(f"rq:executions:{current}")
        return among(others) or (among(batch) and not on_record)

    def _settle_batch(self, worker: SimpleWorker, loss: Loss, hand: list[str]) -> None:
        """Store finished jobs of a batch, put back those not begun, and record the others."""
        if not hand and not loss.outcomes:
            return
        present = f"{loss.job_id}:{loss.execution_id}"
        begun = [entry for entry in hand if entry == present or not loss.seen]
        back = [entry for entry in hand if entry not in begun]
        marks = [
            "01"[not self._has_record(f"{done.job_id}:{done.execution_id}")]
            for done in loss.outcomes
        ]
        reply = self._ask(loss.worker, BatchRequest(loss.outcomes, "".join(marks), back=back))
        for done, answer in zip(loss.outcomes, reply.outcomes, strict=True):
            if answer is not Answer.EMPTY:
                self._store_for(worker, loss, done)
        for entry in begun:
            self._ask(loss.worker, BatchRequest(present=entry, record=True, held=" ".join(hand)))

    def _has_record(self, entry: str) -> bool:
        """Return whether the execution "job:execution" has a record: then its job has begun."""
        return bool(self._connection.exists(f"rq:execution:{entry}"))

    def _ask(self, worker: str, request: BatchRequest) -> Reply:
        """Run the batch script with *request* in the name of *worker*."""
        now = time.time()
        head = (worker, now, stamp(now), LEASE, DEATH, 0)
        found: Any = self._connection.eval(SCRIPT, 0, *head, *words(request, ""))
        return read(found, "")

    def _store_for(self, worker: SimpleWorker, loss: Loss, done: Finish) -> None:
        """Store an outcome with dependents, unless an earlier try has, and release these."""
        self._ask(loss.worker, BatchRequest([done], "2"))
        with contextlib.suppress(NoSuchJobError):
            job = worker.job_class.fetch(done.job_id, self._connection, worker.serializer)
            if job.get_status(refresh=False) == JobStatus.FINISHED:
                releasing_once(self._queue(worker, done.queue)).enqueue_dependents(job)

    def _claimed_batch(self, worker: str) -> list[str]:
        """Return the batch a worker had claimed, each entry as "job:execution"."""
        held: Any = self._connection.hget(f"rq:worker:{worker}", HAND)
        return as_text(held or b"").split()

    def _settle_part(self, worker: SimpleWorker, part: Loss) -> str:
        outcome = self._settle_job(worker, part)
        outcome = self._settled.note(part.worker, part.job_id, outcome)
        log.warning(
            "job %s of worker %s: %s (%s)",
            part.job_id,
            part.worker,
            outcome,
            part.cause,
            extra={"action": "settle", "job": part.job_id, "outcome": outcome},
        )
        return outcome

    def _close_connections(self, worker: str) -> None:
        """Close the dead worker's connections at the server.

        Commands it has sent and the server has not read yet are then never run; one could be a
        claim, made after the worker was settled. A server that closes no connections is told that
        the worker's scripts are to do nothing.
        """
        try:
            # two words: redis-py would make a dictionary of each client there is
            clients: Any = self._connection.execute_command("CLIENT", "LIST")
            for number in numbers(clients, worker):
                self._connection.client_kill_filter(_id=str(number))
        except ResponseError as error:
            log.debug("connections of worker %s cannot be closed: %s", worker, error)
            self._connection.set(CLOSED.format(worker), "1", ex=CLOSED_TTL)

    def _parts(self, loss: Loss, present: Sequence[str]) -> Iterator[Loss]:
        """Yield a loss for each job the worker ran, innermost first.

        A worker killed while it wrote its row, or just before, runs another job than its row says;
        Redis has that one as the worker's current job.
        """
        held = self._connection.lrange(STACK_KEY.format(loss.worker), 0, -1)
        pairs = [as_text(entry).rpartition(":")[::2] for entry in held]
        for job_id, execution_id in reversed(pairs[1:]):
            yield replace(loss, job_id=job_id, execution_id=execution_id)
        outermost = loss.job_id or (pairs[0][0] if pairs else next(iter(present), ""))
        if outermost:
            yield replace(loss, job_id=outermost)
        for job_id in present:
            if job_id not in (outermost, *(job for job, _ in pairs)):
                yield replace(loss, job_id=job_id, execution_id="")

    def _rq_worker(self, name: str) -> SimpleWorker:
        """Return RQ's object for the dead worker, to settle in its name."""
        queue_class: type[Queue] = import_attribute(self._settings.queue_class)  # type: ignore[assignment]
        job_class: type[Job] = import_attribute(self._settings.job_class)  # type: ignore[assignment]
        worker = SimpleWorker(
            [],
            name=name,
            connection=self._connection,
            job_class=job_class,
            queue_class=queue_class,
            serializer=self._settings.serializer,
            prepare_for_work=False,
            disable_default_exception_handler=self._settings.disable_default_exception_handler,
        )
        worker.queues = [self._queue(worker, name) for name in self._settings.queues]
        return worker

    def _queue(self, worker: SimpleWorker, name: str) -> Queue:
        return worker.queue_class(
            name,
            connection=self._connection,
            job_class=worker.job_class,
            serializer=self._settings.serializer,
        )

    def _settle_job(self, worker: SimpleWorker, loss: Loss) -> str:
        try:
            job = worker.job_class.fetch(loss.job_id, self._connection, worker.serializer)
        except AWAY:
            raise
        except Exception as error:
            client, raw = self._connection, loss.job_id.encode()
            why = diagnosis(client, worker.job_class, worker.serializer, raw, error)
            return self._set_aside(loss.job_id, loss, why) if why else "vanished"
        queue = self._queue(worker, job.origin)
        hold(worker, self._execution(job, loss))
        status = job.get_status()
        open_ = held(worker) is not None
        if status == JobStatus.QUEUED and (open_ or not loss.execution_id):
            forget(self._connection, job.id)
            requeue(worker, job, queue)
            return "returned"
        if not open_ or status != JobStatus.STARTED:
            return "kept"
        return self._settle_begun(worker, job, queue, loss)

    def _settle_begun(self, worker: SimpleWorker, job: Job, queue: Queue, loss: Loss) -> str:
        """Settle a job that had begun."""
        forget(self._connection, job.id)
        if is_bundle(job):
            return self._settle_bundle(worker, job, queue, loss)
        if loss.ended_job == job.id:
            worker._stopped_job_id = job.id if loss.is_stop else None
            return self._fail(worker, job, queue, loss.cause, 0)
        if loss.relief:
            return self._settle_memory_kill(worker, job, queue, loss)
        deaths = self._count_death(DEATHS_KEY.format(loss.job_id)) if loss.suspect else 0
        if self._requeue and deaths < MOST_DEATHS:
            requeue(worker, job, queue)
            return "requeued"
        if deaths >= MOST_DEATHS:
            job.retries_left = 0
        return self._fail(worker, job, queue, loss.cause, deaths)

    def _settle_bundle(self, worker: SimpleWorker, job: Job, queue: Queue, loss: Loss) -> str:
        """Fail a job of several calls; its caller repeats those that may be repeated.

        It is never requeued: some of its calls are answered, and some may be sent again already.
        """
        known = noted(loss.notes, job.id) if loss.seen else None
        key = parts.KEY.format(job.id)
        told: Any = self._connection.lrange(key, -1, -1)
        again = loss.relief or self._requeue
        if known is not None and not told:
            end = parts.AGAIN if again or not known.begun else parts.HELD
            for words in parts.commands(job.id, known.answers, end):
                self._connection.execute_command(*words)
        elif again and told and as_text(told[0]) != parts.AGAIN:
            self._connection.rpush(key, parts.AGAIN)
        return self._fail(worker, job, queue, loss.cause, 0)

    def _settle_memory_kill(self, worker: SimpleWorker, job: Job, queue: Queue, loss: Loss) -> str:
        """Requeue a job that was killed for its memory; the third time, fail it."""
        kills = self._count_death(RELIEFS_KEY.format(job.id))
        if kills < MOST_DEATHS:
            requeue(worker, job, queue)
            return "requeued"
        job.retries_left = 0
        cause = f"{loss.cause}, {kills} times: it needs more memory than the pool's limit leaves"
        return self._fail(worker, job, queue, cause, 0)

    def _set_aside(self, job_id: str, loss: Loss, why: str) -> str:
        """Quarantine a job that cannot be read."""
        origin = self._origin(job_id)
        known = ExecutionRegistry(job_id, self._connection).get_execution_ids()
        Quarantine(self._connection, loss.worker, lambda call: call()).set_aside_claimed(
            origin.decode(errors="replace") or self._settings.queues[0],
            job_id.encode(),
            loss.execution_id or next(iter(known), ""),
            {b"origin": origin},
            why,
        )
        return "set aside"

    def _origin(self, job_id: str) -> bytes:
        try:
            origin: Any = self._connection.hget(f"rq:job:{job_id}", "origin")
        except ResponseError:
            return b""
        return origin or b""

    def _execution(self, job: Job, loss: Loss) -> Execution | None:
        """Return the dead worker's execution of the job, if one is still open."""
        registry = ExecutionRegistry(job.id, self._connection)
        for execution_id in dict.fromkeys((loss.execution_id, *registry.get_execution_ids())):
            try:
                execution = Execution.fetch(execution_id, job.id, self._connection)
            except ValueError:
                continue
            # RQ 2.10 does not say whose an execution is; then the job does.
            owner = self._connection.hget(execution.key, "worker_name") or job.worker_name
            sure = execution_id == loss.execution_id or not loss.execution_id
            if as_text(owner or "") == loss.worker or (sure and owner is None):
                return execution
        return None

    def _fail(self, worker: SimpleWorker, job: Job, queue: Queue, cause: str, deaths: int) -> str:
        """Let RQ fail or retry the job; webhooks, which may take seconds, are sent by a thread."""
        stopped = worker._stopped_job_id == job.id
        retried = job.should_retry and not stopped
        poison = f" It was the worker's death no. {deaths} under this job." if deaths > 1 else ""
        text = f"The worker died while it ran the job: {cause}.{poison}"
        text = STOPPED if stopped else text
        webhooks, job.webhooks = job.webhooks, []
        handled = bool(self._settings.exception_handlers)
        self._settled.begin(abandoned(job, worker, text, handled=handled))
        job.ended_at = now()
        fail(worker, job, queue, text)
        if webhooks and not (retried or stopped):
            job.webhooks = webhooks
            threading.Thread(
                target=job.send_webhooks,
                args=(JobStatus.FAILED,),
                kwargs={"exc_string": text},
                daemon=True,
            ).start()
        return "stopped" if stopped else "retried" if retried else "failed"

    def _count_death(self, key: str) -> int:
        with self._connection.pipeline() as pipeline:
            pipeline.incr(key)
            pipeline.expire(key, DEATHS_TTL)
            counted: list[Any] = pipeline.execute()
        return int(counted[0])
