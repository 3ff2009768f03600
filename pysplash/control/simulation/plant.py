"""The plant: a simulated machine with jobs and workers, to test policies on.

Nothing here runs or waits. Time is a number that advances by a tenth of a second; cores are
shared among those who want them; memory grows as a job's phases say. Every second the policy
sees what a pool would see, through the same values, and its decisions are carried out. The same
seed gives the same run, so what was found once can be found again::

    random = Random(1)
    jobs = endless(lambda: spin(5.0, random))
    trace = Plant(Machine(cores=16), jobs, Law(Limits()), seed=1).run(120)
    assert trace.overshoot(80.0) < 5
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace

from pysplash.control.learning import Learner
from pysplash.control.model import (
    Kill,
    Limits,
    Momentum,
    PoolView,
    Reason,
    Sample,
    Spawn,
    Stop,
    WorkerState,
)
from pysplash.control.policy import decide
from pysplash.control.step import Rule, Step, step
from pysplash.control.throttle import Grip, Runner, Slice, trim

from .trace import Trace
from .worker import Frame, SimulatedWorker
from .workload import Arrivals, Machine

#: jobs of an endless supply that stand in the queue
CROWD = 1000
#: seconds of samples a policy sees
WINDOW = 30.0


@dataclass(slots=True)
class Law:
    """PySplash's own policy, fed as the supervisor feeds it; another *rule* is for comparisons."""

    limits: Limits
    rule: Rule = decide
    learner: Learner = field(default_factory=Learner)
    momentum: Momentum = field(default_factory=Momentum)

    def step(self, view: PoolView) -> Step:
        """Learn, decide, remember."""
        self.learner.observe(view.now, view.workers, view.samples[-1].cpu)
        known = replace(view, momentum=self.momentum, lessons=self.learner.lessons)
        result = step(known, self.limits, rule=self.rule)
        self.momentum = result.momentum
        return result


