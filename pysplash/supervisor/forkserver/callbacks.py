"""A callback process: runs what is to be called for one job that failed as its worker died."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from types import MappingProxyType

from pysplash.application.registry import REGISTRY
from pysplash.config import WorkerSettings
from pysplash.connections.outage import patiently
from pysplash.jobs.abandoned import AbandonedJob, announce_abandoned, call_back, restored
from pysplash.jobs.rq import call_back_stop, enter, leave

from .boot import build_worker, connect

#: seconds a callback run from the command line gets beyond its timeout, for its imports
IMPORTS = 60.0
_MAIN = """\
import sys
sys.path[:] = {path!r}
from pysplash.supervisor.forkserver.callbacks import main
main()
"""


def run_callbacks(settings: WorkerSettings, name: str, abandoned: AbandonedJob) -> None:
    """Call the failure callback, the exception handlers and the listeners of one job.

    The process is set up as a worker is. It ignores TERM: it ends by itself, or is killed.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["RQ_JOB_ID"] = abandoned.id
    os.environ["PYSPLASH_POOL"] = settings.pool
    connection = connect(settings, name)
    worker = patiently(lambda: build_worker(settings, name, connection))
    params = MappingProxyType(dict(settings.params))
    REGISTRY.set_up(params)
    try:
        job = restored(abandoned, worker.job_class, connection, worker.serializer)
        entered = enter(job)
        try:
            if abandoned.stopped:
                call_back_stop(job, worker.death_penalty_class)
            else:
                call_back(job, worker._exc_handlers, worker.death_penalty_class, abandoned.text)
        finally:
            leave(entered)
        why, worker_name, seconds = abandoned.text, abandoned.worker, abandoned.seconds
        ended = {"retried": abandoned.retried, "stopped": abandoned.stopped}
        announce_abandoned(job, why, worker_name, seconds, **ended)
    finally:
        REGISTRY.tear_down(params)


def run_apart(settings: WorkerSettings, abandoned: AbandonedJob) -> str:
    """Do so in a process of its own, without a pool; return what went wrong, "" if nothing."""
    code = _MAIN.format(path=sys.path)
    seconds = abandoned.callback_timeout + IMPORTS
    told = pickle.dumps((settings, abandoned))
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code], input=told, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {seconds:.0f} s"
    return f"exit status {ended.returncode}" if ended.returncode else ""


def main() -> None:
    """Run what standard input names."""
    settings, abandoned = pickle.load(sys.stdin.buffer)
    run_callbacks(settings, f"callbacks-{abandoned.id}", abandoned)
