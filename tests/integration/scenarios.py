"""Scenarios of one job: what it is given, how it ends, what is kept of it."""

from __future__ import annotations

import operator
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from rq import Repeat, Retry
from rq.job import Callback
from rq.webhook import Webhook

from tests.waiting import wait_until

from . import scenario_jobs as jobs
from .staging import Scenario, Stage

HANDLERS = tuple(f"{jobs.HERE}.{name}" for name in ("handle_silently", "handle_on", "handle_last"))
#: nobody listens there
CLOSED = "http://127.0.0.1:9/"


def json_queue() -> dict[str, Any]:
    """Return the settings for JSON."""
    return {"serializer": "rq.serializers.JSONSerializer"}


def corrupt(on: Stage, **fields: bytes) -> None:
    """Enqueue a job and write *fields* over its hash."""
    job = on.put("a", jobs.note)
    on.client.hset(job.key, mapping=fields)  # type: ignore[arg-type]


def expire(on: Stage) -> None:
    """Let a job's time to live end while it is on the queue."""
    job = on.put("a", jobs.note, ttl=1)
    on.put("b", jobs.note)
    on.client.pexpire(job.key, 1)
    wait_until(lambda: not on.client.exists(job.key), 5, "the job's end")


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
        wait_until(lambda: on.client.hget("rq:worker:w1", "state") == b"idle", 10, "an idle worker")
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
    Scenario("plain", lambda on: on.put("a", jobs.add, 1, 2)),
    Scenario("arguments", lambda on: on.put("a", jobs.note, 1, [2], "drei", key={"é": None})),
    Scenario("explicit arguments", lambda on: on.put("a", jobs.note, args=(1,), kwargs={"on": 2})),
    Scenario("look", lambda on: on.put("a", jobs.look)),
    Scenario("look without limit", lambda on: on.put("a", jobs.look, job_timeout=-1)),
    Scenario("look with limit", lambda on: on.put("a", jobs.look, job_timeout="1h")),
    Scenario("look, own worker ttl", lambda on: on.put("a", jobs.look), {"worker_ttl": 1000}),
    Scenario("look and fail", lambda on: on.put("a", jobs.look_and_fail)),
    Scenario("description", lambda on: on.put("a", jobs.note, description="gr\u00fc\u00df\nGott")),
    Scenario("meta", lambda on: on.put("a", jobs.note, meta={"who": "me", "n": [1, 2]})),
    Scenario("ttl", lambda on: on.put("a", jobs.look, ttl=100)),
    Scenario("ttl of a job that fails", lambda on: on.put("a", jobs.look_and_fail, ttl=100)),
    Scenario("ttl is over", expire),
    Scenario("hash is gone", lambda on: [on.put("a", jobs.note), on.client.delete("rq:job:a")]),
    Scenario("hash without data", lambda on: on.put("a", jobs.note) and on.client.hdel("rq:job:a", "data")),
    Scenario("data is garbage", lambda on: corrupt(on, data=b"garbage")),
    Scenario("data is not packed", lambda on: corrupt(on, data=on.put("a", jobs.note, 1).data)),
    Scenario("meta is garbage", lambda on: corrupt(on, meta=b"garbage")),
    Scenario("a field nobody knows", lambda on: corrupt(on, colour=b"blue")),
    Scenario("blocking", lambda on: on.put("a", jobs.look), {"max_jobs": 1}, burst=False),
    Scenario("arrives late", arrive_late, {"max_jobs": 1}, burst=False),
    Scenario("arrives late, 2 queues", arrive_late, {"max_jobs": 1, "queues": ("default", "low")}, burst=False),
]  # fmt: skip

