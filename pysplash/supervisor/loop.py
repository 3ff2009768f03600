"""The supervisor's loop: sense, decide, act, report, about once a second, until the pool is empty.

Facts come from the devices, the decision from the policy, and :meth:`Supervisor._apply` is the
only place that carries a decision out.
"""

from __future__ import annotations

import signal

from pysplash.client.pool_id import PoolId
from pysplash.control.model import (
    NEVER,
    Action,
    Decision,
    Drain,
    Limits,
    Momentum,
    PoolView,
    Reason,
    Spawn,
    Stop,
)
from pysplash.control.policy import decide
from pysplash.control.step import Rule, Step, step
from pysplash.errors import EXIT_OK, ImportFailed, SplashError
from pysplash.log import logger

from .accounting import Accounting
from .callbacks import CallbackProcesses
from .devices import Devices
from .exits import Exits
from .fork_server_restarts import ForkServerRestarts
from .forkserver.client import Event, Exited, PreloadFailed, Ready, ServerDied, Spawned
from .lessons import LessonKeeper
from .listeners import ListenerThread, deaf
from .reporting import Observer, Reporter
from .scheduler import SchedulerProcess
from .sensing import Sensors
from .worker_link import WorkerLink
from .workers import WorkerTable

log = logger("pool")

#: longest and shortest time in seconds between two ticks
TICK, SHORTEST = 1.0, 0.05
#: a second stop signal within so many seconds is taken for the first one, delivered twice
ECHO = 0.5
#: seconds a stopping pool keeps trying to settle its dead workers' jobs while Redis is away
SETTLE = 5.0


