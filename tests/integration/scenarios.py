"""Scenarios of one job: what it is given, how it ends, what is kept of it."""

from __future__ import annotations

import operator
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from rq import Callback, Repeat, Retry
from rq.webhook import Webhook

from tests.waiting import wait_until

from . import scenario_jobs as jobs
from .staging import Scenario, Stage

HANDLERS = tuple(f"{jobs.HERE}.{name}" for name in ("handle_silently", "handle_on", "handle_last"))
BROKEN = (f"{jobs.HERE}.on_any_broken",)
#: nobody listens there
CLOSED = "http://127.0.0.1:9/"
#: a job as it was stored before it was compressed
UNPACKED = pickle.dumps((f"{jobs.HERE}.note", None, ("unpacked",), {}))
JSON = {"serializer": "rq.serializers.JSONSerializer"}
OWN_JOB = {"job_class": f"{jobs.HERE}.TaggedJob"}
OWN_QUEUE = {"queue_class": f"{jobs.HERE}.NotingQueue"}


def one(
    name: str,
    function: Any,
    /,
    *args: Any,
    settings: dict[str, Any] | None = None,
    pool: bool = True,
    **options: Any,
) -> Scenario:
    """Return the scenario in which there is one job, a."""
    return Scenario(
        name, lambda on: on.put("a", function, *args, **options), settings or {}, pool=pool
    )


def corrupt(on: Stage, **fields: bytes) -> None:
    """Enqueue a job and write *fields* over its hash."""
    job = on.put("a", jobs.note)
    on.client.hset(job.key, mapping=fields)  # type: ignore[arg-type]


def expire(on: Stage) -> None:
    """Let a job's time to live end while it is on the queue."""
    job = on.put("a", jobs.note, ttl=1)
    on.put("b", jobs.note)
    on.client.pexpire(job.key, 1)
    wait_until(lambda: not on.client.exists(job.key), 30, "the job's end")


def abandon(on: Stage, **options: Any) -> None:
    """Leave a job as a worker does that is killed in the middle of it."""
    on.put("a", jobs.note, **options)
    on.put("b", jobs.note, depends_on="a")
    on.client.delete(on.queue.key)
    on.client.hset("rq:job:a", mapping={"status": "started", "worker_name": "dead"})
    on.client.zadd("rq:wip:default", {f"a:{'0123456789abcdef' * 2}": 1})


def requeue(on: Stage) -> Iterator[None]:
    """Fail, and be requeued by hand."""
    on.put("a", jobs.fail_until, 2)
    yield
    on.job("a").requeue()
    yield


def arrive_late(on: Stage) -> Iterator[None]:
    """Come while the worker waits for a job."""

    def arrive() -> None:
        wait_until(lambda: on.client.hget("rq:worker:w1", "state") == b"idle", 30, "an idle worker")
        on.put("a", jobs.look)

    thread = threading.Thread(target=arrive)
    thread.start()
    yield
    thread.join()


