"""Monitoring tools, as far as they run without their servers, see the jobs of our worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.version import VERSION

from tests.tools import jobs
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
BEGIN = "import json, sys\nfrom tests.tools.work import work\nurl = sys.argv[1]\n"
#: what no tool is to send to anybody
OFFLINE = {
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "NEW_RELIC_MONITOR_MODE": "false",
    "NEW_RELIC_DEVELOPER_MODE": "true",
    "ELASTIC_APM_DISABLE_SEND": "true",
    "SCOUT_MONITOR": "true",
    "SCOUT_KEY": "none",
    "SCOUT_NAME": "tests",
    "SCOUT_CORE_AGENT_DOWNLOAD": "false",
    "SCOUT_CORE_AGENT_LAUNCH": "false",
}


def environment(**more: str) -> dict[str, str]:
    """Return what processes with tools are to have."""
    return os.environ | OFFLINE | {"PYTHONPATH": str(ROOT)} | more


def lines(program: str, url: str) -> list[Any]:
    """Run *program* on the server at *url*; return what it printed, the jobs' ends first."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program, url],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    assert found[0] == {"statuses": ["finished", "failed"], "result": 1}, done.stderr
    return found[1:]


OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry_instrumentation_rq import RQInstrumentor
kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
failure = None
try:
    RQInstrumentor().instrument()
except AttributeError as error:
    failure = str(error)
work(url)
print(json.dumps([span.name for span in kept.get_finished_spans()]))
print(json.dumps([failure]))
"""


def test_opentelemetry(url: str) -> None:
    """Spans of enqueueing, of the worker and of the job; with RQ 3 it patches a part only."""
    pytest.importorskip("opentelemetry_instrumentation_rq")
    spans, (failure,) = lines(OPENTELEMETRY, url)
    performed = [name for name in spans if "perform" in name.lower()]
    assert len(performed) >= 2, spans
    assert bool(failure) is VERSION.startswith("3."), failure


DATADOG = """
from ddtrace import patch
from ddtrace.trace import TraceFilter, tracer
names = []
class Keep(TraceFilter):
    def process_trace(self, trace):
        names.extend([span.name, span.resource, span.error] for span in trace)
        return None
tracer.configure(trace_processors=[Keep()])
patch(rq=True)
work(url)
print(json.dumps(names))
"""


def test_datadog(url: str) -> None:
    """A span for what the worker does with each job, and one for the job's function."""
    pytest.importorskip("ddtrace")
    (spans,) = lines(DATADOG, url)
    names = [name for name, _, _ in spans]
    assert names.count("rq.worker.perform_job") == 2, spans
    assert names.count("rq.job.perform") == 2, spans
    failed = [error for name, _, error in spans if name == "rq.job.perform"]
    assert failed == [0, 1]


SCOUT = """
import scout_apm.rq
from scout_apm.core.tracked_request import TrackedRequest
import pysplash
seen = []
finish = TrackedRequest.finish
def noting(self):
    seen.append([sorted(self.tags), [each.operation for each in self.complete_spans]])
    return finish(self)
TrackedRequest.finish = noting
class Worker(scout_apm.rq.WorkerMixin, pysplash.Worker):
    pass
work(url, Worker)
print(json.dumps(seen))
"""


def test_scout(url: str) -> None:
    """Its mixin before our worker: a request for each job."""
    pytest.importorskip("scout_apm")
    (seen,) = lines(SCOUT, url)
    assert sum("task_id" in tags for tags, _ in seen) == 2, seen


NEW_RELIC = """
import newrelic.agent
newrelic.agent.initialize()
from tests.tools import jobs
jobs.fine = newrelic.agent.background_task(name="fine")(jobs.fine)
work(url, function="tests.tools.jobs.fine")
print(json.dumps([type(jobs.fine).__name__]))
"""


def test_new_relic(url: str) -> None:
    """It knows no RQ: its decorator around a job's function leaves the job as it was."""
    pytest.importorskip("newrelic")
    lines(NEW_RELIC, url)


ELASTIC = """
import elasticapm
from tests.tools import jobs
client = elasticapm.Client(service_name="tests", disable_send=True, metrics_interval="0s")
ended = []
inner = jobs.fine
def traced(number):
    client.begin_transaction("job")
    with elasticapm.capture_span("fine"):
        value = inner(number)
    ended.append(client.end_transaction("fine", "success").name)
    return value
jobs.fine = traced
work(url, function="tests.tools.jobs.fine")
print(json.dumps(ended))
client.close()
"""


def test_elastic(url: str) -> None:
    """It knows no RQ: a transaction inside a job's function is begun and ended."""
    pytest.importorskip("elasticapm")
    assert lines(ELASTIC, url) == [["fine"]]


def sent(file: Path) -> list[dict[str, Any]]:
    """Return what was flushed to *file*."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("leaves", ["max-jobs", "term"])
def test_sentry_in_a_pool(url: str, redis: Redis, tmp_path: Path, leaves: str) -> None:
    """Each job has its transaction, each error its job; all is flushed before a worker leaves."""
    pytest.importorskip("sentry_sdk")
    queue = Queue("default", connection=redis)
    file = tmp_path / "sent"
    command = [sys.executable, "-m", "pysplash", "start", "-u", url, "-c", "tests.tools.settings"]
    options = ["--max-jobs", "1"] if leaves == "max-jobs" else []
    pool = subprocess.Popen(
        [*command, "--max-procs", "1", *options, "default"],
        cwd=ROOT,
        env=environment(SENT_TO=str(file)),
    )
    try:
        good, bad = queue.enqueue(jobs.fine, 1), queue.enqueue(jobs.broken, 2)
        wait_until(lambda: good.is_finished and bad.is_failed, 30.0)
        if leaves == "max-jobs":
            wait_until(lambda: len(sent(file)) >= 3, 30.0)
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(30.0) == 0
    finally:
        pool.kill()
        pool.wait()
    items = sent(file)
    names = [item["transaction"] for item in items if item["type"] == "transaction"]
    errors = [(item["error"], item["job"]) for item in items if item["type"] == "event"]
    assert sorted(names) == ["tests.tools.jobs.broken", "tests.tools.jobs.fine"]
    assert errors == [("number 2", bad.id)]