class Plant:
    """The machine at work under a policy."""

    def __init__(
        self,
        machine: Machine,
        arrivals: Arrivals,
        policy: Law,
        *,
        seed: int = 0,
        throttled: bool = False,
        step: float = 0.1,
    ) -> None:
        self.machine = machine
        self.policy = policy
        self.now = 0.0
        self.trace = Trace(machine.cores, step)
        self._random = random.Random(seed)
        self._arrivals = arrivals
        self._next = next(arrivals, None)
        self._step = step
        self._queue: deque[Frame] = deque()
        self._workers: list[SimulatedWorker] = []
        self._samples: deque[Sample] = deque()
        self._number = 0
        self._used = self._held = 0.0
        self._ticked_at = 0.0
        self._throttled = throttled
        self._grip = Grip()
        self._reserve = 0.0
        self._holds: dict[str, float] = {}

    def run(self, seconds: float, *, until_done: bool = False) -> Trace:
        """Let *seconds* pass, or fewer if all jobs are done; return the whole run."""
        end = self.now + seconds
        while self.now < end - 1e-6:
            pause = self._decide()
            for _ in range(max(1, round(pause / self._step))):
                self._advance()
            if until_done and self._next is None and not self._queue and not self._at_work():
                break
        return self.trace

    def _at_work(self) -> bool:
        return any(worker.stack for worker in self._workers)

    # --- the machine ---

    def _advance(self) -> None:
        step, now = self._step, self.now
        self._arrive(now)
        external = max(0.0, self.machine.external(now) + self._random.gauss(0, self.machine.noise))
        external = min(external, self.machine.cores)
        for worker in self._workers:
            self._ready(worker, now)
        wanted = external + sum(self._wish(w) for w in self._workers)
        share = min(1.0, self.machine.cores / wanted) if wanted > 0 else 1.0
        ours = 0.0
        for worker in self._workers:
            before = worker.cpu
            if worker.stack:
                self._work(worker, share, now)
            worker.last = worker.cpu - before
            ours += worker.last
        self._workers = [w for w in self._workers if not self._gone(w)]
        self.now = now + step
        self._account(ours, external * share * step)

    def _account(self, ours: float, theirs: float) -> None:
        self._used += ours + theirs
        memory = self._memory()
        used = min(1.0, (ours + theirs) / (self._step * self.machine.cores))
        self.trace.note(100 * used, self.machine.others + memory, memory, len(self._queue))
        if self._throttled:
            self._hold(ours + theirs, memory)

    def _memory(self) -> float:
        return sum(w.memory + self.machine.worker for w in self._workers)

    def _hold(self, cpu: float, memory: float) -> None:
        """Throttle: measure the last step, decide who is held in the next."""
        busy = [w for w in self._workers if w.stack and w.state is WorkerState.BUSY]
        busy.sort(key=lambda w: w.job_started or 0.0)
        slice_ = Slice(
            seconds=self._step,
            capacity=self.machine.cores,
            used=min(cpu / self._step, self.machine.cores),
            runners=tuple(
                Runner(w.name, w.last / self._step, self._holds.get(w.name, 0.0)) for w in busy
            ),
            mem_used=self.machine.others + memory,
            mem_total=self.machine.memory,
            pool_mem=memory,
            reserve=self._reserve,
        )
        self._grip = trim(slice_, self._grip, self.policy.limits)
        self._holds = dict(self._grip.holds)
        self._held += self._grip.cores * self._step

    def _arrive(self, now: float) -> None:
        while self._next is not None and self._next[0] <= now and len(self._queue) < CROWD:
            self._queue.append(Frame(self._next[1]))
            self._next = next(self._arrivals, None)

    def _ready(self, worker: SimulatedWorker, now: float) -> None:
        if worker.state is WorkerState.STARTING and now >= worker.ready_at:
            worker.enter(WorkerState.IDLE, now)
        if worker.stack or worker.state is WorkerState.STARTING:
            return
        if worker.stop_at is None and self._queue:
            self._take(worker, self._queue.popleft(), now)

    def _take(self, worker: SimulatedWorker, frame: Frame, now: float) -> None:
        worker.stack.append(frame)
        if len(worker.stack) == 1:
            worker.job_started = now
        worker.enter(WorkerState.BUSY, now)
        self._next_phase(worker, now)

    def _next_phase(self, worker: SimulatedWorker, now: float) -> None:
        """Enter the next phase of the worker's job; or end the job, and take up what is below."""
        frame = worker.stack[-1]
        frame.phase += 1
        frame.start_memory = worker.memory
        if frame.phase == len(frame.job.phases):
            self._end_job(worker, now)
            return
        phase = frame.job.phases[frame.phase]
        frame.left = phase.seconds
        if phase.children:
            frame.children = len(phase.children)
            self._queue.extend(Frame(child, frame) for child in phase.children)

    def _end_job(self, worker: SimulatedWorker, now: float) -> None:
        frame = worker.stack.pop()
        if frame.parent is not None:
            frame.parent.children -= 1
        self.trace.finished += 1
        self.trace.done_at = now
        if worker.stack:
            return
        worker.jobs += 1
        worker.job_started = None
        worker.memory = 0.0
        worker.enter(WorkerState.IDLE, now)

    def _wish(self, worker: SimulatedWorker) -> float:
        if not worker.stack or worker.state is WorkerState.WAITING:
            return 0.0
        frame = worker.stack[-1]
        cores = frame.job.phases[frame.phase].cores
        return cores * (1 - self._holds.get(worker.name, 0.0)) if cores else 0.0

    def _work(self, worker: SimulatedWorker, share: float, now: float) -> None:
        """Let a worker do what it can in a step; several short jobs, if they fit."""
        time = self._step
        free = 1 - self._holds.get(worker.name, 0.0)
        if free < 1:
            worker.held += (1 - free) * time
        while time > 1e-9 and worker.stack:
            frame = worker.stack[-1]
            if frame.children:
                if not self._help(worker, frame, now):
                    return
                continue
            worker.enter(WorkerState.BUSY, now)
            time = self._spend(worker, frame, time, share, free)
            if frame.left <= 1e-9:
                self._next_phase(worker, now)
                if not worker.stack and worker.stop_at is None and self._queue and time > 1e-9:
                    self._take(worker, self._queue.popleft(), now + self._step - time)

    def _spend(
        self, worker: SimulatedWorker, frame: Frame, time: float, share: float, free: float
    ) -> float:
        """Spend up to *time* on the present phase; return what is left of it."""
        phase = frame.job.phases[frame.phase]
        speed = share * free if phase.cores else float(free > 0)  # sleep passes while one is held
        spent = min(time, frame.left / speed) if speed > 0 else time
        frame.left -= spent * speed
        worker.cpu += spent * speed * phase.cores
        if phase.memory is not None:
            done = 1 - frame.left / phase.seconds if phase.seconds else 1.0
            worker.memory = frame.start_memory + (phase.memory - frame.start_memory) * done
        return time - spent

    def _help(self, worker: SimulatedWorker, frame: Frame, now: float) -> bool:
        """Run a queued child of the job that waits, or park."""
        child = next((f for f in self._queue if f.parent is frame), None)
        if child is None:
            worker.enter(WorkerState.WAITING, now)
            return False
        self._queue.remove(child)
        self._take(worker, child, now)
        return True

    def _gone(self, worker: SimulatedWorker) -> bool:
        if worker.kill_at is None:
            return worker.stop_at is not None and not worker.stack
        if worker.stack and worker.stop_reason is Reason.MEMORY:
            self.trace.killed += 1
            self._queue.appendleft(Frame(worker.stack[0].job, worker.stack[0].parent))
        elif worker.stack:
            self.trace.lost += 1
        return True

    # --- the policy ---

    def _decide(self) -> float:
        """Take one step of the policy, apply it, and return the seconds until the next one."""
        view = self._observe()
        result = self.policy.step(view)
        self.trace.decided(self.now, len(view.workers), result.decision)
        self._reserve = result.reserve
        for action in result.decision.actions:
            if isinstance(action, Spawn):
                self._spawn(action.count)
                continue
            worker = next(w for w in self._workers if w.name == action.name)
            if isinstance(action, Stop):
                worker.stop_at, worker.stop_reason = self.now, action.reason
            elif isinstance(action, Kill):
                worker.kill_at = self.now
        return result.pause

    def _spawn(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            boot = self.machine.boot * self._random.uniform(0.7, 1.3)
            self._workers.append(SimulatedWorker(f"w{self._number}", self.now, boot))

    def _observe(self) -> PoolView:
        interval = self.now - self._ticked_at
        self._ticked_at = self.now
        for worker in self._workers:
            worker.measure(interval)
        self._samples.append(self._sample(interval))
        while self._samples[0].at < self.now - WINDOW:
            self._samples.popleft()
        return PoolView(
            now=self.now,
            workers=tuple(w.view(self.now, self.machine.worker) for w in self._workers),
            samples=tuple(self._samples),
            queued=len(self._queue),
        )

    def _sample(self, interval: float) -> Sample:
        machine, memory = self.machine, self._memory()
        used, held, total = self._used, self._held, interval * machine.cores
        self._used = self._held = 0.0
        return Sample(
            at=self.now,
            interval=interval,
            capacity=machine.cores,
            cpu=min(100.0, 100 * used / total) if total > 0 else 0.0,
            pool_cores=sum(w.cores for w in self._workers if w.cores is not None),
            mem=100 * (machine.others + memory) / machine.memory,
            mem_used=round(machine.others + memory),
            mem_total=machine.memory,
            pool_mem=round(memory),
            held=held / interval if interval > 0 else 0.0,
        )