def warned(on: Stage) -> None:
    """Give callbacks as plain functions, which RQ will not take much longer."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        on.put("a", jobs.add, 1, 2, on_success=jobs.on_success)
        on.put("b", jobs.fail, on_failure=jobs.on_failure)


GIVEN = [
    Scenario("nothing to do", lambda on: None),
    one("plain", jobs.add, 1, 2),
    one("arguments", jobs.note, 1, [2], "drei", key={"é": None}),
    one("explicit arguments", jobs.note, args=(1,), kwargs={"on": 2}),
    one("look", jobs.look),
    one("look without limit", jobs.look, job_timeout=-1),
    one("look with limit", jobs.look, job_timeout="1h"),
    one("look, own worker ttl", jobs.look, settings={"worker_ttl": 1000}),
    one("look and fail", jobs.look_and_fail),
    one("description", jobs.note, description="gr\u00fc\u00df\nGott"),
    one("meta", jobs.note, meta={"who": "me", "n": [1, 2]}),
    one("ttl", jobs.look, ttl=100),
    one("ttl of a job that fails", jobs.look_and_fail, ttl=100),
    Scenario("ttl is over", expire),
    Scenario("hash is gone", lambda on: [on.put("a", jobs.note), on.client.delete("rq:job:a")]),
    Scenario(
        "hash without data",
        lambda on: on.put("a", jobs.note) and on.client.hdel("rq:job:a", "data"),
    ),
    Scenario("data is garbage", lambda on: corrupt(on, data=b"garbage")),
    Scenario("data is not packed", lambda on: corrupt(on, data=UNPACKED)),
    Scenario("meta is garbage", lambda on: corrupt(on, meta=b"garbage")),
    Scenario("a field nobody knows", lambda on: corrupt(on, colour=b"blue")),
    Scenario("blocking", lambda on: on.put("a", jobs.look), {"max_jobs": 1}, burst=False),
    Scenario("arrives late", arrive_late, {"max_jobs": 1}, burst=False),
    Scenario(
        "arrives late, 2 queues",
        arrive_late,
        {"max_jobs": 1, "queues": ("default", "low")},
        burst=False,
    ),
]

CALLED = [
    one("by name", f"{jobs.HERE}.note", 1),
    one("builtin", operator.add, 1, 2),
    one("builtin that fails", operator.truediv, 1, 0),
    one("async", jobs.gather, 3),
    one("async that fails", jobs.gather_and_fail),
    one("method", jobs.Greeter("Ada").greet, "hello"),
    one("static method", jobs.Greeter.shout, "hello"),
    one("static method by name", f"{jobs.HERE}.Greeter.shout", "hi"),
    one("object that is called", jobs.Greeter("Bob"), "hello"),
    one("class by name", f"{jobs.HERE}.Greeter", "Cleo"),
    one("no such module", "no.such.module.function"),
    one("no such function", f"{jobs.HERE}.no_such_function"),
    one("wrong arguments", jobs.add, 1),
    one("arguments do not unpickle", jobs.note, jobs.Bomb()),
]

RETURNED = [
    one("None", jobs.give, None),
    Scenario(
        "false", lambda on: [on.put(f"a{n}", jobs.give, v) for n, v in enumerate((0, "", []))]
    ),
    one("bytes", jobs.give, b"\x00\xff\r\n"),
    one("an object", jobs.give, jobs.Greeter("Dora")),
    one("an exception", jobs.give, ValueError("not raised")),
    one("what no serializer takes", jobs.give_lambda),
    one("a megabyte", jobs.give_big, 2**20),
    one("result ttl 0", jobs.note, result_ttl=0),
    Scenario("look, result ttl 0", lambda on: [on.put(i, jobs.look, result_ttl=0) for i in "ab"]),
    one("result ttl -1", jobs.note, result_ttl=-1),
    one("result ttl 60", jobs.note, result_ttl=60),
    one("result ttl as text", jobs.note, result_ttl="10m"),
    one("result ttl 0 of a job that fails", jobs.fail, result_ttl=0),
    one("worker's result ttl", jobs.note, settings={"results_ttl": 77}),
    one("worker's result ttl 0", jobs.note, settings={"results_ttl": 0}),
    one("worker's result ttl -1", jobs.note, settings={"results_ttl": -1}),
]

FAILED = [
    one("fails", jobs.fail),
    one("fails with an error of its own", jobs.fail_own),
    one("fails twice", jobs.fail_twice),
    one("fails unpicklably", jobs.fail_unpicklable),
    one("fails in another alphabet", jobs.fail, "\u4e16\u754c \U0001f40d"),
    one("fails in two lines", jobs.fail, "one\ntwo"),
    one("fails at length", jobs.fail, "long " * 50_000),
    one("fails with what cannot be encoded", f"{jobs.HERE}.fail", "\ud800"),
    one("failure ttl", jobs.fail, failure_ttl=60),
    one("failure ttl -1", jobs.fail, failure_ttl=-1),
    one("failure ttl 0", jobs.fail, failure_ttl=0),
    one("sys.exit", jobs.leave, 3),
    Scenario("sys.exit(0)", lambda on: [on.put("a", jobs.leave, 0), on.put("b", jobs.note)]),
    Scenario("KeyboardInterrupt", lambda on: [on.put("a", jobs.interrupt), on.put("b", jobs.note)]),
    one("timeout in sleep", jobs.nap, 5, job_timeout=1),
    one("timeout at work", jobs.spin, 5, job_timeout=1),
    one("handlers", jobs.fail, settings={"exception_handlers": HANDLERS}),
    one("a handler that is last", jobs.fail, settings={"exception_handlers": HANDLERS[::-1]}),
    one("broken handler", jobs.fail, settings={"exception_handlers": BROKEN}),
    one("no default handler", jobs.fail, settings={"disable_default_exception_handler": True}),
    Scenario("requeued", requeue),
    Scenario("abandoned", abandon),
    Scenario("abandoned with a retry", lambda on: abandon(on, retry=Retry(max=2))),
    Scenario(
        "abandoned with a callback", lambda on: abandon(on, on_failure=Callback(jobs.on_any_look))
    ),
    Scenario("warm stop", lambda on: [on.put("a", jobs.stop_worker), on.put("b", jobs.note)]),
    Scenario(
        "stopped by command", lambda on: on.put("a", jobs.be_stopped, **jobs.CALLBACKS), pool=False
    ),
]

RETRIED = [
    one("retry in vain", jobs.fail, retry=Retry(max=2)),
    one("retry and look", jobs.look_and_fail, retry=Retry(max=1)),
    one("retry later", jobs.fail, retry=Retry(max=2, interval=30)),
    one("retry ever later", jobs.fail, retry=Retry(3, [60, 120, 180])),
    one("retry and succeed", jobs.fail_until, 3, retry=Retry(max=5)),
    one("retry a timeout", jobs.nap, 5, job_timeout=1, retry=Retry(1, 9)),
    one("retry with callbacks", jobs.fail_until, 2, retry=Retry(1), **jobs.CALLBACKS),
    one("ask again in vain", jobs.ask_again, 2),
    one("ask again a dozen times", jobs.ask_again, 12),
    one("ask again later", jobs.ask_again, 2, 30),
    one("ask again and succeed", jobs.ask_once, failure_ttl=60),
    one("ask again, result ttl 0", jobs.ask_once, result_ttl=0),
    one("repeat", jobs.note, repeat=Repeat(times=2)),
    one("repeat a dozen times", jobs.note, repeat=Repeat(times=12)),
    one("repeat later", jobs.note, repeat=Repeat(2, [30, 90])),
    one("repeat and look", jobs.look, ttl=99, repeat=Repeat(times=1)),
    one("repeat, result ttl 0", jobs.note, result_ttl=0, repeat=Repeat(1)),
    one("repeat a failure", jobs.fail, repeat=Repeat(times=2)),
]

CALLED_BACK = [
    one("callbacks, success", jobs.add, 1, 2, **jobs.CALLBACKS),
    one("callbacks, failure", jobs.fail, **jobs.CALLBACKS),
    Scenario("callbacks as functions", warned),
    one("callback by name", jobs.note, on_success=Callback(f"{jobs.HERE}.on_success")),
    one("callback looks", jobs.note, on_success=Callback(jobs.on_any_look)),
    one("failure callback looks", jobs.fail, on_failure=Callback(jobs.on_any_look)),
    one("broken success callback", jobs.note, on_success=Callback(jobs.on_any_broken)),
    one("broken failure callback", jobs.fail, on_failure=Callback(jobs.on_any_broken)),
    one(
        "both broken",
        jobs.note,
        on_success=Callback(jobs.on_any_broken),
        on_failure=Callback(jobs.on_any_broken),
    ),
    one("slow callback", jobs.note, on_success=Callback(jobs.on_any_slow, timeout=1)),
    one("no such callback", jobs.note, on_success=Callback("no.such.callback")),
    one("callback, result ttl 0", jobs.note, result_ttl=0, **jobs.CALLBACKS),
    one("webhook", jobs.note, webhooks=[Webhook(CLOSED, "finished", timeout=1)]),
    one(
        "webhook, failure",
        jobs.fail,
        webhooks=[Webhook(CLOSED, "failed", method="POST", timeout=1)],
    ),
    one("webhook for the other end", jobs.fail, webhooks=[Webhook(CLOSED, "finished", timeout=1)]),
    one(
        "webhook, asked again in vain",
        jobs.ask_again,
        1,
        webhooks=[Webhook(CLOSED, "failed", timeout=1)],
    ),
]

CHANGED = [
    one("meta saved", jobs.change_meta, True, meta={"old": 1}),
    one("meta not saved", jobs.change_meta, False, meta={"old": 1}),
    one("saves itself", jobs.save_me),
    one("deletes itself", jobs.delete_me),
    one("deletes itself and fails", jobs.delete_me, True),
    one("changes its result ttl", jobs.change_me, kwargs={"result_ttl": 60}),
    one("changes its result ttl to 0", jobs.change_me, kwargs={"result_ttl": 0}),
    one("changes its failure ttl", jobs.change_and_fail, kwargs={"failure_ttl": 60}),
    one("changes its description", f"{jobs.HERE}.change_me", kwargs={"description": "new"}),
    one("changes its retries", jobs.change_and_fail, retries_left=1, retry_intervals=[30]),
    one("changes its timeout", jobs.change_me, timeout=33),
]

CLASSES = [
    one("JSON", jobs.note, 1, key="value", meta={"m": 1}, settings=JSON),
    one("JSON cannot say it", jobs.give_lambda, settings=JSON),
    one("JSON and a failure", jobs.fail, settings=JSON),
    one("JSON and a Retry", jobs.ask_once, settings=JSON),
    Scenario(
        "JSON by a worker of pickles",
        lambda on: corrupt(on, data=b'["operator.add", null, [1, 2], {}]'),
    ),
    one("own serializer", jobs.give, {1: 2}, settings={"serializer": f"{jobs.HERE}.OldPickle"}),
    one("own job class", jobs.note, settings=OWN_JOB),
    one("own job class, failure", jobs.fail, settings=OWN_JOB),
    one("own queue class", jobs.note, settings=OWN_QUEUE),
    one("own queue class, failure", jobs.fail, settings=OWN_QUEUE),
]

ONE_JOB = [*GIVEN, *CALLED, *RETURNED, *FAILED, *RETRIED, *CALLED_BACK, *CHANGED, *CLASSES]
