"""A simulated worker: its jobs, one inside the other, and what a pool can see of it."""

from __future__ import annotations

from pysplash.control.model import Reason, WorkerState, WorkerView

from .workload import Job


class Frame:
    """A job at work: its phase, how far it is, and for how many others it waits."""

    __slots__ = ("children", "job", "left", "parent", "phase", "start_memory")

    def __init__(self, job: Job, parent: Frame | None = None) -> None:
        self.job = job
        self.parent = parent
        self.phase = -1
        self.left = 0.0
        self.children = 0
        self.start_memory = 0.0


class SimulatedWorker:
    """One worker process; a plant moves it on."""

    __slots__ = (
        "busy_before",
        "cores",
        "cpu",
        "held",
        "held_share",
        "job_started",
        "jobs",
        "kill_at",
        "last",
        "memory",
        "name",
        "ready_at",
        "since",
        "spawned_at",
        "stack",
        "state",
        "stop_at",
        "stop_reason",
    )

    def __init__(self, name: str, now: float, boot: float) -> None:
        self.name = name
        self.spawned_at = self.since = now
        self.ready_at = now + boot
        self.state = WorkerState.STARTING
        self.stack: list[Frame] = []
        self.jobs = 0
        #: CPU seconds in the last step and since the last look; seconds held since then
        self.last = self.cpu = self.held = 0.0
        #: bytes beyond those of a worker without a job
        self.memory = 0.0
        self.cores: float | None = None
        self.held_share = 0.0
        self.busy_before = False
        self.job_started: float | None = None
        self.stop_at: float | None = None
        self.stop_reason: Reason | None = None
        self.kill_at: float | None = None

    def enter(self, state: WorkerState, now: float) -> None:
        """Be in a state from now on."""
        if state is not self.state:
            self.state = state
            self.since = now

    def measure(self, interval: float) -> None:
        """Make rates of what was counted since the last look, as a sampler does."""
        busy = self.cpu > 0 or self.state is WorkerState.BUSY
        measured = busy and self.busy_before and interval > 0
        self.cores = self.cpu / interval if measured else None
        self.held_share = self.held / interval if interval > 0 else 0.0
        self.busy_before = busy
        self.cpu = self.held = 0.0

    def view(self, now: float, base: int) -> WorkerView:
        """Return what a pool sees; *base* is the bytes of a worker without a job."""
        silent = self.state is WorkerState.WAITING or self.state is WorkerState.BUSY
        return WorkerView(
            name=self.name,
            pid=1,
            state=self.state,
            spawned_at=self.spawned_at,
            since=self.since,
            beat=self.since if silent else now,
            jobs=self.jobs,
            function=self.stack[0].job.function if self.stack else "",
            job_started=self.job_started,
            job_timeout=self.stack[0].job.timeout if self.stack else None,
            pss=round(self.memory + base),
            cores=self.cores,
            held=self.held_share,
            stop_at=self.stop_at,
            stop_reason=self.stop_reason,
            kill_at=self.kill_at,
        )
