"""The options of ``pysplash start``: flag, environment variable, key in a config module.

One table, so that command line, environment, config module and reference cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pysplash.config import ON_CRASH

#: what the help of a pool's command ends with
EPILOG = """
\b
Examples:
  pysplash default --max-cpu 80
  pysplash -u redis://localhost:6379/0 --min-procs 1 --max-procs 8 high default
  pysplash start --embedded --record run.jsonl default
  pysplash demo
  pysplash call add 5 6
  pysplash plot run.jsonl run.png
  pysplash replay run.jsonl --max-cpu 60
\b
Exit status: 0 clean, 1 setup or connection, 2 usage, 3 workers cannot start,
4 import, 5 crash loop, 6 unsafe bind refused; of a call: 7 the task failed,
8 no answer in time, 9 nobody serves it.
"""


def key(option: click.Option) -> str:
    """Return an option's key in a config module: its first long flag in capitals."""
    long = next(flag for flag in option.opts if flag.startswith("--"))
    return long.removeprefix("--").replace("-", "_").upper()


def _option(*flags: str, name: str, **details: Any) -> click.Option:
    shown = details.get("default") is not None
    option = click.Option([*flags, name], show_default=shown, show_envvar=True, **details)
    option.envvar = option.envvar or f"PYSPLASH_{key(option)}"
    return option


#: where Redis is and which classes to use: RQ's own flags and variables
CONNECTION = (
    _option("-u", "--url", name="url", envvar="RQ_REDIS_URL", help="URL of the Redis server."),
    _option("-c", "--config", name="config", envvar="RQ_CONFIG", help="Module with settings."),
    _option(
        "--embedded/--no-embedded",
        name="embedded",
        default=False,
        help="Start a private server for this run; needs pysplash[embedded].",
    ),
    _option(
        "-w",
        "--worker-class",
        name="worker_class",
        envvar="RQ_WORKER_CLASS",
        default="pysplash.worker.Worker",
        help="Worker class.",
    ),
    _option(
        "-j",
        "--job-class",
        name="job_class",
        envvar="RQ_JOB_CLASS",
        default="rq.job.Job",
        help="Job class.",
    ),
    _option(
        "--queue-class",
        name="queue_class",
        envvar="RQ_QUEUE_CLASS",
        default="rq.queue.Queue",
        help="Queue class.",
    ),
    _option(
        "--connection-class",
        name="connection_class",
        envvar="RQ_CONNECTION_CLASS",
        default="redis.Redis",
        help="Redis client class.",
    ),
    _option(
        "-P", "--path", name="path", default=["."], multiple=True, help="Import path, repeatable."
    ),
    _option("-S", "--serializer", name="serializer", help="json, pickle or an import path."),
)

#: how many workers
SCALING = (
    _option("--min-procs", name="min_procs", type=int, default=1, help="Fewest workers."),
    _option("--max-procs", name="max_procs", type=int, default=128, help="Most workers."),
    _option(
        "-n",
        "--num-workers",
        name="num_workers",
        type=int,
        help="Exactly so many workers: fixes --min-procs and --max-procs.",
    ),
    _option(
        "--max-per-scale",
        name="max_per_scale",
        type=int,
        default=8,
        help="Most workers added by one step.",
    ),
    _option(
        "--scale-frequency",
        name="scale_frequency",
        type=float,
        default=2.0,
        help="Seconds between two steps.",
    ),
    _option(
        "--quiet-period",
        name="quiet_period_seconds",
        type=float,
        default=2.0,
        help="Seconds without a further change after any change.",
    ),
    _option(
        "--max-cpu",
        name="max_cpu",
        type=float,
        default=80.0,
        help="Per cent of the cores in reach, 1 to 100.",
    ),
    _option(
        "--max-mem",
        name="max_mem",
        type=float,
        default=80.0,
        help="Per cent of the memory in reach, 1 to 100.",
    ),
    _option(
        "--mem-budget", name="mem_budget", help="Most memory for the pool's processes, as in 2GB."
    ),
    _option(
        "--throttle/--no-throttle",
        name="throttle",
        default=True,
        help="Pause the newest workers for parts of a tenth of a second, to keep --max-cpu.",
    ),
    _option(
        "--retire-idle/--no-retire-idle",
        name="retire_idle",
        default=True,
        help="Stop idle workers.",
    ),
    _option(
        "--idle-seconds",
        "--max-idle-time",
        name="idle_seconds",
        type=float,
        default=15.0,
        help="Seconds a worker idles before it is stopped.",
    ),
)

