"""What the jobs of the scenarios do, and the classes they are run with.

A job's side effects go to the list ``journal`` of its own database, so they are compared as
everything else there is.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Any

from redis import Redis
from rq import Callback, Queue, Retry, get_current_job
from rq.command import send_stop_job_command
from rq.job import Job
from rq.suspension import suspend
from rq.worker import BaseWorker

from tests.waiting import wait_until

from .snapshot import Snapshot, take

HERE = __name__
#: the workers of this run, the last of which is at work
WORKERS: list[BaseWorker] = []
#: what jobs saw of their database while they ran
SEEN: list[Snapshot] = []
#: event loops that async jobs ran in; RQ leaves them open
LOOPS: list[asyncio.AbstractEventLoop] = []


def me() -> Job:
    """Return the job this is."""
    job = get_current_job()
    assert job is not None
    return job


def journal(job: Job, *facts: Any) -> None:
    """Write *facts* down, in the order in which things happen."""
    job.connection.rpush("journal", json.dumps([job.id, *facts], default=repr))


def note(*args: Any, **kwargs: Any) -> str:
    """Write down the arguments and return this job's id."""
    journal(me(), args, kwargs)
    return me().id


def add(left: Any, right: Any) -> Any:
    """Return a sum and leave no trace."""
    return left + right


def give(value: Any) -> Any:
    """Return *value*."""
    return value


def give_lambda() -> Any:
    """Return what no serializer takes."""
    return lambda: None


def give_big(size: int) -> bytes:
    """Return *size* bytes."""
    return b"x" * size


def look() -> None:
    """See what others see of this job while it runs."""
    SEEN.append(take(me().connection))


def fail(message: str = "boom") -> None:
    """Fail in the usual way."""
    journal(me(), "fails")
    raise ValueError(message)


def look_and_fail() -> None:
    """See what others see, then fail."""
    look()
    fail()


class OwnError(Exception):
    """An error with arguments of its own."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)


class Unpicklable(Exception):
    """An error that cannot travel."""

    def __init__(self) -> None:
        super().__init__("held")
        self.lock = threading.Lock()


def fail_own() -> None:
    """Fail with an error of the user's."""
    raise OwnError(7, "own reason")


def fail_unpicklable() -> None:
    """Fail with an error that cannot be pickled."""
    raise Unpicklable


def fail_twice() -> None:
    """Fail while handling a failure."""
    try:
        fail("first")
    except ValueError as error:
        raise OwnError(1, "second") from error


def leave(status: int) -> None:
    """Try to end the process."""
    sys.exit(status)


def interrupt() -> None:
    """Act as if somebody had pressed Ctrl-C."""
    raise KeyboardInterrupt


def fail_until(count: int) -> str:
    """Fail until the *count*-th time."""
    if me().connection.incr("tries") < count:
        fail()
    return note()


def ask_again(times: int, interval: int = 0) -> Retry:
    """Return a Retry for ever."""
    journal(me(), me().number_of_retries)
    return Retry(max=times, interval=interval)


def ask_once(interval: int = 0) -> Retry | str:
    """Return a Retry the first time, a result the second."""
    return note() if me().number_of_retries else Retry(max=3, interval=interval)


def nap(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)  # noqa: TID251 -- this is the job's work


