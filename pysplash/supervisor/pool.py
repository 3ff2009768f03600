"""The public class Pool: its settings, checked, and the call that runs it.

The real devices of the supervisor's loop are opened here.
"""

from __future__ import annotations

import logging
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis import Redis
from rq.queue import Queue

from pysplash.application.handlers import handler_path, program
from pysplash.client.pool_id import PoolId, new_run
from pysplash.config import (
    WorkerSettings,
    check_limits,
    check_number,
    check_queues,
    check_worker,
    import_path,
    parse_size,
)
from pysplash.connections.abilities import abilities_of, check_abilities
from pysplash.connections.clients import (
    check,
    check_scripts,
    from_url,
    native,
    own,
    portable,
)
from pysplash.control.model import Limits
from pysplash.errors import ConfigError
from pysplash.log import logger
from pysplash.worker.worker import Worker

from .devices import Devices
from .forkserver.preloading import PRELOADING
from .loop import Supervisor
from .opening import open_devices
from .reporting import Observer

log = logger("pool")

#: seconds within which Redis has to answer at the start
START = 10.0
#: seconds between two signs of life of an idle worker, if that is well within zombie_timeout
IDLE_BEAT = 10.0
Importable = str | type[Any] | Callable[..., Any]


class Pool:
    """As many RQ workers as this machine can bear, and not one more.

    ``Pool(["high", "default"]).start()`` serves the queues, in this order of priority, until it
    is stopped by a signal or :meth:`stop`.

    Where to find Redis: *connection*, a client; or else *url*; or else *host*, *port*, *db* and
    *password*.

    How many workers: between *min_procs* and *max_procs*, at most *max_per_scale* more in one
    step, a step every *scale_frequency* seconds, none within *quiet_period_seconds* of the last
    change. *max_cpu* is per cent of the cores this process may use, *max_mem* per cent of the
    memory it may use (affinity and cgroup limits counted); *mem_budget* is an absolute limit on
    the pool's own processes together, in bytes or as text (``"2GB"``). With *throttle* the newest
    busy workers are held for parts of a tenth of a second, so that the CPU stays at *max_cpu*
    whatever part of the machine one worker is (Linux, PySplash's own worker). With *retire_idle* a
    worker that idled for *idle_seconds* leaves.

    What hangs: a worker without a sign of life for *zombie_timeout* seconds is asked to stop,
    and killed after *terminate_seconds* more; a job that ignores its own timeout is killed with
    its worker 5 s after it. *on_crash* says what becomes of a job whose worker died under it:
    ``"fail"`` (RQ's ``Retry`` is honoured) or ``"requeue"``.

    Workers are recycled, between jobs, after *max_jobs* jobs, *max_job_memory* bytes of growth, or
    *max_age* seconds plus a random part of *max_age_delta*. From *max_nesting* jobs that run
    inside one another, a job that waits first looks for another worker; ten times as many are
    :class:`~pysplash.errors.NestedTooDeeply`. Modules named in *preload* are
    imported once, before the workers are forked; what they register with ``@task`` is published.
    ``"__main__"`` among them is the program itself, guarded by ``if __name__ == "__main__"``.
    *config* names a module that is imported before all these; its ``DICT_CONFIG`` sets up logging.
    *handlers* are functions from bytes to bytes, or their places ``"module:function"``, that are
    served as tasks of base64 text named ``module.function``.
    *params* are handed to ``@setup`` hooks. *burst* ends the pool when all work is done;
    *with_scheduler* adds RQ's scheduler; *record* names a file that gets one JSON line a tick.
    *logging_level* (None: as logging is set up) and *log_job_description* are the workers'.
    *observer* is called after each tick with the view and the decision. *devices* replaces the
    world, for tests.

    Raises :class:`~pysplash.errors.ConfigError` for a setting that is wrong. What users liked in
    the first PySplash is kept: the positional arguments, and a launcher script of three lines.
    """

    def __init__(
        self,
        queues: Iterable[str | Queue],
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        password: str | None = None,
        zombie_timeout: float = 400,
        *,
        connection: Redis | None = None,
        url: str | None = None,
        name: str | None = None,
        min_procs: int = 1,
        max_procs: int = 128,
        max_per_scale: int = 8,
        scale_frequency: float = 2.0,
        quiet_period_seconds: float = 2.0,
        terminate_seconds: float = 25.0,
        max_cpu: float = 80.0,
        max_mem: float = 80.0,
        mem_budget: int | str | None = None,
        throttle: bool = True,
        retire_idle: bool = True,
        idle_seconds: float = 15.0,
        max_jobs: int | None = None,
        max_job_memory: int | str | None = None,
        max_age: float | None = None,
        max_age_delta: float = 0,
        max_nesting: int = 100,
        config: str | None = None,
        preload: Iterable[str] = (),
        handlers: Iterable[str | Callable[[bytes], bytes]] = (),
        params: Mapping[str, str] | None = None,
        on_crash: str = "fail",
        burst: bool = False,
        with_scheduler: bool = False,
        record: str | Path | None = None,
        worker_class: Importable = "pysplash.worker.Worker",
        job_class: Importable | None = None,
        queue_class: Importable | None = None,
        serializer: Importable | None = None,
        exception_handlers: Iterable[Importable] = (),
        disable_default_exception_handler: bool = False,
        logging_level: str | None = "WARNING",
        log_job_description: bool = True,
        log_format: str = "%(asctime)s %(message)s",
        date_format: str = "%H:%M:%S",
        results_ttl: int = 500,
        worker_ttl: int = 420,
        maintenance_interval: int = 600,
        job_monitoring_interval: int = 30,
        dequeue_strategy: str = "default",
        observer: Observer | None = None,
        devices: Devices | None = None,
    ) -> None:
        named = _Queues(queues)
        given = named.connection if connection is None else connection
        self.connection = native(_connection(given, url, host, port, db, password))
        self.name = name or default_name()
        self.limits = check_limits(
            Limits(
                min_procs=min_procs,
                max_procs=max_procs,
                max_per_scale=max_per_scale,
                scale_frequency=scale_frequency,
                quiet_period=quiet_period_seconds,
                terminate=terminate_seconds,
                zombie_timeout=zombie_timeout,
                max_cpu=max_cpu,
                max_mem=max_mem,
                mem_budget=None if mem_budget is None else parse_size(mem_budget, "mem_budget"),
                throttle=throttle and _can_throttle(worker_class),
                retire_idle=retire_idle,
                idle_seconds=idle_seconds,
                burst=burst,
            )
        )
        self.settings = check_worker(
            WorkerSettings(
                queues=check_queues(named.names),
                address=portable(self.connection),
                pool=self.name,
                run=new_run(),
                worker_class=import_path(worker_class, "worker class"),
                job_class=import_path(job_class or named.job_class, "job class"),
                queue_class=import_path(queue_class or named.queue_class, "queue class"),
                serializer=_serializer(serializer or named.serializer),
                exception_handlers=tuple(
                    import_path(handler, "exception handler") for handler in exception_handlers
                ),
                disable_default_exception_handler=disable_default_exception_handler,
                log_job_description=log_job_description,
                logging_level=logging_level,
                log_format=log_format,
                date_format=date_format,
                results_ttl=results_ttl,
                worker_ttl=worker_ttl,
                maintenance_interval=maintenance_interval,
                job_monitoring_interval=job_monitoring_interval,
                dequeue_strategy=dequeue_strategy,
                max_jobs=max_jobs,
                max_job_memory=(
                    None if max_job_memory is None else parse_size(max_job_memory, "max_job_memory")
                ),
                max_age=max_age,
                max_age_delta=max_age_delta,
                max_nesting=max_nesting,
                on_crash=on_crash,
                idle_beat=_idle_beat(zombie_timeout),
                params=tuple((str(name), str(value)) for name, value in (params or {}).items()),
            )
        )
        self._config = config
        self._preload = check_preload(preload) + tuple(handler_path(one) for one in handlers)
        self._on_crash = on_crash
        self._record = record
        self._with_scheduler = with_scheduler
        self._observer = observer
        self._devices = devices
        self._supervisor: Supervisor | None = None

    def start(self) -> int:
        """Run the pool until it is stopped; return the exit status, 0.

        Blocks. Signals are answered if this is the main thread: first TERM or INT a warm stop,
        second a cold one, QUIT a cold one at once, HUP a rolling restart, TTIN and TTOU one
        worker more or fewer as a floor.

        Raises :class:`~pysplash.errors.ConnectionFailed` if Redis does not answer at the start;
        :class:`~pysplash.errors.ImportFailed`, :class:`~pysplash.errors.WorkerBootError` or
        :class:`~pysplash.errors.CrashLoop` if workers cannot be kept alive.
        """
        PRELOADING.check_start()
        devices = self._devices
        if logging.getLogger().handlers and not (self._config or self._preload):
            log.info(
                "logging is set up in this program, not in its workers: "
                "set it up in a module, and give that as config, or preload=['__main__']"
            )
        if devices is None:
            self.settings = replace(self.settings, run=new_run())
            with own(self.connection, START) as asking:
                check(asking)
                check_scripts(asking)
                check_abilities(asking)
                tracking = abilities_of(asking, self.name).tracking
            devices = self._open(tracking)
        supervisor = self._supervisor = self.supervise(devices)
        try:
            return supervisor.run()
        finally:
            self._supervisor = None
            devices.close()

    def stop(self, deadline: float | None = None) -> None:
        """Ask a running pool for a warm stop, from another thread or a signal handler.

        Jobs may finish until *deadline*, on ``time.monotonic()``'s clock; by default for
        ``terminate_seconds``. What still runs then is killed and settled. Does nothing if the
        pool does not run.
        """
        if self._supervisor is not None:
            self._supervisor.stop(deadline)

    def supervise(self, devices: Devices) -> Supervisor:
        """Return the loop over *devices*, for a test to turn by hand."""
        return Supervisor(
            PoolId(self.name, self.settings.run),
            self.limits,
            devices,
            with_scheduler=self._with_scheduler,
            maintenance_interval=self.settings.maintenance_interval,
            observer=self._observer,
        )

    def _open(self, tracking: bool) -> Devices:
        return open_devices(
            self.connection,
            self.settings,
            tracking=tracking,
            slots=self.limits.max_procs,
            preload=self._preload,
            config=self._config,
            terminate=self.limits.terminate,
            on_crash=self._on_crash,
            record=self._record,
            limits=self.limits if self.limits.throttle else None,
        )