#: what hangs, what crashes, what is worn out
CARE = (
    _option(
        "--zombie-timeout",
        name="zombie_timeout",
        type=float,
        default=400.0,
        help="Seconds without a sign of life that make a zombie.",
    ),
    _option(
        "--terminate-seconds",
        name="terminate_seconds",
        type=float,
        default=25.0,
        help="Seconds between a stop and the kill.",
    ),
    _option(
        "--on-crash",
        name="on_crash",
        default="fail",
        type=click.Choice(ON_CRASH),
        help="What to do with a job whose worker died.",
    ),
    _option("--max-jobs", name="max_jobs", type=int, help="Jobs after which a worker is replaced."),
    _option(
        "--max-job-memory",
        name="max_job_memory",
        help="Growth after which a worker is replaced, as in 200MB.",
    ),
    _option(
        "--max-age", name="max_age", type=float, help="Seconds after which a worker is replaced."
    ),
    _option(
        "--max-age-delta",
        name="max_age_delta",
        type=float,
        default=0.0,
        help="Most seconds added at random to --max-age.",
    ),
    _option(
        "--max-nesting",
        name="max_nesting",
        type=int,
        default=100,
        help="Nesting depth from which other workers are preferred; at ten times it, jobs fail.",
    ),
)

#: how work is done
WORK = (
    _option("--preload", name="preload", multiple=True, help="Module to import before forking."),
    _option(
        "--handler",
        name="handlers",
        multiple=True,
        help="module:function from bytes to bytes to serve as a task, repeatable.",
    ),
    _option("--param", name="params", multiple=True, help="key=value for setup hooks, repeatable."),
    _option("-b", "--burst/--no-burst", name="burst", default=False, help="End when all is done."),
    _option(
        "-s",
        "--with-scheduler/--without-scheduler",
        name="with_scheduler",
        default=False,
        help="Run RQ's scheduler too.",
    ),
    _option("--record", name="record", help="File that gets one JSON line a tick."),
    _option("--name", name="name", help="Name of the pool."),
    _option(
        "--results-ttl",
        name="results_ttl",
        type=int,
        default=500,
        help="Seconds a result is kept by default.",
    ),
    _option(
        "--worker-ttl",
        name="worker_ttl",
        type=int,
        default=420,
        help="Seconds a silent worker's key is kept.",
    ),
    _option(
        "--maintenance-interval",
        name="maintenance_interval",
        type=int,
        default=600,
        help="Seconds between two cleanings of RQ's registries.",
    ),
    _option(
        "--job-monitoring-interval",
        name="job_monitoring_interval",
        type=int,
        default=30,
        help="Seconds between two heartbeats of a forked job.",
    ),
    _option(
        "-ds",
        "--dequeue-strategy",
        name="dequeue_strategy",
        default="default",
        type=click.Choice(["default", "round_robin", "random"]),
        help="Order in which queues are served.",
    ),
    _option(
        "--exception-handler",
        name="exception_handlers",
        multiple=True,
        help="Import path of an exception handler, repeatable.",
    ),
    _option(
        "-d",
        "--disable-default-exception-handler",
        name="disable_default_exception_handler",
        is_flag=True,
        default=False,
        help="Do not put failed jobs into the registry.",
    ),
)

#: what is said
LOGGING = (
    _option("-v", "--verbose", name="verbose", is_flag=True, default=False, help="Log more."),
    _option("-q", "--quiet", name="quiet", is_flag=True, default=False, help="Log less."),
    _option(
        "-l",
        "--logging-level",
        "--logging_level",
        name="logging_level",
        default="INFO",
        type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
        help="Level of the log.",
    ),
    _option("--log-format", name="log_format", default="%(asctime)s %(message)s", help="Format."),
    _option("--date-format", name="date_format", default="%H:%M:%S", help="Format of times."),
    _option(
        "--disable-job-desc-logging",
        name="disable_job_desc_logging",
        is_flag=True,
        default=False,
        help="Do not log functions and arguments of jobs.",
    ),
    _option("--pid", name="pid", help="File that gets the process id."),
)

GROUPS: tuple[tuple[str, tuple[click.Option, ...]], ...] = (
    ("Connection", CONNECTION),
    ("Scaling", SCALING),
    ("Care", CARE),
    ("Work", WORK),
    ("Logging", LOGGING),
)


def start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command every setting of a pool."""
    attached = getattr(command, "__click_params__", [])
    attached.extend(option for _, options in reversed(GROUPS) for option in reversed(options))
    command.__click_params__ = attached  # type: ignore[attr-defined]
    return command
