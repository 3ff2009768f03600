"""Reporting: what each tick found and decided, to the log, the record, Redis and an observer."""

from __future__ import annotations

from collections.abc import Callable

from pysplash.control.model import Decision, Limits, PoolView
from pysplash.events import SCALED, ScaleEvent
from pysplash.log import logger

from .accounting import Accounting
from .devices import Devices
from .listeners import ListenerThread

log = logger("pool")
Observer = Callable[[PoolView, Decision], None]

#: seconds between two lines of accounting
ACCOUNT = 5.0


class Reporter:
    """Reports every tick; the log gets changes of the target and, now and then, the accounting."""

    def __init__(
        self,
        devices: Devices,
        accounting: Accounting,
        limits: Limits,
        observer: Observer | None = None,
        *,
        pool: str,
        listeners: ListenerThread,
    ) -> None:
        self._pool = pool
        self._listeners = listeners
        self._devices = devices
        self._accounting = accounting
        self._limits = limits
        self._observer = observer
        self._target = 0
        self._accounted_at = devices.clock()

    def report(self, view: PoolView, decision: Decision) -> None:
        """Report one tick."""
        self._accounting.observe(view)
        self._log_target(view, decision)
        if view.now - self._accounted_at >= ACCOUNT and self._accounting.changed():
            self._accounted_at = view.now
            log.info("%s", self._accounting.line(view.now), extra={"action": "account"})
        if self._devices.recorder is not None:
            self._devices.recorder.write(view, decision, self._limits)
        if self._devices.presence is not None:
            self._devices.presence.publish(view, decision)
        if self._observer is not None:
            self._observer(view, decision)

    def _log_target(self, view: PoolView, decision: Decision) -> None:
        if decision.target == self._target:
            log.debug("target %d: %s", decision.target, decision.reason)
            return
        log.info(
            "target %d -> %d: %s (%s jobs wait, CPU %.0f %%, memory %.0f %%)",
            self._target,
            decision.target,
            decision.reason,
            "?" if view.queued is None else view.queued,
            view.samples[-1].cpu if view.samples else 0,
            view.samples[-1].mem if view.samples else 0,
            extra={"action": "decide", "reason": decision.reason.value},
        )
        if SCALED:
            self._listeners.tell(SCALED, self._event(view, decision))
        self._target = decision.target

    def _event(self, view: PoolView, decision: Decision) -> ScaleEvent:
        return ScaleEvent(
            "scaled",
            self._pool,
            before=self._target,
            after=decision.target,
            reason=decision.reason.value,
            workers=len(view.workers),
            queued=view.queued,
            cpu=view.samples[-1].cpu if view.samples else 0.0,
            mem=view.samples[-1].mem if view.samples else 0.0,
        )