CALLED = [
    Scenario("by name", lambda on: on.put("a", f"{jobs.HERE}.note", 1)),
    Scenario("builtin", lambda on: on.put("a", operator.add, 1, 2)),
    Scenario("builtin that fails", lambda on: on.put("a", operator.truediv, 1, 0)),
    Scenario("async", lambda on: on.put("a", jobs.gather, 3)),
    Scenario("async that fails", lambda on: on.put("a", jobs.gather_and_fail)),
    Scenario("method", lambda on: on.put("a", jobs.Greeter("Ada").greet, "hello")),
    Scenario("static method", lambda on: on.put("a", jobs.Greeter.shout, "hello")),
    Scenario("static method by name", lambda on: on.put("a", f"{jobs.HERE}.Greeter.shout", "hi")),
    Scenario("object that is called", lambda on: on.put("a", jobs.Greeter("Bob"), "hello")),
    Scenario("class by name", lambda on: on.put("a", f"{jobs.HERE}.Greeter", "Cleo")),
    Scenario("no such module", lambda on: on.put("a", "no.such.module.function")),
    Scenario("no such function", lambda on: on.put("a", f"{jobs.HERE}.no_such_function")),
    Scenario("wrong arguments", lambda on: on.put("a", jobs.add, 1)),
    Scenario("arguments do not unpickle", lambda on: on.put("a", jobs.note, jobs.Bomb())),
]

RETURNED = [
    Scenario("None", lambda on: on.put("a", jobs.give, None)),
    Scenario("false", lambda on: [on.put(f"a{n}", jobs.give, v) for n, v in enumerate((0, "", []))]),
    Scenario("bytes", lambda on: on.put("a", jobs.give, b"\x00\xff\r\n")),
    Scenario("an object", lambda on: on.put("a", jobs.give, jobs.Greeter("Dora"))),
    Scenario("an exception", lambda on: on.put("a", jobs.give, ValueError("not raised"))),
    Scenario("what no serializer takes", lambda on: on.put("a", jobs.give_lambda)),
    Scenario("a megabyte", lambda on: on.put("a", jobs.give_big, 2**20)),
    Scenario("result ttl 0", lambda on: on.put("a", jobs.note, result_ttl=0)),
    Scenario("look, result ttl 0", lambda on: [on.put(i, jobs.look, result_ttl=0) for i in "ab"]),
    Scenario("result ttl -1", lambda on: on.put("a", jobs.note, result_ttl=-1)),
    Scenario("result ttl 60", lambda on: on.put("a", jobs.note, result_ttl=60)),
    Scenario("result ttl as text", lambda on: on.put("a", jobs.note, result_ttl="10m")),
    Scenario("result ttl 0 of a job that fails", lambda on: on.put("a", jobs.fail, result_ttl=0)),
    Scenario("worker's result ttl", lambda on: on.put("a", jobs.note), {"results_ttl": 77}),
    Scenario("worker's result ttl 0", lambda on: on.put("a", jobs.note), {"results_ttl": 0}),
    Scenario("worker's result ttl -1", lambda on: on.put("a", jobs.note), {"results_ttl": -1}),
]  # fmt: skip

FAILED = [
    Scenario("fails", lambda on: on.put("a", jobs.fail)),
    Scenario("fails with an error of its own", lambda on: on.put("a", jobs.fail_own)),
    Scenario("fails twice", lambda on: on.put("a", jobs.fail_twice)),
    Scenario("fails unpicklably", lambda on: on.put("a", jobs.fail_unpicklable)),
    Scenario("fails in another alphabet", lambda on: on.put("a", jobs.fail, "\u4e16\u754c \U0001f40d \udcff"[:-1])),
    Scenario("fails in two lines", lambda on: on.put("a", jobs.fail, "one\ntwo")),
    Scenario("fails at length", lambda on: on.put("a", jobs.fail, "long " * 50_000)),
    Scenario("fails with what cannot be encoded", lambda on: on.put("a", f"{jobs.HERE}.fail", "\ud800")),
    Scenario("failure ttl", lambda on: on.put("a", jobs.fail, failure_ttl=60)),
    Scenario("failure ttl -1", lambda on: on.put("a", jobs.fail, failure_ttl=-1)),
    Scenario("failure ttl 0", lambda on: on.put("a", jobs.fail, failure_ttl=0)),
    Scenario("sys.exit", lambda on: on.put("a", jobs.leave, 3)),
    Scenario("sys.exit(0)", lambda on: [on.put("a", jobs.leave, 0), on.put("b", jobs.note)]),
    Scenario("KeyboardInterrupt", lambda on: [on.put("a", jobs.interrupt), on.put("b", jobs.note)]),
    Scenario("timeout in sleep", lambda on: on.put("a", jobs.nap, 5, job_timeout=1)),
    Scenario("timeout at work", lambda on: on.put("a", jobs.spin, 5, job_timeout=1)),
    Scenario("handlers", lambda on: on.put("a", jobs.fail), {"exception_handlers": HANDLERS}),
    Scenario("a handler that is last", lambda on: on.put("a", jobs.fail), {"exception_handlers": HANDLERS[::-1]}),
    Scenario("no default handler", lambda on: on.put("a", jobs.fail), {"disable_default_exception_handler": True}),
    Scenario("requeued", requeue),
    Scenario("abandoned", abandon),
    Scenario("abandoned with a retry", lambda on: abandon(on, retry=Retry(max=2))),
    Scenario("abandoned with a callback", lambda on: abandon(on, on_failure=Callback(jobs.on_any_look))),
    Scenario("warm stop", lambda on: [on.put("a", jobs.stop_worker), on.put("b", jobs.note)]),
    Scenario("stopped by command", lambda on: on.put("a", jobs.be_stopped, **jobs.CALLBACKS), pool=False),
]  # fmt: skip

