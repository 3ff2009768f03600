"""The model: the immutable values a decision is made from, and the decision itself.

Rule of this file: data only. Nothing here reads a clock, a process or a socket; whatever a
decision needs to know is a field of :class:`PoolView`, ``now`` and the past included, so any
decision can be written down and made again.

Times are monotonic seconds, sizes are bytes, CPU is cores or per cent of the cores in reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

NEVER = float("-inf")


class WorkerState(StrEnum):
    """What one worker is doing."""

    STARTING = "starting"  #: forked, not yet ready for a job
    IDLE = "idle"  #: ready, with nothing to do
    BUSY = "busy"  #: running a job
    WAITING = "waiting"  #: its job is parked in wait_jobs
    STOPPING = "stopping"  #: asked to stop; takes no further job


class Reason(StrEnum):
    """Why something was decided: one word, the same in log, record and screen."""

    STEADY = "steady"  #: as many workers as the work needs
    MIN = "min"  #: filling up to the smallest size
    BACKLOG = "backlog"  #: jobs wait and there is room
    CPU = "cpu"  #: the CPU limit holds or takes back
    MEMORY = "memory"  #: the memory limit holds or takes back
    MAX = "max"  #: jobs wait, but max_procs is reached
    QUIET = "quiet"  #: jobs wait; the last change is still being measured
    IDLE = "idle"  #: idle workers retire
    BACKOFF = "backoff"  #: workers die at start; the next try is due later
    SUSPENDED = "suspended"  #: `rq suspend` is in force
    REDIS = "redis"  #: the queues cannot be read
    RESTART = "restart"  #: rolling restart
    BURST = "burst"  #: burst mode, and all work is done
    DRAIN = "drain"  #: the pool is stopping
    COLD = "cold"  #: the pool is stopping at once
    ZOMBIE = "zombie"  #: no sign of life
    OVERDUE = "overdue"  #: a job ran past its timeout and ignored it
    TERMINATE = "terminate"  #: a stop was ignored for terminate_seconds
    STOPPED = "stopped"  #: a command asked for it


class Drain(StrEnum):
    """How a pool is being stopped."""

    WARM = "warm"  #: jobs may finish until the deadline
    COLD = "cold"  #: jobs are killed now


@dataclass(frozen=True, slots=True)
class Sample:
    """What the machine looked like over the last *interval* seconds."""

    at: float
    interval: float
    #: cores this process may use: the smaller of affinity and cgroup quota
    capacity: float
    #: per cent of `capacity` in use, by anyone
    cpu: float
    #: cores used by the pool's own busy workers
    pool_cores: float
    #: per cent of the memory this process may use
    mem: float
    mem_used: int
    mem_total: int
    #: proportional set size of the pool's processes together
    pool_mem: int
    #: cores that jobs were kept from using, by slices of the fast loop
    held: float = 0.0
    #: per cent of the interval in which some process waited for memory; None: not known
    stalled: float | None = None
    #: whether pages went out to swap and came back within the interval
    swapping: bool = False


#: jobs after which a lesson is believed
PROVEN = 5


@dataclass(frozen=True, slots=True)
class Lesson:
    """What jobs of one function need, or of all together, learned from finished jobs."""

    #: jobs it rests on
    jobs: int = 0
    #: mean cores in use while a job runs, and seconds of running it rests on, old ones forgotten
    cores: float = 1.0
    weight: float = 0.0
    #: mean seconds a job runs
    seconds: float = 0.0
    #: of the most memory a worker had during a job, in bytes: mean, standard deviation, largest
    peak: float = 0.0
    spread: float = 0.0
    most: float = 0.0
    #: of the memory a worker has at any moment of a job, in bytes: mean, standard deviation
    level: float = 0.0
    sway: float = 0.0

    @property
    def proven(self) -> bool:
        """Whether it rests on enough jobs to be used."""
        return self.jobs >= PROVEN


#: the key in :attr:`PoolView.lessons` of what all functions together have taught
ANY = ""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as the pool knows it at one tick."""

    name: str
    pid: int
    state: WorkerState
    spawned_at: float
    #: when the present state began
    since: float
    #: the worker's last sign of life
    beat: float
    #: jobs finished, failed ones included
    jobs: int = 0
    failed: int = 0
    #: the function of the present job; "": not known
    function: str = ""
    job_started: float | None = None
    #: seconds the present job may take; None: no limit
    job_timeout: float | None = None
    #: proportional set size; None: not measured yet
    pss: int | None = None
    #: cores used over the last interval; None: not measured
    cores: float | None = None
    #: share of the last interval in which it was held by the fast loop
    held: float = 0.0
    stop_at: float | None = None
    stop_reason: Reason | None = None
    kill_at: float | None = None

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop, by the pool or by anyone else."""
        return self.stop_at is not None or self.state is WorkerState.STOPPING

    @property
    def parked(self) -> bool:
        """Whether its job waits for other jobs."""
        return self.state is WorkerState.WAITING


@dataclass(frozen=True, slots=True)
class Momentum:
    """The policy's state from one tick to the next; the policy itself has none."""

    grown_at: float = NEVER
    shrunk_at: float = NEVER
    #: workers added by the last growth; 0 once a tick had no need
    step: int = 0
    #: since when the CPU has been over its limit without a break
    over_cpu_since: float | None = None
    #: since when there has been nothing left to do (burst mode)
    drained_since: float | None = None
    #: jobs finished by all workers, when `drained_since` was set
    drained_jobs: int = 0
    #: cores a busy worker uses, and the worker-seconds that rests on; at first a guess. It
    #: stands in until jobs have finished, and lessons are known
    cores: float = 1.0
    evidence: float = 2.0
    #: when each busy worker became busy; from one job at once to the next it stays so
    active: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    #: by how much waits before a change were stretched because changes were taken back, and when
    dwell: float = 1.0
    flapped_at: float = NEVER


