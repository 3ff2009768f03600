"""Every error PySplash raises, in one tree.

SplashError
 + ConfigError            a setting is wrong                          exit status 2
    + LoggingConfigError  the DICT_CONFIG of a config module is wrong  exit status 1
 + ConnectionFailed       no usable Redis at the given address        exit status 1
 + EmbeddedUnavailable    the embedded server cannot be started       exit status 1
 + PlotUnavailable        matplotlib is missing                       exit status 1
 + WorkerBootError        workers cannot start                        exit status 3
 + ImportFailed           a named module, class or function is absent exit status 4
 + CrashLoop              workers or doors die again and again        exit status 5
 + BacklogUnavailable     the queues cannot be read right now
 + LessonsUnavailable     what was learned of jobs cannot be read or saved
 + JobsError              from wait_jobs and map_jobs
    + JobFailed           a child failed, was stopped, cancelled or vanished
    + WouldDeadlock       a job waits for itself, or for one that waits for it
    + NestedTooDeeply     too many jobs would run inside one another
 + UnsafeBind             a door would be open to the world            exit status 6
 + FrameError             bytes that are no frame, or too long a one
 + StageError             a stage's handler returned what cannot be forwarded
    + NotBytes            something other than bytes; a TypeError too
 + ItemLost               somebody else has settled the item a stage works on
 + CoprocessDied          a coprocess ended, or did not answer
 + CallError              from Client and AsyncClient
    + ExecutionError      the task failed, was stopped or cancelled      exit status 7
    + CallTimeout         no answer in time; a TimeoutError too          exit status 8
    + NoWorkerError       nobody alive serves the task                   exit status 9
    + UnknownTask         no pool alive knows a task of this name        exit status 2
    + Busy                a gateway has as much to do as it takes on
    + DoorClosed          a framed door gave no answer
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_CONNECTION = 1
EXIT_USAGE = 2
EXIT_BOOT = 3
EXIT_IMPORT = 4
EXIT_CRASH_LOOP = 5
EXIT_UNSAFE_BIND = 6
EXIT_FAILED = 7
EXIT_TIMEOUT = 8
EXIT_NO_WORKER = 9


class SplashError(Exception):
    """Base of all PySplash errors.

    Raised without a message, an error says what its class docstring says. ``exit_status`` is
    what the command line ends with when the error reaches it.
    """

    exit_status = EXIT_CONNECTION

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).splitlines()[0])


class ConfigError(SplashError, ValueError):
    """A setting is wrong."""

    exit_status = EXIT_USAGE


class LoggingConfigError(ConfigError):
    """The DICT_CONFIG of a config module is wrong; the exit status is RQ's."""

    exit_status = EXIT_CONNECTION


class ConnectionFailed(SplashError):
    """No usable Redis server answers at the given address."""


class EmbeddedUnavailable(SplashError):
    """The embedded server cannot be started."""


class PlotUnavailable(SplashError):
    """A plot cannot be drawn: matplotlib is missing."""


class WorkerBootError(SplashError):
    """Workers cannot start."""

    exit_status = EXIT_BOOT


class ImportFailed(SplashError):
    """A module, class or function named in the settings cannot be imported."""

    exit_status = EXIT_IMPORT


class CrashLoop(SplashError):
    """Workers, or the process of a door, die repeatedly right after they start."""

    exit_status = EXIT_CRASH_LOOP


class BacklogUnavailable(SplashError):
    """The queues cannot be read right now."""


class LessonsUnavailable(SplashError):
    """Lessons learned of jobs cannot be read from Redis, or not saved there."""


class JobsError(SplashError):
    """Base of errors while waiting for jobs."""


class JobFailed(JobsError):
    """A job that was waited for failed, was stopped or cancelled, or vanished.

    ``job`` is the job as it was given to the waiter; ``status`` is its last known RQ status
    (``"failed"``, ``"stopped"``, ``"canceled"`` or ``"vanished"``); ``traceback`` is the text of
    the remote traceback, empty where there is none.
    """

    def __init__(self, job: object, status: str, traceback: str = "") -> None:
        self.job = job
        self.status = status
        self.traceback = traceback
        last_line = traceback.strip().rpartition("\n")[2]
        name = getattr(job, "id", job)
        super().__init__(f"job {name} {status}" + (f": {last_line}" if last_line else ""))

    def __reduce__(self) -> tuple[type[JobFailed], tuple[object, str, str]]:
        return type(self), (self.job, self.status, self.traceback)


class WouldDeadlock(JobsError):
    """A job waits for itself, or for a job that waits for it."""


class NestedTooDeeply(JobsError):
    """Too many jobs would run inside one another."""


class UnsafeBind(SplashError):
    """A door would accept connections from other machines without authentication."""

    exit_status = EXIT_UNSAFE_BIND


class FrameError(SplashError, ValueError):
    """Bytes that are no frame, or a frame that is too long."""


class StageError(SplashError):
    """A stage's handler returned what cannot be forwarded."""


class NotBytes(StageError, TypeError):
    """A stage takes and forwards bytes, nothing else."""


class ItemLost(SplashError):
    """The item a stage works on was settled by another process."""


class CoprocessDied(SplashError):
    """A coprocess ended, or did not answer in time."""


class CallError(SplashError):
    """Base of errors of calls."""


class ExecutionError(CallError):
    """A task that was called failed, was stopped or cancelled, or vanished.

    ``task`` is its name, ``status`` the last known RQ status of its job ``job_id`` (``"failed"``,
    ``"stopped"``, ``"canceled"`` or ``"vanished"``), ``traceback`` the text of the remote
    traceback, empty where there is none, and ``type`` the name of the remote exception's class.
    """

    exit_status = EXIT_FAILED

    def __init__(self, task: str, status: str, traceback: str = "", job_id: str = "") -> None:
        self.task = task
        self.status = status
        self.traceback = traceback
        self.job_id = job_id
        last_line = traceback.strip().rpartition("\n")[2]
        self.type = last_line.partition(":")[0].rpartition(".")[2]
        super().__init__(f"task {task} {status}" + (f": {last_line}" if last_line else ""))

    def __reduce__(self) -> tuple[type[ExecutionError], tuple[str, str, str, str]]:
        return type(self), (self.task, self.status, self.traceback, self.job_id)


class CallTimeout(CallError, TimeoutError):
    """A task did not answer in time."""

    exit_status = EXIT_TIMEOUT


class NoWorkerError(CallError):
    """No pool that is alive serves the task."""

    exit_status = EXIT_NO_WORKER


class UnknownTask(CallError):
    """No pool that is alive knows a task of this name."""

    exit_status = EXIT_USAGE


class Busy(CallError):
    """The gateway is at its limit of calls: try again later."""


class DoorClosed(CallError):
    """A framed door gave no answer."""
