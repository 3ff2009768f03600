"""Scenarios of what RQ has since 3.0: rate limits, and jobs that are ready to be enqueued."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import rq
from rq import Repeat, Retry
from rq.job import Dependency

from . import scenario_jobs as jobs
from .scenarios import abandon
from .scenarios_of_many import TWO
from .staging import Scenario, Stage

#: RQ 2 has none; there these scenarios are not played
RateLimit: Any = getattr(rq, "RateLimit", None)


def limited(
    on: Stage,
    *ids: str,
    function: Any = jobs.look,
    args: Any = (),
    at_once: int = 1,
    **options: Any,
) -> None:
    """Enqueue jobs of which so many may be queued or run at once."""
    for job_id in ids or "abc":
        on.put(job_id, function, *args, rate_limit=RateLimit("k", at_once), **options)


def beside(on: Stage, **options: Any) -> None:
    """Enqueue jobs under a limit, and others."""
    limited(on, **options)
    for job_id in "xyz":
        on.put(job_id, jobs.note)


def two_limits(on: Stage) -> None:
    """Enqueue jobs under two limits, with two queues."""
    for job_id, key, queue in (("a", "k", "low"), ("b", "k", "high"), ("c", "l", "low")):
        for number in range(2):
            limit = RateLimit(key, 1)
            on.put(f"{job_id}{number}", jobs.note, queue=queue, rate_limit=limit)


def raised(on: Stage) -> None:
    """Allow more than before."""
    limited(on, "a", "b")
    limited(on, "c", at_once=2)


def requeued(on: Stage) -> Iterator[None]:
    """Fail, be requeued by hand, and wait for a slot again."""
    limited(on, "a", function=jobs.fail)
    yield
    limited(on, "b", "c", function=jobs.note)
    on.job("a").requeue()
    yield


def overtime(on: Stage) -> None:
    """Take too long while others wait for the slot."""
    limited(on, "a", function=jobs.nap, args=(5,), job_timeout=1)
    limited(on, "b", "c")


def scheduled(on: Stage) -> None:
    """Come due, under a limit, where the slot is taken and where it is not."""
    for job_id in "ab":
        on.queue.enqueue_in(
            timedelta(hours=-1), jobs.look, job_id=job_id, rate_limit=RateLimit("k", 1)
        )


def meddle(on: Stage, way: str) -> None:
    """Cancel or delete the one that has the slot, and one that waits for it."""
    limited(on, "a", "b", "c", "d", function=jobs.note)
    for job_id in "ac":
        getattr(on.job(job_id), way)()


def cancels_the_next(on: Stage) -> None:
    """Cancel one that waits for a slot from the one that has it."""
    limited(on, "a", function=jobs.cancel, args=("b",))
    limited(on, "b", "c", function=jobs.note)


def abandoned(on: Stage, **options: Any) -> None:
    """Leave a job under a limit as a worker does that is killed in the middle of it."""
    abandon(on, rate_limit=RateLimit("k", 1), **options)
    limited(on, "c")


def leaked(on: Stage) -> None:
    """Leave a slot to a job that is gone; others wait for it."""
    limited(on, "a", "b")
    on.client.delete("rq:job:a", on.queue.key)


def left_ready(on: Stage) -> None:
    """Leave a dependent as a worker does that is killed before it could enqueue it."""
    on.put("a", jobs.note)
    on.put("b", jobs.look, depends_on="a")
    on.client.delete(on.queue.key, "rq:deferred:default")
    on.client.hset("rq:job:a", "status", "finished")
    on.client.hset("rq:job:b", "status", "ready_to_enqueue")
    on.client.zadd("rq:ready:default", {"b": 1, "gone": 2, "a": 3})


def dependents(on: Stage, function: Any) -> None:
    """Have jobs wait for another first, then for a slot."""
    on.put("a", function)
    limited(on, "b", "c", depends_on=Dependency("a", allow_failure=True))


def then(on: Stage, **options: Any) -> None:
    """Have a job wait for one under a limit."""
    limited(on, **options)
    on.put("d", jobs.look, depends_on=Dependency("a", allow_failure=True))


def case(name: str, settings: dict[str, Any] | None = None, **options: Any) -> Scenario:
    """Return the scenario of three jobs under one limit, and three others."""
    return Scenario(f"limit: {name}", lambda on: beside(on, **options), settings or {})


SINCE_3 = [
    case("one at once"),
    case("two at once", at_once=2),
    case("more than there are", at_once=9),
    case("failing", function=jobs.look_and_fail),
    case("at front", at_front=True),
    case("retried", function=jobs.fail_until, args=(2,), retry=Retry(max=2)),
    case("retried later", function=jobs.fail, retry=Retry(max=2, interval=60)),
    case("asking again", function=jobs.ask_once),
    case("asking again later", function=jobs.ask_again, args=(1, 60)),
    case("asking again in vain", function=jobs.ask_again, args=(1,)),
    case("repeated", function=jobs.note, repeat=Repeat(times=1)),
    case("repeated later", function=jobs.note, repeat=Repeat(times=1, interval=60)),
    case("result ttl 0", result_ttl=0),
    case("result ttl -1", result_ttl=-1),
    case("called back", function=jobs.note, **jobs.CALLBACKS),
    case("no serializer takes it", function=jobs.give_lambda),
    case("JSON", {"serializer": "rq.serializers.JSONSerializer"}, function=jobs.note),
    case("deletes itself", function=jobs.delete_me),
    case("own worker ttl", {"worker_ttl": 1000}),
    Scenario("limit: two, on two queues", two_limits, TWO),
    Scenario("limit: raised", raised),
    Scenario("limit: requeued", requeued),
    Scenario("limit: timeout", overtime, pool=False),
    Scenario("limit: scheduled", scheduled, with_scheduler=True),
    Scenario("limit: cancelled", lambda on: meddle(on, "cancel")),
    Scenario("limit: deleted", lambda on: meddle(on, "delete")),
    Scenario("limit: cancels the next", cancels_the_next),
    Scenario("limit: abandoned", abandoned),
    Scenario("limit: abandoned with a retry", lambda on: abandoned(on, retry=Retry(max=2))),
    Scenario("limit: leaked", leaked),
    Scenario("limit: dependents", lambda on: dependents(on, jobs.note)),
    Scenario("limit: dependents of a failure", lambda on: dependents(on, jobs.fail)),
    Scenario("limit: depended on", then),
    Scenario("limit: depended on, failing", lambda on: then(on, function=jobs.fail)),
    Scenario("left ready", left_ready),
]
