"""One step of the control loop: the decision, and everything that follows from it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .memory import pause, reserve
from .model import Decision, Limits, Momentum, PoolView
from .policy import decide, remember

#: what decides on a view
Rule = Callable[[PoolView, Limits], Decision]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the control loop results in."""

    decision: Decision
    #: what the next view must know of this step
    momentum: Momentum
    #: seconds until the next step is due, at the latest
    pause: float
    #: bytes the oldest job may still take; the throttler keeps them free
    reserve: float


def step(
    view: PoolView, limits: Limits, *, rule: Rule = decide, done: Decision | None = None
) -> Step:
    """Decide once, and return the decision with what follows from it.

    *rule* decides; another one than the policy's is for comparisons. *done* is what was carried
    out if it was not this decision: the momentum follows from what was done.
    """
    decision = rule(view, limits)
    return Step(
        decision,
        momentum=remember(view, decision if done is None else done, limits),
        pause=pause(view, limits),
        reserve=reserve(view, limits) if limits.throttle else 0.0,
    )