RETRIED = [
    Scenario("retry in vain", lambda on: on.put("a", jobs.fail, retry=Retry(max=2))),
    Scenario("retry and look", lambda on: on.put("a", jobs.look_and_fail, retry=Retry(max=1))),
    Scenario("retry later", lambda on: on.put("a", jobs.fail, retry=Retry(max=2, interval=30))),
    Scenario("retry ever later", lambda on: on.put("a", jobs.fail, retry=Retry(3, [60, 120, 180]))),
    Scenario("retry and succeed", lambda on: on.put("a", jobs.fail_until, 3, retry=Retry(max=5))),
    Scenario("retry a timeout", lambda on: on.put("a", jobs.nap, 5, job_timeout=1, retry=Retry(1, 9))),
    Scenario("retry with callbacks", lambda on: on.put("a", jobs.fail_until, 2, retry=Retry(1), **jobs.CALLBACKS)),
    Scenario("ask again in vain", lambda on: on.put("a", jobs.ask_again, 2)),
    Scenario("ask again a dozen times", lambda on: on.put("a", jobs.ask_again, 12)),
    Scenario("ask again later", lambda on: on.put("a", jobs.ask_again, 2, 30)),
    Scenario("ask again and succeed", lambda on: on.put("a", jobs.ask_once, failure_ttl=60)),
    Scenario("ask again, result ttl 0", lambda on: on.put("a", jobs.ask_once, result_ttl=0)),
    Scenario("repeat", lambda on: on.put("a", jobs.note, repeat=Repeat(times=2))),
    Scenario("repeat a dozen times", lambda on: on.put("a", jobs.note, repeat=Repeat(times=12))),
    Scenario("repeat later", lambda on: on.put("a", jobs.note, repeat=Repeat(2, [30, 90]))),
    Scenario("repeat and look", lambda on: on.put("a", jobs.look, ttl=99, repeat=Repeat(times=1))),
    Scenario("repeat, result ttl 0", lambda on: on.put("a", jobs.note, result_ttl=0, repeat=Repeat(1))),
    Scenario("repeat a failure", lambda on: on.put("a", jobs.fail, repeat=Repeat(times=2))),
]  # fmt: skip