@dataclass(frozen=True, slots=True)
class PoolView:
    """Everything one decision is made from."""

    now: float
    workers: tuple[WorkerView, ...] = ()
    #: the samples of the last seconds, oldest first
    samples: tuple[Sample, ...] = ()
    #: jobs waiting in the watched queues; None: the queues cannot be read
    queued: int | None = 0
    #: age in seconds of the oldest waiting job; None: not known
    oldest: float | None = None
    suspended: bool = False
    momentum: Momentum = field(default_factory=Momentum)
    #: what finished jobs have taught, by function, and of all together under `ANY`
    lessons: Mapping[str, Lesson] = field(default_factory=lambda: MappingProxyType({}))
    #: workers that died before their first job, in a row, and when the last one did
    boot_failures: int = 0
    boot_failed_at: float = NEVER
    #: added to the smallest size by TTIN, taken by TTOU
    floor: int = 0
    #: workers spawned before this are to be replaced
    restart_before: float = NEVER
    drain: Drain | None = None
    #: when a warm stop gives up waiting for jobs
    drain_deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the pool may do; set once, from the pool's arguments."""

    min_procs: int = 1
    max_procs: int = 128
    #: most workers added by one decision
    max_per_scale: int = 8
    #: seconds between two growths
    scale_frequency: float = 2.0
    #: seconds without a further change after any change of size
    quiet_period: float = 2.0
    #: seconds between a stop that must be obeyed and the kill
    terminate: float = 25.0
    #: seconds without a sign of life that make a zombie
    zombie_timeout: float = 400.0
    #: per cent of the cores in reach
    max_cpu: float = 80.0
    #: per cent of the memory in reach
    max_mem: float = 80.0
    #: bytes all the pool's processes may use together; None: no limit of their own
    mem_budget: int | None = None
    retire_idle: bool = True
    #: seconds a worker idles before it retires
    idle_seconds: float = 15.0
    #: seconds a worker may take to become ready
    boot_timeout: float = 30.0
    burst: bool = False
    #: whether the fast loop trims what the size cannot: then a worker too many does no harm
    throttle: bool = False


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start *count* workers."""

    count: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask one worker to finish its job and leave."""

    name: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Kill:
    """End one worker, and all of its session, now."""

    name: str
    reason: Reason


Action = Spawn | Stop | Kill


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers there should be, why, and what to do about it now."""

    target: int
    reason: Reason
    actions: tuple[Action, ...] = ()


#: seconds of samples the policy gets to see
MEMORY = 30.0
