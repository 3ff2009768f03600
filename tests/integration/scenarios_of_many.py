"""Scenarios of several jobs: order, queues, dependence, groups, and what one does to another."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from rq import Callback, Queue, Repeat, Retry
from rq.exceptions import DuplicateJobError
from rq.group import Group
from rq.job import Dependency, Job
from rq.suspension import resume, suspend

from . import scenario_jobs as jobs
from .staging import Scenario, Stage

TWO = {"queues": ("high", "low")}
THREE = {"queues": ("high", "default", "low")}


def several(on: Stage, count: int = 5, **options: Any) -> list[Job]:
    """Enqueue some jobs."""
    return [on.put(f"a{number}", jobs.note, number, **options) for number in range(count)]


def mixed(on: Stage) -> None:
    """Enqueue jobs that end in different ways, some of them looking around."""
    on.put("a", jobs.look)
    on.put("b", jobs.look_and_fail)
    on.put("c", jobs.look)
    on.put("d", jobs.look, result_ttl=0)
    on.put("e", jobs.ask_once)
    on.put("f", jobs.look, job_timeout=-1)


def on_each(on: Stage, looking: bool = False) -> list[Job]:
    """Enqueue two jobs on each queue, the least important first."""
    function = jobs.look if looking else jobs.note
    return [
        on.put(f"{name}{number}", function, queue=name)
        for name in reversed(on.queues)
        for number in range(2)
    ]


def at_random(on: Stage) -> None:
    """Enqueue jobs on each queue that leave no trace of their order."""
    for name in on.queues:
        for number in range(3):
            on.put(f"{name}{number}", jobs.add, number, 1, queue=name)


def on_a_foreign_queue(on: Stage) -> None:
    """Move a job to a queue that is not where it came from."""
    on.put("a", jobs.look, queue="low")
    on.put("b", jobs.fail, queue="low")
    on.client.rename("rq:queue:low", "rq:queue:high")


def suspended(on: Stage) -> Iterator[None]:
    """Suspend, then resume."""
    several(on, 2)
    suspend(on.client)
    yield
    resume(on.client)
    yield


def twice(on: Stage) -> None:
    """Have one job on the queue two times."""
    on.put("a", jobs.note, 1)
    on.put("a", jobs.note, 2)


def unique(on: Stage) -> Iterator[None]:
    """Insist on a unique id, and give it again when the first is done."""
    on.put("a", jobs.note, 1, unique=True)
    with pytest.raises(DuplicateJobError):
        on.put("a", jobs.note, 2, unique=True)
    yield
    on.put("a", jobs.note, 3)
    yield


def cancelled(on: Stage, still_queued: bool = False, **options: Any) -> None:
    """Cancel a job before it runs."""
    job = on.put("a", jobs.note)
    on.put("b", jobs.note, depends_on=job)
    job.cancel(**options)
    if still_queued:
        on.client.rpush(on.queue.key, "a")


def gone_then_cleaned(on: Stage) -> Iterator[None]:
    """Leave ids on the queue whose hashes are gone; a later worker cleans up."""
    several(on, 3)
    on.client.delete("rq:job:a0", "rq:job:a2")
    yield
    yield


def one_at_a_time(on: Stage) -> Iterator[None]:
    """Empty the queue by workers that take two jobs each."""
    several(on, 5)
    yield
    yield
    yield


def many(*ids: str, function: Any = jobs.note, **options: Any) -> list[Any]:
    """Prepare jobs to be enqueued together."""
    return [Queue.prepare_data(function, (1,), job_id=job_id, **options) for job_id in ids]


def enqueue_many(on: Stage) -> None:
    """Enqueue jobs together, one of them waiting for another."""
    waiting = many("c", depends_on="a", repeat=Repeat(times=1))
    on.queue.enqueue_many([*many("a"), *many("b", result_ttl=0, at_front=True), *waiting])


def grouped(on: Stage, *ids: str, **options: Any) -> None:
    """Enqueue a group."""
    Group.create(on.client, name="g").enqueue_many(on.queue, many(*ids, **options))


def regrouped(on: Stage) -> Iterator[None]:
    """Run a group of which nothing is kept; a later worker cleans up."""
    grouped(on, "a", "b", result_ttl=0)
    yield
    yield


def chain(on: Stage, **options: Any) -> None:
    """Enqueue jobs of which each waits for the one before."""
    on.put("a", jobs.note, **options)
    for before, after in ("ab", "bc", "cd"):
        on.put(after, jobs.note, depends_on=before, **options)


def diamond(on: Stage, function: Any = jobs.note, **options: Any) -> None:
    """Enqueue four jobs, two of them between the first and the last."""
    on.put("a", jobs.note)
    on.put("b", function, depends_on="a")
    on.put("c", jobs.note, depends_on="a")
    on.put("d", jobs.note, depends_on=Dependency(["b", "c"], **options))


def star(on: Stage, function: Any = jobs.note, count: int = 4, **options: Any) -> None:
    """Enqueue jobs that all wait for one; they come in any order, so they leave no trace of it."""
    on.put("a", function, **options)
    for number in range(count):
        on.put(f"b{number}", jobs.add, number, 1, depends_on="a")


def pair(on: Stage, function: Any, *args: Any, how: Any = "a", **options: Any) -> None:
    """Enqueue a job, one that waits for it, and one that waits for nothing."""
    on.put("a", function, *args, **options)
    on.put("b", jobs.look, depends_on=how)
    on.put("c", jobs.note)


def allow(**options: bool) -> Dependency:
    """Return a way to depend on the job a."""
    return Dependency("a", **options)


def across(on: Stage) -> None:
    """Let a job wait for one on another queue."""
    on.put("a", jobs.note, queue="low")
    on.put("b", jobs.note, queue="high", depends_on="a")
    on.put("c", jobs.note, queue="low", depends_on="b")


def elsewhere(on: Stage) -> None:
    """Let a job on a queue that nobody serves wait for one here."""
    on.put("a", jobs.note)
    Queue("elsewhere", connection=on.client).enqueue(jobs.note, job_id="b", depends_on="a")


def cancelled_dependent(on: Stage) -> None:
    """Cancel one of two dependents before the job they wait for runs."""
    star(on, count=2)
    on.job("b0").cancel()


def depends_on_the_done(on: Stage) -> Iterator[None]:
    """Depend on a job that is done already, and on one that never was."""
    on.put("a", jobs.note)
    yield
    on.put("b", jobs.note, depends_on="a")
    on.put("c", jobs.note, depends_on="never")
    yield


def scheduled(on: Stage) -> None:
    """Schedule jobs for earlier and later."""
    on.queue.enqueue_in(timedelta(hours=-1), jobs.note, job_id="due")
    on.queue.enqueue_in(timedelta(hours=1), jobs.note, job_id="later")


ORDER = [
    Scenario("several", several),
    Scenario("several that fail", lambda on: [on.put(i, jobs.fail) for i in "abc"]),
    Scenario("mixed", mixed),
    Scenario("mixed, blocking", mixed, {"max_jobs": 7}, burst=False),
    Scenario("at front", lambda on: [on.put(i, jobs.note, at_front=True) for i in "abc"]),
    Scenario(
        "retry at front",
        lambda on: [
            on.put("a", jobs.fail_until, 2, retry=Retry(1, enqueue_at_front=True)),
            several(on),
        ],
    ),
    Scenario(
        "retry at the back",
        lambda on: [on.put("a", jobs.fail_until, 2, retry=Retry(1)), several(on)],
    ),
    Scenario(
        "repeat among others", lambda on: [on.put("r", jobs.note, repeat=Repeat(2)), several(on)]
    ),
    Scenario("two queues", on_each, TWO),
    Scenario("three queues", on_each, THREE),
    Scenario("three queues, looking", lambda on: on_each(on, looking=True), THREE),
    Scenario("three queues, blocking", on_each, {**THREE, "max_jobs": 6}, burst=False),
    Scenario("round robin", on_each, {**THREE, "dequeue_strategy": "round_robin"}),
    Scenario("random", at_random, {**THREE, "dequeue_strategy": "random"}),
    Scenario(
        "queue with an odd name", lambda on: on.put("a", jobs.look), {"queues": ("a:b c\u00e9",)}
    ),
    Scenario("job on a foreign queue", on_a_foreign_queue, TWO),
    Scenario("max jobs", one_at_a_time, {"max_jobs": 2}),
    Scenario("suspended", suspended),
    Scenario("same id twice", twice),
    Scenario("unique", unique),
    Scenario(
        "done, and still on the queue",
        lambda on: [on.put("a", jobs.note), on.client.rpush(on.queue.key, "a")],
    ),
    Scenario("ids without jobs", gone_then_cleaned),
    Scenario(
        "ids without jobs, two queues",
        lambda on: [on_each(on), on.client.delete("rq:job:high0")],
        TWO,
    ),
    Scenario("enqueue_many", enqueue_many),
    Scenario("scheduled, no scheduler", scheduled),
    Scenario("scheduled", scheduled, with_scheduler=True),
]

RELATED = [
    Scenario("group", lambda on: grouped(on, "a", "b")),
    Scenario("group that fails", lambda on: grouped(on, "a", "b", function=jobs.fail)),
    Scenario("group, result ttl 0", regrouped),
    Scenario("one dependent", lambda on: pair(on, jobs.note)),
    Scenario("one dependent, result ttl 0", lambda on: pair(on, jobs.note, result_ttl=0)),
    Scenario("one dependent, result ttl -1", lambda on: pair(on, jobs.note, result_ttl=-1)),
    Scenario("many dependents", star),
    Scenario("chain", chain),
    Scenario("chain, result ttl 0", lambda on: chain(on, result_ttl=0)),
    Scenario("diamond", lambda on: diamond(on, jobs.add)),
    Scenario("diamond with a failure", lambda on: diamond(on, jobs.fail)),
    Scenario("diamond, failure allowed", lambda on: diamond(on, jobs.fail, allow_failure=True)),
    Scenario("dependent of a failure", lambda on: pair(on, jobs.fail)),
    Scenario("dependents of a failure", lambda on: star(on, jobs.fail)),
    Scenario("failure allowed", lambda on: pair(on, jobs.fail, how=allow(allow_failure=True))),
    Scenario(
        "failure allowed, retried",
        lambda on: pair(on, jobs.fail, how=allow(allow_failure=True), retry=Retry(1)),
    ),
    Scenario(
        "failure allowed, asks again in vain",
        lambda on: pair(on, jobs.ask_again, 1, how=allow(allow_failure=True)),
    ),
    Scenario("dependent of a retry", lambda on: pair(on, jobs.fail_until, 2, retry=Retry(max=1))),
    Scenario("dependent of a repeat", lambda on: pair(on, jobs.note, repeat=Repeat(times=1))),
    Scenario(
        "dependent at front", lambda on: pair(on, jobs.note, how=allow(enqueue_at_front=True))
    ),
    Scenario("dependent and callbacks", lambda on: pair(on, jobs.note, **jobs.CALLBACKS)),
    Scenario(
        "dependent and broken callback",
        lambda on: pair(on, jobs.note, on_success=Callback(jobs.on_any_broken)),
    ),
    Scenario("dependents across queues", across, TWO),
    Scenario("dependent elsewhere", elsewhere),
    Scenario("dependent cancelled", cancelled_dependent),
    Scenario("depends on the done", depends_on_the_done),
    Scenario("cancelled", cancelled),
    Scenario("cancelled, dependents go on", lambda on: cancelled(on, enqueue_dependents=True)),
    Scenario("cancelled and still on the queue", lambda on: cancelled(on, still_queued=True)),
]

MEDDLED = [
    Scenario("sends another", lambda on: [on.put("a", jobs.send, "b"), on.put("c", jobs.note)]),
    Scenario(
        "sends another to the front",
        lambda on: [
            on.put("a", f"{jobs.HERE}.send", args=("b",), kwargs={"at_front": True}),
            several(on),
        ],
    ),
    Scenario(
        "sends another to a better queue",
        lambda on: [on.put("a", jobs.send, "b", "high", queue="low"), several(on, queue="low")],
        TWO,
    ),
    Scenario(
        "sends its own dependent",
        lambda on: [on.put("a", jobs.send_dependent, "b"), on.put("c", jobs.note)],
    ),
    Scenario(
        "cancels the next",
        lambda on: [on.put("a", jobs.cancel, "b"), on.put("b", jobs.note), on.put("c", jobs.note)],
    ),
    Scenario(
        "cancels its dependent",
        lambda on: [on.put("a", jobs.cancel, "b"), on.put("b", jobs.note, depends_on="a")],
    ),
    Scenario(
        "deletes the next",
        lambda on: [on.put("a", jobs.delete, "b"), on.put("b", jobs.note), on.put("c", jobs.note)],
    ),
    Scenario(
        "rewrites the next", lambda on: [on.put("a", jobs.rewrite, "b"), on.put("b", jobs.note)]
    ),
    Scenario("suspends all", lambda on: [on.put("a", jobs.suspend_all), on.put("b", jobs.note)]),
]

MANY_JOBS = [*ORDER, *RELATED, *MEDDLED]