CALLED_BACK = [
    Scenario("callbacks, success", lambda on: on.put("a", jobs.add, 1, 2, **jobs.CALLBACKS)),
    Scenario("callbacks, failure", lambda on: on.put("a", jobs.fail, **jobs.CALLBACKS)),
    Scenario("callbacks as functions", warned),
    Scenario("callback by name", lambda on: on.put("a", jobs.note, on_success=Callback(f"{jobs.HERE}.on_success"))),
    Scenario("callback looks", lambda on: on.put("a", jobs.note, on_success=Callback(jobs.on_any_look))),
    Scenario("failure callback looks", lambda on: on.put("a", jobs.fail, on_failure=Callback(jobs.on_any_look))),
    Scenario("broken success callback", lambda on: on.put("a", jobs.note, on_success=Callback(jobs.on_any_broken))),
    Scenario("broken failure callback", lambda on: on.put("a", jobs.fail, on_failure=Callback(jobs.on_any_broken))),
    Scenario("both broken", lambda on: on.put("a", jobs.note, on_success=Callback(jobs.on_any_broken), on_failure=Callback(jobs.on_any_broken))),
    Scenario("slow callback", lambda on: on.put("a", jobs.note, on_success=Callback(jobs.on_any_slow, timeout=1))),
    Scenario("no such callback", lambda on: on.put("a", jobs.note, on_success=Callback("no.such.callback"))),
    Scenario("callback, result ttl 0", lambda on: on.put("a", jobs.note, result_ttl=0, **jobs.CALLBACKS)),
    Scenario("webhook", lambda on: on.put("a", jobs.note, webhooks=[Webhook(CLOSED, "finished", timeout=1)])),
    Scenario("webhook, failure", lambda on: on.put("a", jobs.fail, webhooks=[Webhook(CLOSED, "failed", method="POST", timeout=1)])),
    Scenario("webhook for the other end", lambda on: on.put("a", jobs.fail, webhooks=[Webhook(CLOSED, "finished", timeout=1)])),
    Scenario("webhook, asked again in vain", lambda on: on.put("a", jobs.ask_again, 1, webhooks=[Webhook(CLOSED, "failed", timeout=1)])),
]  # fmt: skip

CHANGED = [
    Scenario("meta saved", lambda on: on.put("a", jobs.change_meta, True, meta={"old": 1})),
    Scenario("meta not saved", lambda on: on.put("a", jobs.change_meta, False, meta={"old": 1})),
    Scenario("saves itself", lambda on: on.put("a", jobs.save_me)),
    Scenario("deletes itself", lambda on: on.put("a", jobs.delete_me)),
    Scenario("changes its result ttl", lambda on: on.put("a", jobs.change_me, result_ttl=60)),
    Scenario("changes its result ttl to 0", lambda on: on.put("a", jobs.change_me, result_ttl=0)),
    Scenario("changes its failure ttl", lambda on: on.put("a", jobs.change_and_fail, failure_ttl=60)),
    Scenario("changes its description", lambda on: on.put("a", f"{jobs.HERE}.change_me", kwargs={"description": "new"})),
    Scenario("changes its retries", lambda on: on.put("a", jobs.change_and_fail, retries_left=1)),
    Scenario("changes its timeout", lambda on: on.put("a", jobs.change_me, timeout=33)),
]  # fmt: skip

CLASSES = [
    Scenario("JSON", lambda on: on.put("a", jobs.note, 1, key="value", meta={"m": 1}), json_queue()),
    Scenario("JSON cannot say it", lambda on: on.put("a", jobs.give_lambda), json_queue()),
    Scenario("JSON and a failure", lambda on: on.put("a", jobs.fail), json_queue()),
    Scenario("JSON and a Retry", lambda on: on.put("a", jobs.ask_once), json_queue()),
    Scenario("JSON by a worker of pickles", lambda on: corrupt(on, data=b'["operator.add", null, [1, 2], {}]')),
    Scenario("own serializer", lambda on: on.put("a", jobs.give, {1: 2}), {"serializer": f"{jobs.HERE}.OldPickle"}),
    Scenario("own job class", lambda on: on.put("a", jobs.note), {"job_class": f"{jobs.HERE}.TaggedJob"}),
    Scenario("own job class, failure", lambda on: on.put("a", jobs.fail), {"job_class": f"{jobs.HERE}.TaggedJob"}),
    Scenario("own queue class", lambda on: on.put("a", jobs.note), {"queue_class": f"{jobs.HERE}.NotingQueue"}),
    Scenario("own queue class, failure", lambda on: on.put("a", jobs.fail), {"queue_class": f"{jobs.HERE}.NotingQueue"}),
]  # fmt: skip

ONE_JOB = [*GIVEN, *CALLED, *RETURNED, *FAILED, *RETRIED, *CALLED_BACK, *CHANGED, *CLASSES]
