"""RQ's tools on a running pool: ``rq info``, rq-dashboard, and RQ's calls from a user's program."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rq_dashboard.web
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Callback, Queue, Worker
from rq.command import send_shutdown_command, send_stop_job_command
from rq.job import Job, JobStatus
from rq.suspension import is_suspended, resume, suspend
from rq.worker import BaseWorker

from tests.acceptance import jobs
from tests.acceptance.command import QUICK, Command, Start
from tests.malformed import MESSAGES
from tests.waiting import wait_until

#: seconds for anything that hangs on the machine having CPU to spare, which other tests use too
ROOM = 30.0
QUEUES = ("high", "default")


class Shop:
    """A pool of two workers, one at work and one idle, and jobs in all states."""

    def __init__(self, command: Command, redis: Redis, folder: Path) -> None:
        self.command = command
        self.redis = redis
        self.gate = folder / "gate"
        self._marks = folder / "marks"
        self.high, self.default = (Queue(name, connection=redis) for name in QUEUES)
        self.pids = command.await_idle(2)
        self.finished = [self.default.enqueue(jobs.mark, str(self._marks)) for _ in range(3)]
        self.failed = self.default.enqueue(jobs.divide, 1, 0)
        for job in (*self.finished, self.failed):
            await_end(job)
        self.started = self.hold()
        self.deferred = self.default.enqueue(jobs.pid, depends_on=self.started)

    def hold(self, **options: Any) -> Job:
        """Return a job that works until the gate is opened."""
        self._marks.write_text("")
        job = self.high.enqueue(jobs.hold, str(self._marks), str(self.gate), **options)
        wait_until(self._marks.read_text, ROOM, "the job at work")
        return job

    def stock(self) -> list[Job]:
        """Return three jobs that wait, because RQ is suspended."""
        suspend(self.redis)
        return [self.default.enqueue(jobs.pid) for _ in range(3)]

    def workers(self) -> dict[int, BaseWorker]:
        """Return the workers RQ sees, by process id."""
        return {worker.pid or 0: worker for worker in Worker.all(connection=self.redis)}

    def busy(self) -> BaseWorker:
        """Return the one worker that works, once no other still says that it does."""

        def working() -> list[BaseWorker]:
            return [w for w in self.workers().values() if w.get_current_job_id()]

        wait_until(lambda: len(working()) == 1, ROOM, "one worker at work")
        (worker,) = working()
        return worker


def await_end(job: Job) -> JobStatus:
    """Return how *job* ended, as soon as it has."""
    ends = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED)
    wait_until(lambda: job.get_status() in ends, ROOM, "the job's end")
    status: JobStatus = job.get_status()
    return status


@pytest.fixture
def shop(pool: Start, redis: Redis, tmp_path: Path) -> Shop:
    """A pool and its goods."""
    return Shop(pool(*QUICK, "-n", "2", *QUEUES), redis, tmp_path)


@pytest.fixture
def dashboard(shop: Shop, url: str) -> Iterator[FlaskClient]:
    """rq-dashboard, asked without a network."""
    app = Flask("dashboard")
    app.config["RQ_DASHBOARD_REDIS_URL"] = url
    web: Any = rq_dashboard.web
    web.setup_rq_connection(app)
    app.register_blueprint(web.blueprint)
    with app.test_client() as client:
        yield client
    app.redis_conn.close()  # type: ignore[attr-defined]


def info(url: str, *options: str) -> list[str]:
    """Return the lines that ``rq info`` prints."""
    command = [sys.executable, "-m", "rq.cli", "info", "-u", url, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ROOM, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_rq_info(shop: Shop, url: str) -> None:
    """Queues, counts and registries; the workers with pid, state, queues and counters."""
    shop.stock()
    queues, workers = info(url, "-r", "-Q"), info(url, "-r", "-W")

    assert sorted(queues) == [
        "queue default 3, 0 executing, 3 finished, 1 failed",
        "queue high 0, 1 executing, 0 finished, 0 failed",
    ]
    seen = {}
    for line in workers:
        match = re.fullmatch(
            r"worker (\S+) \(\S+ \S+ (\d+)\) (busy|idle|suspended) high, default\. "
            r"jobs: (\d+) finished, (\d+) failed",
            line,
        )
        assert match, line
        seen[int(match[2])] = match
    assert sorted(seen) == sorted(shop.pids)
    assert sorted(match[3] for match in seen.values()) == ["busy", "idle"]
    assert sum(int(match[4]) for match in seen.values()) == 3
    assert sum(int(match[5]) for match in seen.values()) == 1
    names = sorted(match[1] for match in seen.values())
    for queue in QUEUES:
        (line,) = info(url, "-r", "-W", "-R", queue)
        assert sorted(re.findall(r"(\S+) \(", line.removeprefix(f"{queue}:"))) == names
    both = info(url, *QUEUES)
    assert "2 queues, 3 jobs total" in both
    assert "2 workers, 2 queues" in both


def test_what_rqs_own_calls_say(shop: Shop) -> None:
    """Worker.all, the current job, positions, registries, executions, dependents."""
    waiting = shop.stock()
    workers = shop.workers()
    assert sorted(workers) == sorted(shop.pids)
    assert Worker.count(connection=shop.redis, queue=shop.high) == 2
    assert {w.get_state() for w in workers.values()} == {"busy", "idle"}
    busy = shop.busy()
    assert busy.get_current_job() == shop.started
    assert busy.queue_names() == list(QUEUES)
    assert Worker.find_by_key(busy.key, connection=shop.redis) == busy

    assert [job.get_position() for job in waiting] == [0, 1, 2]
    assert shop.started.get_position() is None
    assert shop.started.get_status() is JobStatus.STARTED
    shop.started.refresh()
    assert shop.started.worker_name == busy.name
    assert shop.started in shop.high.started_job_registry
    (execution,) = shop.started.get_executions()
    assert execution.composite_key.split(":")[0] == shop.started.id
    assert shop.high.started_job_registry.get_job_ids() == [shop.started.id]
    assert shop.default.deferred_job_registry.get_job_ids() == [shop.deferred.id]
    assert shop.default.failed_job_registry.get_job_ids() == [shop.failed.id]
    assert set(shop.default.finished_job_registry.get_job_ids()) == {j.id for j in shop.finished}

    assert is_suspended(shop.redis)
    shop.gate.touch()
    assert await_end(shop.started) is JobStatus.FINISHED
    assert [job.get_status() for job in waiting] == [JobStatus.QUEUED] * 3
    resume(shop.redis)
    assert [await_end(job) for job in (*waiting, shop.deferred)] == [JobStatus.FINISHED] * 4
    assert sorted(shop.command.workers()) == sorted(shop.pids)


def test_rq_dashboard_shows_it(shop: Shop, dashboard: FlaskClient) -> None:
    """Every page and every table of rq-dashboard, with the same facts."""
    waiting = shop.stock()

    def data(path: str) -> Any:
        reply = dashboard.get(f"/0/data/{path}.json")
        assert reply.status_code == 200, path
        return reply.json

    for page in ("", "queues", "workers", "jobs", f"job/{shop.started.id}"):
        reply = dashboard.get(f"/0/view/{page}" if page else "/", follow_redirects=True)
        assert reply.status_code == 200, page
    queues = {queue["name"]: queue for queue in data("queues")["queues"]}
    counts = ("count", *(f"{name}_job_registry_count" for name in ("started", "deferred")))
    counts += tuple(f"{name}_job_registry_count" for name in ("finished", "failed", "canceled"))
    assert [queues["default"][name] for name in counts] == [3, 0, 1, 3, 1, 0]
    assert [queues["high"][name] for name in counts] == [0, 1, 0, 0, 0, 0]

    workers = {worker["pid"]: worker for worker in data("workers")["workers"]}
    assert sorted(workers) == sorted(shop.pids)
    assert sorted(worker["state"].lower() for worker in workers.values()) == ["busy", "idle"]
    assert sum(worker["successful_job_count"] for worker in workers.values()) == 3
    (current,) = (w["current_job"] for w in workers.values() if w["current_job"] != "idle")
    assert current["job_id"] == shop.started.id
    assert all(worker["queues"] == list(QUEUES) for worker in workers.values())

    for queue, registry, expected in (
        ("default", "queued", waiting),
        ("default", "finished", shop.finished),
        ("default", "failed", [shop.failed]),
        ("default", "deferred", [shop.deferred]),
        ("high", "started", [shop.started]),
    ):
        listed = data(f"jobs/{queue}/{registry}/8/asc/1")["jobs"]
        assert {job["id"] for job in listed} == {job.id for job in expected}, registry
    failed = data(f"job/{shop.failed.id}")
    assert failed["status"] == "failed"
    assert "ZeroDivisionError" in failed["exc_info"]
    shown = data(f"job/{shop.finished[0].id}")
    assert shown["result"] == shop.finished[0].return_value()


def test_rq_dashboard_acts(shop: Shop, dashboard: FlaskClient) -> None:
    """Its buttons: requeue one, requeue all, delete, empty, compact."""

    def press(path: str) -> None:
        reply = dashboard.post(path)
        assert reply.status_code == 200, path
        assert reply.json is not None, path
        assert reply.json["status"] == "OK", path

    before = shop.failed.latest_result()
    press(f"/job/{shop.failed.id}/requeue")
    wait_until(lambda: shop.failed.latest_result() != before, ROOM, "a second failure")
    assert await_end(shop.failed) is JobStatus.FAILED
    press("/requeue/default")
    wait_until(lambda: len(shop.failed.results()) == 3, ROOM, "a third failure")

    deleted, *emptied = shop.stock()
    press(f"/job/{deleted.id}/delete")
    assert shop.default.job_ids == [job.id for job in emptied]
    press("/queue/default/compact")
    press("/queue/default/queued/empty")
    press("/queue/default/failed/empty")
    assert shop.default.count == 0
    assert shop.default.failed_job_registry.get_job_count(cleanup=False) == 0
    assert not Job.exists(shop.failed.id, shop.redis)
    resume(shop.redis)
    shop.gate.touch()
    assert await_end(shop.deferred) is JobStatus.FINISHED


def test_a_job_is_stopped_with_its_callback(shop: Shop) -> None:
    """send_stop_job_command on the waiting, the running, and one that is no longer there."""
    shop.gate.touch()
    await_end(shop.started)
    shop.gate.unlink()
    stopped = shop.hold(on_stopped=Callback(jobs.note_stop))
    name = shop.busy().name
    send_stop_job_command(shop.redis, stopped.id)

    assert await_end(stopped) is JobStatus.STOPPED
    wait_until(lambda: shop.redis.get("stopped") == stopped.id.encode(), ROOM, "the callback")
    assert shop.high.failed_job_registry.get_job_ids() == [stopped.id]
    result = stopped.latest_result()
    assert result is not None
    assert "stopped by user" in str(result.exc_string)
    send_stop_job_command(shop.redis, stopped.id)
    after = shop.high.enqueue(jobs.pid)
    assert await_end(after) is JobStatus.FINISHED
    assert sorted(shop.command.workers()) == sorted(shop.pids)
    assert name in {worker.name for worker in shop.workers().values()}


def test_malformed_commands_change_nothing(shop: Shop) -> None:
    """After a thousand of them pool and workers live, and a shutdown is obeyed."""
    name = shop.busy().name
    idle = next(worker for worker in shop.workers().values() if worker.name != name)
    for message in (*MESSAGES, *[b"nonsense"] * 1000):
        shop.redis.publish(f"rq:pubsub:{name}", message)
    send_shutdown_command(shop.redis, idle.name)

    wait_until(lambda: idle.pid not in shop.command.workers(), ROOM, "the idle worker's end")
    refilled = shop.command.await_workers(2)
    assert shop.started.get_status() is JobStatus.STARTED
    assert shop.busy().name == name
    assert shop.busy().pid in refilled
    assert shop.command.process.poll() is None
    shop.gate.touch()
    assert await_end(shop.started) is JobStatus.FINISHED
    assert len(re.findall("is not valid: expected", shop.command.err)) == 1000 + len(MESSAGES)
