"""Heartbeats and commands on a real server."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from rq import Queue
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_job_command,
)
from rq.executions import Execution
from rq.job import Job

from pysplash.jobs.commands import CHANNEL, Command, CommandListener
from pysplash.supervisor.heartbeats import LEASE, MOST, Heartbeats, Pulse
from tests.generation import since_3
from tests.malformed import MESSAGES
from tests.waiting import wait_until

from .rq_life import square

TTL = 480


@pytest.fixture
def started(queue: Queue) -> tuple[Job, Execution]:
    """Return a job that RQ has registered as started, and its execution."""
    job = queue.enqueue(square, 2)
    queue.remove(job)
    with queue.connection.pipeline() as pipe:
        execution = Execution.create(job, 10, pipe)
        pipe.execute()
    return job, execution


def score(redis: Redis, key: str, member: str) -> float:
    """Return a member's score; 0 if there is none."""
    return redis.zscore(key, member) or 0.0


def test_what_lives_is_renewed(redis: Redis, started: tuple[Job, Execution]) -> None:
    """The worker's key, the execution, both registries and the job get their new times."""
    job, execution = started
    redis.hset("rq:worker:w", mapping={"state": "busy", "last_heartbeat": "old"})
    redis.expire("rq:worker:w", 5)
    before = time.time()
    Heartbeats(redis, TTL).send([Pulse("w", job.id, execution.id)])

    assert redis.ttl("rq:worker:w") == TTL
    assert redis.hget("rq:worker:w", "last_heartbeat") != b"old"
    assert redis.ttl(execution.key) == LEASE
    assert float(redis.hget(execution.key, "last_heartbeat") or 0) >= before
    lease = score(redis, "rq:wip:default", f"{job.id}:{execution.id}")
    assert before + LEASE - 1 <= lease <= time.time() + LEASE
    assert score(redis, f"rq:executions:{job.id}", execution.id) == lease + 60
    job.refresh()
    assert job.last_heartbeat
    assert job.last_heartbeat.timestamp() >= before - 1


@since_3
def test_what_a_worker_is_at_lives_as_long_as_its_key(redis: Redis) -> None:
    """RQ 3's set of a worker's executions is renewed with the worker."""
    redis.hset("rq:worker:w", "state", "busy")
    redis.sadd("rq:worker:w:executions", "job:execution")
    for key in ("rq:worker:w", "rq:worker:w:executions"):
        redis.expire(key, 5)
    Heartbeats(redis, TTL).send([Pulse("w", "job", "execution")])

    assert redis.ttl("rq:worker:w:executions") == TTL


def test_all_that_runs_inside_one_another_is_renewed(
    redis: Redis, queue: Queue, started: tuple[Job, Execution]
) -> None:
    """The jobs on a worker's stack, and whom they wait for, are renewed with the outermost."""
    outer, execution = started
    inner = queue.enqueue(square, 3, job_id="inner")
    with redis.pipeline() as pipe:
        other = Execution.create(inner, 10, pipe)
        for job, held in ((outer, execution), (inner, other)):
            pipe.rpush("pysplash:stack:w", f"{job.id}:{held.id}")
        pipe.sadd(f"pysplash:waits:{outer.id}", inner.id)
        pipe.expire(f"pysplash:waits:{outer.id}", 10)
        pipe.execute()
    Heartbeats(redis, TTL).send([Pulse("w", outer.id, execution.id)])

    keys = (execution.key, other.key, f"pysplash:waits:{outer.id}")
    assert [redis.ttl(key) for key in keys] == [LEASE] * 3
    for job, held in ((outer, execution), (inner, other)):
        lease = score(redis, "rq:wip:default", f"{job.id}:{held.id}")
        assert lease > time.time() + LEASE - 5


def test_what_is_gone_stays_gone(redis: Redis, started: tuple[Job, Execution]) -> None:
    """A heartbeat that comes late brings no key back, and no job into a registry."""
    job, execution = started
    redis.delete(execution.key, job.key)
    redis.zrem("rq:wip:default", f"{job.id}:{execution.id}")
    redis.hset("rq:worker:left", mapping={"death": "2026", "last_heartbeat": "old"})
    redis.expire("rq:worker:left", 5)
    keys = sorted(redis.keys())
    Heartbeats(redis, TTL).send([Pulse("never", job.id, execution.id), Pulse("left")])

    assert sorted(redis.keys()) == keys
    assert redis.ttl("rq:worker:left") <= 5
    assert redis.hget("rq:worker:left", "last_heartbeat") == b"old"
    assert redis.zcard("rq:wip:default") == 0