def spin(seconds: float) -> None:
    """Keep the processor busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def gather(count: int) -> list[int]:
    """Await."""
    LOOPS.append(asyncio.get_running_loop())
    return list(await asyncio.gather(*(asyncio.sleep(0, number) for number in range(count))))


async def gather_and_fail() -> None:
    """Await, then fail."""
    await gather(1)
    fail()


class Greeter:
    """A class whose parts can be jobs."""

    def __init__(self, name: str = "nobody") -> None:
        self.name = name

    def __call__(self, greeting: str) -> str:
        return f"{greeting}, {self.name}"

    def __repr__(self) -> str:
        return f"Greeter({self.name!r})"

    def greet(self, greeting: str) -> str:
        """Greet."""
        return self(greeting)

    @staticmethod
    def shout(greeting: str) -> str:
        """Greet everybody."""
        return greeting.upper()


class Bomb:
    """An argument that can be sent and not received."""

    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


def explode() -> None:
    """Refuse to be unpickled."""
    raise LookupError("no such class here")


def change_meta(save: bool) -> None:
    """Change meta, and store it if *save*."""
    me().meta["seen"] = [1, 2]
    if save:
        me().save_meta()


def change_me(**changes: Any) -> None:
    """Change attributes of the running job."""
    for name, value in changes.items():
        setattr(me(), name, value)


def change_and_fail(**changes: Any) -> None:
    """Change attributes of the running job, then fail."""
    change_me(**changes)
    fail()


def save_me() -> None:
    """Store the running job."""
    me().description = "told by itself"
    me().save()


def delete_me(fails: bool = False) -> None:
    """Delete the running job."""
    me().delete()
    if fails:
        fail()


def send(job_id: str, origin: str = "default", **options: Any) -> str:
    """Enqueue another job."""
    job = me()
    queue = Queue(origin, connection=job.connection)
    return queue.enqueue(note, "sent", job_id=job_id, **options).id


def send_dependent(job_id: str) -> str:
    """Enqueue a job that waits for this one."""
    return send(job_id, depends_on=me().id)


def cancel(job_id: str) -> None:
    """Cancel another job."""
    Job.fetch(job_id, connection=me().connection).cancel()


def delete(job_id: str) -> None:
    """Delete another job."""
    Job.fetch(job_id, connection=me().connection).delete()


def rewrite(job_id: str) -> None:
    """Change what another job will do."""
    other = Job.fetch(job_id, connection=me().connection)
    other.args = ("rewritten",)
    other.result_ttl = 60
    other.save()


def suspend_all() -> None:
    """Suspend all workers."""
    suspend(me().connection)


def stop_worker() -> str:
    """Ask this worker for a warm stop."""
    signal.raise_signal(signal.SIGTERM)
    return note()


def be_stopped() -> None:
    """Have somebody stop this job, then end as a killed job does: with an error."""
    job = me()
    send_stop_job_command(job.connection, job.id)
    wait_until(lambda: WORKERS[-1]._stopped_job_id == job.id, 30, "the command")
    fail()


# --- callbacks and handlers ---


def on_success(job: Job, connection: Redis, result: Any) -> None:
    """Note a success, and what is stored of the job then."""
    status = connection.hget(job.key, "status")
    journal(job, "success", result, status, job.get_status(refresh=False))


def on_failure(
    job: Job,
    connection: Redis,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType,
) -> None:
    """Note a failure, and what is stored of the job then."""
    status = connection.hget(job.key, "status")
    journal(job, "failure", kind.__name__, str(error), status, job.get_status(refresh=False))


def on_stopped(job: Job, connection: Redis) -> None:
    """Note a stop."""
    journal(job, "stopped")


def on_any_broken(job: Job, connection: Redis, *rest: Any) -> None:
    """Be a callback that fails."""
    raise OwnError(2, "broken callback")


def on_any_slow(job: Job, connection: Redis, *rest: Any) -> None:
    """Be a callback that takes too long."""
    nap(5)


def on_any_look(job: Job, connection: Redis, *rest: Any) -> None:
    """See what others see while a callback runs."""
    SEEN.append(take(connection))


CALLBACKS: dict[str, Any] = {
    "on_success": Callback(on_success),
    "on_failure": Callback(on_failure, timeout=30),
    "on_stopped": Callback(f"{HERE}.on_stopped", timeout="2m"),
}


def handle_last(job: Job, *exc_info: Any) -> bool:
    """Handle an error, and let no other handler see it."""
    journal(job, "last handler", exc_info[0].__name__)
    return False


def handle_on(job: Job, *exc_info: Any) -> bool:
    """Handle an error, and pass it on."""
    journal(job, "handler", exc_info[0].__name__)
    return True


def handle_silently(job: Job, *exc_info: Any) -> None:
    """Handle an error, and say nothing."""
    journal(job, "silent handler", exc_info[0].__name__)


# --- classes ---


class TaggedJob(Job):
    """A job class that stores a field of its own and notes what it does."""

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """Return RQ's fields and ours."""
        return super().to_dict(include_meta, include_result) | {"tag": "tagged"}

    def perform(self) -> Any:
        """Note, then perform."""
        journal(self, "performed by a class of its own")
        return super().perform()


class NotingQueue(Queue):
    """A queue class that notes what is enqueued through it."""

    def enqueue_dependents(self, job: Job, *args: Any, **kwargs: Any) -> Any:
        """Note, then enqueue."""
        journal(job, "asked for dependents")
        return super().enqueue_dependents(job, *args, **kwargs)


class OldPickle:
    """A serializer of the user's."""

    @staticmethod
    def dumps(obj: Any) -> bytes:
        """Write an old pickle."""
        return pickle.dumps(obj, protocol=2)

    @staticmethod
    def loads(data: bytes) -> Any:
        """Read any pickle."""
        return pickle.loads(data)