class Supervisor:
    """Runs one pool: senses, decides and acts once a second."""

    def __init__(
        self,
        who: PoolId,
        limits: Limits,
        devices: Devices,
        *,
        with_scheduler: bool = False,
        maintenance_interval: float = 600.0,
        observer: Observer | None = None,
    ) -> None:
        self.name = name = who.name
        self._who = who
        self._count = 0
        self._limits = limits
        self._devices = devices
        #: what decides; replaced only for comparisons
        self.rule: Rule = decide
        self.table = WorkerTable(limits.max_procs)
        self.accounting = Accounting(devices.clock())
        self._sensors = Sensors(devices, self.table)
        self._lessons = LessonKeeper(devices.lessons)
        self._link = WorkerLink(devices, self.table, self._sensors.rows)
        self._listeners = ListenerThread()
        self._callbacks = CallbackProcesses(name, devices)
        self._exits = Exits(
            devices.settlement, self.table, self.accounting, self._callbacks, self._listeners
        )
        self._fork_server = ForkServerRestarts(devices)
        self._reporter = Reporter(
            devices, self.accounting, limits, observer, pool=name, listeners=self._listeners
        )
        self._momentum = Momentum()
        self._pause = TICK
        self._floor = 0
        self._drain: Drain | None = None
        self._drain_since = self._restart_before = NEVER
        self._drain_deadline: float | None = None
        self._settle_until = NEVER
        self._ready = False
        self._fatal: SplashError | None = None
        self._maintained_at = NEVER
        self._maintenance_interval = maintenance_interval
        self._scheduler = SchedulerProcess(f"{name}-scheduler", devices, wanted=with_scheduler)

    # --- the loop ---

    def run(self) -> int:
        """Run until stopped; return the exit status, or raise what ended the pool."""
        self._devices.signals.install()
        self._fork_server.start()
        log.info("pool %s starts", self.name, extra={"action": "start"})
        while not self._ready and self._drain is None:
            self._devices.signals.wait(TICK, self._devices.processes.filenos())
            self._take_events()
            self._fork_server.ensure()
        while not self.finished:
            self.tick()
            self._sleep()
        self._end()
        self.accounting.close(self._devices.clock())
        log.info("%s", self.accounting.line(self._devices.clock()), extra={"action": "summary"})
        if self._fatal is not None:
            raise self._fatal
        return EXIT_OK

    def _end(self) -> None:
        """Leave nothing unsaid."""
        self._lessons.save()
        self._callbacks.close()
        self._exits.close()
        self._listeners.close()

    def tick(self) -> Decision:
        """Run one turn of the loop; return what was decided."""
        self._take_events()
        view = self._sense()
        result = step(view, self._limits, rule=self.rule)
        self._momentum, self._pause = result.momentum, result.pause
        self._act(view, result)
        self._reporter.report(view, result.decision)
        return result.decision

    @property
    def finished(self) -> bool:
        """Whether the pool has been stopped and nothing of it is left."""
        if self._drain is None or len(self.table) or self._scheduler.alive:
            return False
        done = not len(self._exits) and not self._callbacks.busy
        return done or self._devices.clock() > self._settle_until

    def _sleep(self) -> None:
        """Sleep until the next tick is due, a signal comes, or a process ends."""
        clock, signals = self._devices.clock, self._devices.signals
        start = clock()
        while not self.finished and (left := start + self._pause - clock()) > 0:
            signals.wait(left, self._filenos())
            if self._take_events():
                signals.wait(max(0.0, start + SHORTEST - clock()))
                return

    def _filenos(self) -> tuple[int, ...]:
        return (*self._devices.processes.filenos(), *self._devices.commands.filenos())

    def _take_events(self) -> bool:
        """Handle signals and process events; return whether a decision is due at once."""
        numbers = self._devices.signals.drain()
        for number in numbers:
            self._handle_signal(number)
        events = list(self._devices.processes.events())
        # after the events, so that a worker's row is its last one when its exit is handled
        self._sensors.read_board()
        urgent = [self._handle_event(event) for event in events]
        self._link.pass_commands()
        return bool(numbers) or any(urgent)

    def _sense(self) -> PoolView:
        now = self._devices.clock()
        self._sensors.sample(now)
        self._sensors.read_board()
        queued, oldest, suspended = self._sensors.read_queues(now)
        workers, samples = self._sensors.workers(now), tuple(self._sensors.samples)
        return PoolView(
            now=now,
            workers=workers,
            samples=samples,
            lessons=self._lessons.observe(now, workers, samples[-1]),
            queued=queued,
            oldest=oldest,
            suspended=suspended,
            momentum=self._momentum,
            boot_failures=self.table.boot_failures,
            boot_failed_at=self.table.boot_failed_at,
            floor=self._floor,
            restart_before=self._restart_before,
            drain=self._drain,
            drain_deadline=self._drain_deadline,
        )

    # --- signals ---

    def stop(self, deadline: float | None = None) -> None:
        """Ask for a warm stop; *deadline* is on the monotonic clock."""
        self._drain_deadline = deadline
        self._devices.signals.post(signal.SIGTERM)

    def _handle_signal(self, number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            if self._drain is None:
                self._begin_drain(Drain.WARM)
            elif self._devices.clock() - self._drain_since > ECHO:
                self._begin_drain(Drain.COLD)
        elif number == signal.SIGQUIT:
            self._begin_drain(Drain.COLD)
        elif number == signal.SIGHUP:
            log.info("pool %s restarts its workers", self.name, extra={"action": "restart"})
            self._fork_server.start()
        else:
            moved = self._floor + (1 if number == signal.SIGTTIN else -1)
            least, most = -self._limits.min_procs, self._limits.max_procs - self._limits.min_procs
            self._floor = max(least, min(most, moved))
            log.info(
                "minimum number of workers is now %d",
                self._limits.min_procs + self._floor,
                extra={"action": "floor"},
            )

    def _begin_drain(self, drain: Drain) -> None:
        if self._drain is drain:
            return
        if self._drain is None:
            self._drain_since = self._devices.clock()
            if self._drain_deadline is None:
                self._drain_deadline = self._drain_since + self._limits.terminate
            self._scheduler.stop()
        self._drain = drain
        log.info("pool %s: %s stop", self.name, drain, extra={"action": "stop"})

    # --- events of processes ---

    def _handle_event(self, event: Event) -> bool:
        if isinstance(event, Spawned):
            self.table.spawned(event.name, event.pid)
            return False
        if isinstance(event, Exited):
            self._exited(event.name, event.status, event.text)
        elif isinstance(event, ServerDied):
            self._server_died(event)
        elif isinstance(event, PreloadFailed):
            self._preload_failed(event)
        elif isinstance(event, Ready):
            self._server_ready(event)
        return True

    def _server_ready(self, event: Ready) -> None:
        if self._ready:
            self._restart_before = self._devices.clock()
        self._ready = True
        self._fork_server.note_ready()
        if self._devices.presence is not None:
            self._devices.presence.set_tasks(event.tasks)
        self._callbacks.listened_to = any(it.event == "job_failed" for it in event.listeners)
        for line in (*event.warnings, *deaf(event.listeners)):
            log.warning("%s", line, extra={"action": "preload"})

    def _server_died(self, event: ServerDied) -> None:
        how = event.text or f"status {event.status}"
        log.error("a fork server died (%s)", how, extra={"action": "server-died"})
        for name in event.names:
            self._exited(name, None, "")
        if not self._devices.processes.server_pids and self._drain is None:
            error = self._fork_server.note_death(event)
            self._fork_server.ensure()
            if error is not None:
                self._fail(error)

    def _preload_failed(self, event: PreloadFailed) -> None:
        text = f"module {event.module!r} cannot be preloaded ({event.text}): check --path"
        if self._devices.processes.server_pids:
            log.error("workers are not restarted: %s", text, extra={"action": "restart"})
        else:
            self._fail(ImportFailed(text))

    def _exited(self, name: str, status: int | None, text: str) -> None:
        self._scheduler.note_exit(name)
        self._callbacks.note_exit(name, status, text)
        if name not in self.table:
            return
        entry = self.table.remove(name)
        row = self._sensors.forget(name)
        now = self._devices.clock()
        self._settle_until = now + SETTLE
        outcomes = self._devices.board.outcomes(entry.slot)
        error = self._exits.handle(entry, row, status, text, now, outcomes)
        if error is not None:
            self._fail(error)

    def _fail(self, error: SplashError) -> None:
        if self._fatal is None:
            self._fatal = error
            self._begin_drain(Drain.COLD)

    # --- act ---

    def _act(self, view: PoolView, result: Step) -> None:
        if self._limits.throttle:
            self._devices.processes.send_memory(view.samples[-1].pool_mem, result.reserve)
        if result.decision.reason is Reason.BURST:
            self._begin_drain(Drain.WARM)
        for action in result.decision.actions:
            self._apply(action)
        if view.queued is not None:
            self._settle_predecessors(view.now)
            self._exits.settle()
            self._link.send_heartbeats(view.now)
            self._link.see_stops_through()
        self._callbacks.turn()
        self._scheduler.ensure()
        if self._drain is None:
            self._fork_server.ensure()

    def _settle_predecessors(self, now: float) -> None:
        presence = self._devices.presence
        if presence is not None:
            for worker in presence.predecessors.lost_workers(now):
                self._exits.inherit(worker, presence.predecessors.note_settled)

    def _apply(self, action: Action) -> None:
        now = self._devices.clock()
        if isinstance(action, Spawn):
            for _ in range(action.count if self._devices.processes.able() else 0):
                self._spawn(now)
        elif isinstance(action, Stop):
            self.accounting.note_stop(action.reason)
            entry = self.table.ask_to_stop(action.name, now, action.reason)
            self._devices.board.ask_to_leave(entry.slot)
            self._devices.processes.stop(action.name)
        else:
            self.table.ask_to_die(action.name, now, action.reason)
            self._devices.processes.kill(action.name)

    def _spawn(self, now: float) -> None:
        self._count += 1
        entry = self.table.add(self._who.worker(self._count), now)
        self._devices.board.clear(entry.slot)
        self._link.follow()
        maintain = now - self._maintained_at >= self._maintenance_interval
        if maintain:
            self._maintained_at = now
        self._devices.processes.spawn(entry.name, entry.slot, maintain=maintain)
        self.accounting.note_spawn()