def test_no_lease_is_made_shorter(redis: Redis, started: tuple[Job, Execution]) -> None:
    """What a worker leased for its whole job stays."""
    job, execution = started
    member = f"{job.id}:{execution.id}"
    redis.expire(execution.key, 1000)
    redis.zadd("rq:wip:default", {member: time.time() + 1000})
    Heartbeats(redis, TTL).send([Pulse("w", job.id, execution.id)])

    assert redis.ttl(execution.key) > 900
    assert score(redis, "rq:wip:default", member) > time.time() + 900


def test_many_workers_take_few_calls(redis: Redis) -> None:
    """As many scripts as it takes fifties."""
    names = [f"w{number}" for number in range(2 * MOST + 1)]
    for name in names:
        redis.hset(f"rq:worker:{name}", "state", "idle")
    heartbeats = Heartbeats(redis, TTL)
    heartbeats.send([Pulse(names[0])])
    redis.config_resetstat()
    heartbeats.send([Pulse(name) for name in names])
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 3
    assert all(redis.hexists(f"rq:worker:{name}", "last_heartbeat") for name in names)


def heard(commands: CommandListener, count: int) -> list[Command]:
    """Return the next *count* commands."""
    found: list[Command] = []

    def listen() -> bool:
        found.extend(commands.read())
        return len(found) >= count

    wait_until(listen, 30, f"{count} commands, have {found}")
    return found


def listeners(redis: Redis, name: str) -> int:
    """Return how many hear the commands for a worker."""
    return int(redis.pubsub_numsub(CHANNEL + name)[0][1])


def test_rqs_own_calls_are_heard(redis: Redis, url: str, queue: Queue) -> None:
    """Shutdown, kill-horse and stop-job, for followed workers only."""
    commands = CommandListener(Redis.from_url(url))
    commands.follow(["one", "two"])
    wait_until(lambda: listeners(redis, "two"), 30)
    job = queue.enqueue(square, 2)
    job.worker_name = "two"
    job.save()
    redis.hset("rq:worker:two", "current_job", job.id)
    job.set_status("started")  # type: ignore[arg-type]
    with redis.pipeline() as pipe:
        execution = Execution.create(job, 10, pipe)
        pipe.execute()
    redis.hset(execution.key, "worker_name", "two")

    send_shutdown_command(redis, "one")
    send_kill_horse_command(redis, "stranger")
    send_kill_horse_command(redis, "two")
    send_stop_job_command(redis, job.id)
    assert heard(commands, 3) == [
        Command("one", "shutdown"),
        Command("two", "kill-horse"),
        Command("two", "stop-job", job.id),
    ]
    commands.follow(["two"])
    wait_until(lambda: not listeners(redis, "one"), 30)
    commands.close()


#: the last is one that comes in parts, whatever the machine is doing
@pytest.mark.parametrize("message", [*MESSAGES, b"x" * 30 * 2**20])
def test_what_makes_no_sense_is_passed_over(
    redis: Redis, url: str, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, and the next command is heard."""
    commands = CommandListener(Redis.from_url(url))
    commands.follow(["one"])
    redis.publish(CHANNEL + "one", message)
    send_shutdown_command(redis, "one")
    assert heard(commands, 1) == [Command("one", "shutdown")]
    assert len([r for r in caplog.records if "is not valid" in r.message]) == 1
    commands.close()


def test_a_lost_connection_is_made_again(
    redis: Redis, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CommandListener are heard again after the server has closed the connection."""
    monkeypatch.setattr("pysplash.jobs.commands.PAUSE", 0.05)
    commands = CommandListener(Redis.from_url(url, client_name="commands"))
    commands.follow(["one"])
    wait_until(lambda: listeners(redis, "one"), 30)
    redis.client_kill_filter(_type="pubsub")

    def recovered() -> bool:
        list(commands.read())
        commands.follow(["one"])
        return bool(listeners(redis, "one"))

    wait_until(recovered, 30)
    send_shutdown_command(redis, "one")
    assert heard(commands, 1) == [Command("one", "shutdown")]
    commands.close()