class _Queues:
    """Names, classes and the connection of queues that are given as names or as RQ's objects."""

    def __init__(self, queues: Iterable[str | Queue]) -> None:
        given = [queues] if isinstance(queues, str | Queue) else list(queues)
        objects = [queue for queue in given if isinstance(queue, Queue)]
        self.names = [queue.name if isinstance(queue, Queue) else queue for queue in given]
        first = objects[0] if objects else None
        self.connection: Redis | None = first.connection if first else None
        self.queue_class: Importable = type(first) if first else "rq.queue.Queue"
        self.job_class: Importable = first.job_class if first else "rq.job.Job"
        self.serializer: Any = first.serializer if first else None


def _connection(
    connection: Redis | None, url: str | None, host: str, port: int, db: int, password: str | None
) -> Redis:
    if connection is not None:
        return connection
    if url is not None:
        return from_url(url)
    check_number("port", port, 1, 65535, whole=True)
    check_number("db", db, 0, whole=True)
    return Redis(host=host, port=port, db=db, password=password)


def _serializer(serializer: Any) -> str | None:
    if serializer is None or isinstance(serializer, str):
        return serializer
    if isinstance(serializer, type) or callable(serializer):
        return import_path(serializer, "serializer")
    name = getattr(serializer, "__name__", None)
    if name is None:
        raise ConfigError(f"serializer {serializer!r} has no import path: give a class or its path")
    return str(name)


def check_preload(modules: Iterable[str]) -> tuple[str, ...]:
    """Return the names of modules to preload; raise ConfigError for an invalid one."""
    names = (modules,) if isinstance(modules, str) else tuple(modules)
    if not PRELOADING.active:  # else this is the program itself, loaded by its fork server
        names = tuple(program() if name == "__main__" else name for name in names)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"preload {name!r} is no module name: give one such as myapp.jobs")
    return names


def _can_throttle(worker_class: Importable) -> bool:
    """Return whether workers of this class may be throttled: only ours correct their timeouts."""
    known = ("pysplash.worker.Worker", "pysplash.Worker")
    ours = isinstance(worker_class, type) and issubclass(worker_class, Worker)
    return sys.platform == "linux" and (ours or worker_class in known)


def _idle_beat(zombie_timeout: float) -> float:
    """Return the seconds between two signs of life of an idle worker.

    Where the kernel does not end workers with their fork server they look each second whether it
    is there.
    """
    return min(IDLE_BEAT, zombie_timeout / 3) if sys.platform == "linux" else 1.0


def default_name() -> str:
    """Return a unique name for a pool: the host's name and six random hexadecimal digits."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:24]
    return f"{host or 'pool'}-{secrets.token_hex(3)}"
