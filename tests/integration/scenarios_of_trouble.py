"""Scenarios in which somebody's hand has been in the database, often that of the job itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

from rq.webhook import Webhook

from tests.waiting import wait_until

from . import scenario_jobs as jobs
from .scenarios import CLOSED, one
from .snapshot import take
from .staging import Scenario, Stage

LONG_AGO = "2001-02-03T04:05:06.000007Z"


def lose_my_hash() -> None:
    """Lose the hash of the running job, and nothing else of it."""
    jobs.me().connection.delete(jobs.me().key)


def cancel_me() -> None:
    """Cancel the running job."""
    jobs.me().cancel()


def age_me(fails: bool) -> None:
    """Make the running job look as if nobody had heard of it for long."""
    job = jobs.me()
    job.connection.hset(job.key, mapping=dict.fromkeys(("last_heartbeat", "started_at"), LONG_AGO))
    if fails:
        jobs.fail()


def age_my_worker() -> None:
    """Make the worker look as if nobody had heard of it for long."""
    job = jobs.me()
    job.connection.hset(f"rq:worker:{job.worker_name}", "last_heartbeat", LONG_AGO)


def set_my_status(status: str) -> None:
    """Write a status over the running job's."""
    jobs.me().connection.hset(jobs.me().key, "status", status)


def hire_a_webhook() -> None:
    """Give the running job a webhook."""
    jobs.me().webhooks.append(Webhook(CLOSED, "finished", timeout=1))


def tampered(on: Stage, field: str, value: str | None) -> None:
    """Enqueue two jobs and change or remove a field of the first one's hash."""
    job = on.put("a", jobs.look)
    on.put("b", jobs.look)
    if value is None:
        on.client.hdel(job.key, field)
    else:
        on.client.hset(job.key, field, value)


def aged_worker(on: Stage) -> None:
    """Age the worker, look at it, age it again."""
    on.put("a", age_my_worker)
    on.put("b", jobs.look)
    on.put("c", age_my_worker)


def watched(on: Stage) -> Iterator[None]:
    """Look at a worker that has done one job and waits for another."""

    def watch() -> None:
        worker = "rq:worker:w1"
        wait_until(lambda: on.client.hget(worker, "successful_job_count"), 30, "a job done")
        # RQ says that it is idle, and only then how long this may last
        with suppress(AssertionError):
            wait_until(lambda: on.client.ttl(worker) > 420, 30, "a settled worker")
        jobs.SEEN.append(take(on.client))
        on.put("b", jobs.note)

    on.put("a", jobs.note)
    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


def heir(on: Stage) -> None:
    """Let a worker take the name of one that has died and left more behind than RQ's do."""
    on.client.hset("rq:worker:w1", mapping={"death": LONG_AGO, "heirloom": "1", "current_job": "x"})
    on.put("a", jobs.note)


def swept(on: Stage) -> None:
    """Leave entries in the registries that are over."""
    for registry in ("finished", "failed", "deferred", "canceled"):
        on.client.zadd(f"rq:{registry}:default", {"over": 1000})
    on.put("a", jobs.note)


def kept_after_all(on: Stage, function: object) -> Iterator[None]:
    """Keep a result for a minute, then run the job again and keep it for ever."""
    on.put("a", function, result_ttl=60, failure_ttl=60)
    yield
    on.put("a", function, result_ttl=-1, failure_ttl=-1)
    yield


def over_and_over(on: Stage) -> None:
    """Run one job until the server drops its oldest results, which it does by the block."""
    for number in range(130):
        on.put("a", jobs.give, number)


TAMPERED = [
    one("loses its hash", lose_my_hash, ttl=100, description="dear to me", failure_ttl=60),
    one("cancels itself", cancel_me),
    one("aged and done", age_me, False),
    one("aged and failed", age_me, True),
    one("sets its status", set_my_status, "canceled"),
    one("changes its ttl", jobs.change_me, kwargs={"ttl": 333}),
    one("changes its arguments", jobs.change_me, kwargs={"args": ["changed"]}),
    one("changes its webhooks", hire_a_webhook),
    one("changes its count of retries", jobs.change_me, number_of_retries=3),
    one("changes its place", jobs.change_me, enqueue_at_front=True),
    one("result ttl -5", jobs.note, result_ttl=-5),
    one("ask again for long", jobs.ask_again, 130),
    Scenario("over and over", over_and_over),
    Scenario("kept after all", lambda on: kept_after_all(on, jobs.note)),
    Scenario("kept after all, failure", lambda on: kept_after_all(on, jobs.fail)),
    Scenario("no timeout stored", lambda on: tampered(on, "timeout", None)),
    Scenario("no origin stored", lambda on: tampered(on, "origin", None)),
    Scenario("no status stored", lambda on: tampered(on, "status", None)),
    Scenario("no time of creation", lambda on: tampered(on, "created_at", None)),
    Scenario("status of old", lambda on: tampered(on, "status", "finished")),
    Scenario("result of old", lambda on: tampered(on, "result", "x")),
    Scenario("aged before", lambda on: tampered(on, "last_heartbeat", LONG_AGO)),
    Scenario("aged worker", aged_worker),
    Scenario("watched while idle", watched, {"max_jobs": 2}, burst=False),
    Scenario("name of the dead", heir),
    Scenario("entries that are over", swept),
]
