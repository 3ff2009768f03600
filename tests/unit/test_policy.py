"""The policy as a table, and as properties that hold for any view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysplash.control.memory import pause, reserve
from pysplash.control.model import (
    ANY,
    Action,
    Decision,
    Drain,
    Kill,
    Limits,
    Momentum,
    PoolView,
    Reason,
    Spawn,
    Stop,
    WorkerState,
    WorkerView,
)
from pysplash.control.policy import decide, remember
from pysplash.control.shedding import DWELL_HALF_LIFE, dwell, floor
from pysplash.control.step import step

from .views import GIB, KNOWN, MIB, NOW, busy, samples, view, waiting, worker

LIMITS = Limits(max_procs=8)
COSTLY = {ANY: replace(KNOWN[ANY], cores=1.0)}
WAVE = {ANY: replace(KNOWN[ANY], cores=0.6), "f": replace(KNOWN[ANY], cores=0.6)}
CHEAP = Momentum(cores=0.1, evidence=40.0)


def case(
    name: str, facts: PoolView, target: int, reason: Reason, *actions: Action, **limits: Any
) -> Any:
    """Return one row of the table."""
    return pytest.param(facts, replace(LIMITS, **limits), target, reason, actions, id=name)


TABLE = [
    case("fills-up-to-the-floor", view(), 3, Reason.MIN, Spawn(3, Reason.MIN), min_procs=3),
    case(
        "a-size-that-is-asked-for-needs-no-known-jobs",
        view(worker(), lessons={}),
        32,
        Reason.MIN,
        Spawn(31, Reason.MIN),
        min_procs=32,
        max_procs=32,
    ),
    case(
        "but-the-memory-its-workers-take",
        view(worker(pss=GIB), lessons={}),
        32,
        Reason.MIN,
        Spawn(4, Reason.MIN),
        min_procs=32,
        max_procs=32,
    ),
    case(
        "and-caution-once-strange-jobs-run",
        view(busy("a", pss=GIB), lessons={}, samples=samples(mem=60)),
        32,
        Reason.MEMORY,
        min_procs=32,
        max_procs=32,
    ),
    case("nothing-to-do", view(worker()), 1, Reason.STEADY),
    case("scales-to-zero", view(), 0, Reason.STEADY, min_procs=0),
    case(
        "one-more-for-a-backlog",
        view(busy("a"), queued=5),
        2,
        Reason.BACKLOG,
        Spawn(1, Reason.BACKLOG),
    ),
    case(
        "steps-double",
        view(busy("a"), busy("b"), queued=9, momentum=replace(CHEAP, step=2)),
        6,
        Reason.BACKLOG,
        Spawn(4, Reason.BACKLOG),
    ),
    case(
        "a-step-is-capped-by-max-per-scale",
        view(busy("a"), queued=9, momentum=replace(CHEAP, step=4)),
        4,
        Reason.BACKLOG,
        Spawn(3, Reason.BACKLOG),
        max_per_scale=3,
    ),
    case(
        "never-more-than-there-is-work",
        view(busy("a"), queued=1, momentum=replace(CHEAP, step=4)),
        2,
        Reason.BACKLOG,
        Spawn(1, Reason.BACKLOG),
    ),
    case("idle-workers-take-the-backlog", view(worker("a"), busy("b"), queued=1), 2, Reason.STEADY),
    case(
        "starting-workers-count-as-idle",
        view(worker("a", WorkerState.STARTING), queued=1),
        1,
        Reason.STEADY,
    ),
    case(
        "max-procs-holds",
        view(busy("a"), busy("b"), queued=5),
        2,
        Reason.MAX,
        max_procs=2,
    ),
    case(
        "leaving-workers-count-for-max-procs",
        view(busy("a"), busy("b", stop_at=NOW - 1, stop_reason=Reason.IDLE), queued=5),
        1,
        Reason.MAX,
        max_procs=2,
    ),
    case(
        "quiet-after-growth",
        view(busy("a"), queued=5, momentum=replace(CHEAP, grown_at=NOW - 1)),
        1,
        Reason.QUIET,
    ),
    case(
        "quiet-after-shrinking",
        view(busy("a"), queued=5, momentum=replace(CHEAP, shrunk_at=NOW - 1)),
        1,
        Reason.QUIET,
    ),
    case("cpu-holds", view(busy("a"), queued=5, samples=samples(cpu=79)), 1, Reason.CPU),
    case(
        "an-expensive-worker-does-not-fit",
        view(
            busy("a"),
            queued=5,
            samples=samples(cpu=50),
            lessons=COSTLY,
        ),
        1,
        Reason.CPU,
    ),
    case(
        "young-workers-have-not-shown-their-cpu",
        view(
            busy("a", spawned_at=NOW - 1, cores=0.0),
            queued=5,
            lessons=COSTLY,
        ),
        1,
        Reason.CPU,
    ),
    case(
        "memory-holds",
        view(busy("a"), queued=5, samples=samples(mem=79.99)),
        1,
        Reason.MEMORY,
    ),
    case(
        "memory-is-reckoned-by-the-largest-worker",
        view(busy("a", pss=4 * GIB), queued=5, samples=samples(mem=60)),
        1,
        Reason.MEMORY,
    ),
    case(
        "the-budget-holds",
        view(busy("a"), queued=5, samples=samples(pool_mem=195 * MIB)),
        1,
        Reason.MEMORY,
        mem_budget=200 * MIB,
    ),
    case(
        "memory-over-its-limit-takes-one-back",
        view(busy("a"), busy("b", spawned_at=NOW - 9), samples=samples(mem=85)),
        1,
        Reason.MEMORY,
        Stop("b", Reason.MEMORY),
    ),
    case(
        "memory-waits-for-the-one-that-is-leaving",
        view(
            busy("a"),
            busy("b"),
            busy("c", stop_at=NOW - 1, stop_reason=Reason.MEMORY),
            samples=samples(mem=85),
        ),
        2,
        Reason.STEADY,
    ),
    case(
        "over-the-limit-the-one-asked-is-killed",
        view(
            busy("a"),
            busy("b"),
            busy("c", stop_at=NOW - 1, stop_reason=Reason.MEMORY),
            samples=samples(mem=79.5, pool_mem=4 * GIB),
        ),
        2,
        Reason.MEMORY,
        Kill("c", Reason.MEMORY),
    ),
    case(
        "one-at-a-time-is-killed",
        view(
            busy("a"),
            busy("b", stop_at=NOW - 1, stop_reason=Reason.MEMORY),
            busy("c", stop_at=NOW - 1, stop_reason=Reason.MEMORY, kill_at=NOW - 0.1),
            samples=samples(mem=85, pool_mem=4 * GIB),
        ),
        1,
        Reason.MEMORY,
    ),
    case(
        "a-parked-job-is-not-killed-for-memory",
        view(
            busy("a"),
            waiting("c", stop_at=NOW - 1, stop_reason=Reason.MEMORY),
            samples=samples(mem=85, pool_mem=4 * GIB),
        ),
        1,
        Reason.STEADY,
    ),
    case(
        "nobody-is-killed-for-what-others-use",
        view(
            busy("a"),
            busy("b"),
            busy("c", stop_at=NOW - 1, stop_reason=Reason.MEMORY),
            samples=samples(mem=90, pool_mem=GIB),
        ),
        2,
        Reason.STEADY,
    ),
    case(
        "the-last-is-not-killed-for-memory",
        view(
            busy("c", stop_at=NOW - 1, stop_reason=Reason.MEMORY),
            samples=samples(mem=85, pool_mem=4 * GIB),
        ),
        0,
        Reason.STEADY,
        min_procs=0,
    ),
    case(
        "near-the-limit-the-idle-are-recycled",
        view(busy("a"), busy("b"), worker("c"), samples=samples(mem=77)),
        2,
        Reason.MEMORY,
        Stop("c", Reason.MEMORY),
    ),
    case(
        "near-the-limit-the-fast-loop-holds-first",
        view(busy("a"), busy("b"), samples=samples(mem=77)),
        2,
        Reason.STEADY,
        throttle=True,
    ),
    case(
        "near-the-limit-nobody-is-started",
        view(busy("a"), queued=5, samples=samples(mem=77)),
        1,
        Reason.MEMORY,
    ),
    case(
        "waiting-for-memory-is-a-reason-not-to-start",
        view(busy("a"), queued=5, samples=samples(stalled=20.0)),
        1,
        Reason.MEMORY,
    ),
    case(
        "swapping-is-a-reason-not-to-start",
        view(busy("a"), queued=5, samples=samples(swapping=True)),
        1,
        Reason.MEMORY,
    ),
    case(
        "a-peak-that-is-known-is-kept-free-for-running-jobs",
        view(
            *(busy(name, function="f", pss=GIB) for name in "ab"),
            queued=5,
            samples=samples(mem=50),
            lessons={**KNOWN, "f": replace(KNOWN[ANY], peak=3.0 * GIB, most=3.0 * GIB)},
        ),
        2,
        Reason.MEMORY,
    ),
    case(
        "what-nobody-knows-is-tried-by-few",
        view(
            *(busy(name) for name in "abc"),
            queued=50,
            lessons={},
            momentum=replace(CHEAP, grown_at=NOW - 5),
        ),
        3,
        Reason.CPU,
    ),
    case(
        "and-by-one-more-when-nothing-has-changed-for-long",
        view(*(busy(name) for name in "abc"), queued=50, lessons={}),
        4,
        Reason.BACKLOG,
        Spawn(1, Reason.BACKLOG),
    ),
    case(
        "a-new-function-is-tried-by-few-too",
        view(
            *(busy(name, function="new") for name in "abc"),
            queued=50,
            momentum=replace(CHEAP, grown_at=NOW - 5),
        ),
        3,
        Reason.CPU,
    ),
    case(
        "sleeping-jobs-are-counted-at-what-they-will-need",
        view(*(busy(name, cores=0.0, function="f") for name in "abc"), queued=50, lessons=WAVE),
        3,
        Reason.CPU,
    ),
    case(
        "with-the-fast-loop-one-more-fills-what-is-left",
        view(
            busy("a", cores=1.0, function="f"),
            queued=5,
            samples=samples(cpu=50, pool_cores=1.0),
            lessons={**COSTLY, "f": COSTLY[ANY]},
        ),
        2,
        Reason.BACKLOG,
        Spawn(1, Reason.BACKLOG),
        throttle=True,
    ),
    case(
        "as-many-leave-as-there-are-too-many",
        view(
            *(busy(name, spawned_at=NOW - 60 + n) for n, name in enumerate("abcdef")),
            samples=samples(cpu=100, capacity=8.0),
            lessons={ANY: replace(KNOWN[ANY], cores=0.8)},
            momentum=replace(CHEAP, over_cpu_since=NOW - 5),
        ),
        4,
        Reason.CPU,
        Stop("f", Reason.CPU),
        Stop("e", Reason.CPU),
    ),
    case(
        "those-who-leave-are-counted",
        view(
            *(busy(name, spawned_at=NOW - 60 + n) for n, name in enumerate("abcd")),
            busy("e", stop_at=NOW - 1, stop_reason=Reason.CPU),
            busy("f", stop_at=NOW - 1, stop_reason=Reason.CPU),
            samples=samples(cpu=100, capacity=8.0),
            lessons={ANY: replace(KNOWN[ANY], cores=0.8)},
            momentum=replace(CHEAP, over_cpu_since=NOW - 5),
        ),
        4,
        Reason.STEADY,
    ),
    case(
        "who-was-wrong-before-waits-longer",
        view(
            busy("a"),
            busy("b"),
            samples=samples(cpu=99),
            momentum=replace(CHEAP, over_cpu_since=NOW - 5, dwell=4.0, flapped_at=NOW),
        ),
        2,
        Reason.STEADY,
    ),
    case("memory-never-takes-the-last", view(busy("a"), samples=samples(mem=95)), 1, Reason.STEADY),
    case(
        "cpu-over-its-limit-takes-an-idle-one-first",
        view(
            busy("a"),
            worker("b"),
            samples=samples(cpu=99),
            momentum=replace(CHEAP, over_cpu_since=NOW - 5),
        ),
        1,
        Reason.CPU,
        Stop("b", Reason.CPU),
    ),
    case(
        "a-short-burst-of-cpu-takes-nobody",
        view(
            busy("a"),
            busy("b"),
            samples=samples(cpu=99),
            momentum=replace(CHEAP, over_cpu_since=NOW - 1),
        ),
        2,
        Reason.STEADY,
    ),
    case(
        "cpu-never-goes-below-the-floor",
        view(
            busy("a"),
            busy("b"),
            samples=samples(cpu=99),
            momentum=replace(CHEAP, over_cpu_since=NOW - 5),
        ),
        2,
        Reason.STEADY,
        min_procs=2,
    ),
    case(
        "the-idle-retire-longest-first",
        view(worker("a", since=NOW - 20), worker("b", since=NOW - 30), worker("c")),
        2,
        Reason.IDLE,
        Stop("b", Reason.IDLE),
        min_procs=2,
    ),
    case(
        "nobody-retires-while-jobs-wait",
        view(worker("a", since=NOW - 20), worker("b", since=NOW - 30), queued=1),
        2,
        Reason.STEADY,
    ),
    case(
        "nobody-retires-if-told-so",
        view(worker("a", since=NOW - 20), worker("b", since=NOW - 30)),
        2,
        Reason.STEADY,
        retire_idle=False,
    ),
    case("suspension-holds", view(busy("a"), queued=9, suspended=True), 1, Reason.SUSPENDED),
    case("an-absent-redis-holds", view(busy("a"), queued=None), 1, Reason.REDIS),
    case(
        "when-all-wait-others-are-lent-at-once",
        view(
            waiting("a"),
            waiting("b"),
            queued=9,
            samples=samples(cpu=100),
            momentum=replace(CHEAP, grown_at=NOW - 0.1, step=4),
        ),
        4,
        Reason.BACKLOG,
        Spawn(2, Reason.BACKLOG),
    ),
    case(
        "a-short-wait-lends-nobody",
        view(
            waiting("a", since=NOW - 9),
            waiting("b", since=NOW - 0.4),
            queued=9,
            samples=samples(cpu=100),
        ),
        2,
        Reason.CPU,
    ),
    case(
        "a-waiting-worker-is-no-capacity",
        view(waiting("a"), busy("b"), queued=1),
        3,
        Reason.BACKLOG,
        Spawn(1, Reason.BACKLOG),
    ),
    case(
        "backoff-after-a-failed-start",
        view(boot_failures=3, boot_failed_at=NOW - 1.9),
        1,
        Reason.BACKOFF,
    ),
    case(
        "a-restart-after-failed-starts-keeps-to-the-most",
        view(worker("a"), restart_before=NOW, boot_failures=1, boot_failed_at=NOW - 60),
        0,
        Reason.RESTART,
        Stop("a", Reason.RESTART),
        max_procs=1,
    ),
    case(
        "after-the-backoff-one-is-tried",
        view(boot_failures=3, boot_failed_at=NOW - 2.1),
        4,
        Reason.MIN,
        Spawn(1, Reason.MIN),
        min_procs=4,
    ),
    case(
        "a-full-house-waits-for-the-one-that-leaves",
        view(busy("a"), busy("b", stop_at=NOW - 1, stop_reason=Reason.ZOMBIE)),
        2,
        Reason.MAX,
        min_procs=2,
        max_procs=2,
    ),
    case(
        "ttin-raises-the-floor",
        view(worker(), floor=1),
        2,
        Reason.MIN,
        Spawn(1, Reason.MIN),
    ),
    case(
        "a-burst-is-over-when-nothing-is-left",
        view(worker("a"), momentum=replace(CHEAP, drained_since=NOW - 1)),
        0,
        Reason.BURST,
        Stop("a", Reason.BURST),
        burst=True,
    ),
    case(
        "a-burst-is-not-over-while-a-job-runs",
        view(busy("a"), momentum=replace(CHEAP, drained_since=NOW - 1)),
        1,
        Reason.STEADY,
        burst=True,
    ),
    case(
        "a-burst-is-not-over-if-a-job-ended-meanwhile",
        view(worker("a", jobs=1), momentum=replace(CHEAP, drained_since=NOW - 1)),
        1,
        Reason.STEADY,
        burst=True,
    ),
    case(
        "restart-replaces-a-quarter-idle-first",
        view(busy("a"), busy("b"), worker("c"), restart_before=NOW),
        3,
        Reason.RESTART,
        Stop("c", Reason.RESTART),
        Spawn(1, Reason.RESTART),
    ),
    case(
        "restart-waits-for-those-that-move",
        view(
            busy("a"),
            busy("b"),
            worker("c", WorkerState.STARTING, spawned_at=NOW + 1),
            restart_before=NOW,
        ),
        3,
        Reason.STEADY,
    ),
    case(
        "a-silent-idle-worker-is-a-zombie",
        view(worker("a", beat=NOW - 401)),
        1,
        Reason.MIN,
        Stop("a", Reason.ZOMBIE),
        Spawn(1, Reason.MIN),
    ),
    case("a-busy-worker-answers-to-its-timeout", view(busy("a", beat=NOW - 999)), 1, Reason.STEADY),
    case("a-waiting-worker-is-no-zombie", view(waiting("a", beat=NOW - 999)), 1, Reason.STEADY),
    case(
        "an-absent-redis-makes-no-zombies",
        view(worker("a", beat=NOW - 999), queued=None),
        1,
        Reason.REDIS,
    ),
    case(
        "a-job-past-its-timeout-loses-its-worker",
        view(busy("a", job_started=NOW - 182, job_timeout=180.0)),
        1,
        Reason.MIN,
        Stop("a", Reason.OVERDUE),
        Spawn(1, Reason.MIN),
    ),
    case(
        "and-is-killed-five-seconds-after-it",
        view(
            busy(
                "a",
                job_started=NOW - 185.1,
                job_timeout=180.0,
                stop_at=NOW - 4,
                stop_reason=Reason.OVERDUE,
            )
        ),
        0,
        Reason.STEADY,
        Kill("a", Reason.OVERDUE),
        min_procs=0,
    ),
    case(
        "a-stopped-worker-may-finish-its-job",
        view(busy("a", stop_at=NOW - 99, stop_reason=Reason.CPU)),
        0,
        Reason.STEADY,
        min_procs=0,
    ),
    case(
        "an-idle-worker-must-leave-when-asked",
        view(worker("a", stop_at=NOW - 26, stop_reason=Reason.IDLE)),
        0,
        Reason.STEADY,
        Kill("a", Reason.TERMINATE),
        min_procs=0,
    ),
    case(
        "a-zombie-is-killed-after-terminate-seconds",
        view(busy("a", job_timeout=None, stop_at=NOW - 26, stop_reason=Reason.ZOMBIE)),
        0,
        Reason.STEADY,
        Kill("a", Reason.TERMINATE),
        min_procs=0,
    ),
    case(
        "nobody-is-killed-twice",
        view(worker("a", stop_at=NOW - 30, stop_reason=Reason.ZOMBIE, kill_at=NOW - 1)),
        0,
        Reason.STEADY,
        min_procs=0,
    ),
    case(
        "a-warm-stop-asks-everyone",
        view(busy("a"), worker("b"), drain=Drain.WARM, drain_deadline=NOW + 9),
        0,
        Reason.DRAIN,
        Stop("a", Reason.DRAIN),
        Stop("b", Reason.DRAIN),
    ),
    case(
        "a-warm-stop-ends-at-its-deadline",
        view(busy("a", stop_at=NOW - 9), drain=Drain.WARM, drain_deadline=NOW),
        0,
        Reason.DRAIN,
        Kill("a", Reason.TERMINATE),
    ),
    case(
        "a-cold-stop-asks-once-then-kills",
        view(busy("a", stop_at=NOW - 9), busy("b"), drain=Drain.COLD, drain_deadline=NOW + 9),
        0,
        Reason.COLD,
        Stop("b", Reason.COLD),
        Kill("a", Reason.COLD),
    ),
]


@pytest.mark.parametrize(("facts", "limits", "target", "reason", "actions"), TABLE)
def test_table(
    facts: PoolView, limits: Limits, target: int, reason: Reason, actions: tuple[Action, ...]
) -> None:
    """Each situation has one answer: a target, a reason, and what to do now."""
    decision = decide(facts, limits)

    assert (decision.target, decision.reason, decision.actions) == (target, reason, actions)


def test_steps_start_over_after_a_tick_without_need() -> None:
    """The step doubles while growth goes on and is forgotten once nobody is missing."""
    grown = view(busy("a"), queued=5, momentum=replace(CHEAP, step=2))
    calm = view(busy("a"), momentum=replace(CHEAP, step=4))

    assert remember(grown, decide(grown, LIMITS), LIMITS).step == 4
    assert remember(calm, decide(calm, LIMITS), LIMITS).step == 0


def test_cores_are_learned_from_busy_workers() -> None:
    """What busy workers use moves the expectation, by the weight of what was seen."""
    seen = view(
        busy("a", cores=0.9), busy("b", cores=0.7), momentum=Momentum(cores=0.2, evidence=2)
    )

    learned = remember(seen, decide(seen, LIMITS), LIMITS)

    assert learned.cores == pytest.approx((0.2 * 2 + 0.8 * 2) / 4)
    assert learned.evidence == 4


def test_decisions_hurry_when_memory_is_near_its_limit() -> None:
    """Four times a second near the limit, or on the way to it; once a second else."""
    near = view(busy("a"), samples=samples(mem=77))
    earlier, now = samples(mem=60)[-1], samples(mem=70)[-1]
    fast = view(busy("a"), samples=(replace(earlier, at=NOW - 1), now))

    assert pause(view(busy("a")), LIMITS) == 1.0
    assert pause(near, LIMITS) == pause(fast, LIMITS) == 0.25
    assert pause(near, replace(LIMITS, scale_frequency=0.1)) == 0.1


def test_the_oldest_job_has_its_memory_kept_for_it() -> None:
    """What its function usually takes beyond what it has; nothing where nobody works."""
    known = {**KNOWN, "f": replace(KNOWN[ANY], peak=300.0 * MIB, most=300.0 * MIB)}
    young = busy("b", function="f", pss=20 * MIB)
    old = busy("a", function="f", pss=200 * MIB, job_started=NOW - 9)

    assert reserve(view(young, old, lessons=known), LIMITS) == 100 * MIB
    assert reserve(view(worker("c"), lessons=known), LIMITS) == 0.0


def test_a_step_is_the_decision_and_what_follows_from_it() -> None:
    """With another rule too; the momentum follows from what was carried out, if that is known."""
    facts = view(busy("a"), queued=5, momentum=replace(CHEAP, step=2))
    held = replace(LIMITS, throttle=True)
    none, decision = Decision(1, Reason.STEADY), decide(facts, held)
    once = step(facts, held)

    assert (once.decision, once.momentum) == (decision, remember(facts, decision, held))
    assert (once.pause, once.reserve) == (pause(facts, held), reserve(facts, held))
    assert step(facts, held, rule=lambda *_: none).decision == none
    assert step(facts, held, done=none).momentum == remember(facts, none, held)
    assert step(facts, LIMITS).reserve == 0.0


def test_growing_back_what_was_shrunk_doubles_the_dwell() -> None:
    """A change that is taken back was a mistake; a minute later half of it is forgiven."""
    past = replace(CHEAP, shrunk_at=NOW - 5)
    facts = view(busy("a"), queued=5, momentum=past)
    once = remember(facts, decide(facts, LIMITS), LIMITS)
    again = view(momentum=once)

    assert once.dwell == 2.0
    assert dwell(again) == 2.0
    assert dwell(replace(again, now=NOW + DWELL_HALF_LIFE)) == 1.5
    assert dwell(view()) == 1.0


STATE = st.sampled_from(list(WorkerState))
AGE = st.floats(0, 2000)


@st.composite
def workers(draw: st.DrawFn, name: str) -> WorkerView:
    """Draw one worker in any state a scoreboard can show."""
    state = draw(STATE)
    has_job = state in (WorkerState.BUSY, WorkerState.WAITING)
    stop_at = NOW - draw(AGE) if draw(st.booleans()) else None
    return WorkerView(
        name=name,
        pid=draw(st.integers(1, 30000)),
        state=state,
        spawned_at=NOW - draw(AGE),
        since=NOW - draw(AGE),
        beat=NOW - draw(AGE),
        jobs=draw(st.integers(0, 9)),
        job_started=NOW - draw(AGE) if has_job else None,
        job_timeout=draw(st.none() | st.floats(0, 2000)) if has_job else None,
        pss=draw(st.none() | st.integers(0, GIB)),
        cores=draw(st.none() | st.floats(0, 4)),
        stop_at=stop_at,
        stop_reason=draw(st.sampled_from(list(Reason))) if stop_at is not None else None,
        kill_at=NOW - draw(AGE) if stop_at is not None and draw(st.booleans()) else None,
    )


@st.composite
def views(draw: st.DrawFn) -> PoolView:
    """Draw any view, sensible or not."""
    count = draw(st.integers(0, 10))
    return PoolView(
        now=NOW,
        workers=tuple(draw(workers(f"w{i}")) for i in range(count)),
        samples=draw(
            st.just(()) | st.builds(samples, cpu=st.floats(0, 100), mem=st.floats(0, 100))
        ),
        queued=draw(st.none() | st.integers(0, 10**6)),
        suspended=draw(st.booleans()),
        momentum=Momentum(
            grown_at=NOW - draw(AGE),
            shrunk_at=NOW - draw(AGE),
            step=draw(st.integers(0, 64)),
            over_cpu_since=draw(st.none() | st.floats(0, NOW)),
            drained_since=draw(st.none() | st.floats(0, NOW)),
            cores=draw(st.floats(0, 4)),
            evidence=draw(st.floats(0.1, 40)),
        ),
        boot_failures=draw(st.integers(0, 2000)),
        boot_failed_at=NOW - draw(AGE),
        floor=draw(st.integers(-10, 10)),
        restart_before=NOW - draw(AGE),
        drain=draw(st.none() | st.sampled_from(list(Drain))),
        drain_deadline=draw(st.none() | st.floats(0, 2 * NOW)),
    )


@st.composite
def any_limits(draw: st.DrawFn) -> Limits:
    """Draw limits that pass their check."""
    most = draw(st.integers(1, 20))
    return Limits(
        min_procs=draw(st.integers(0, most)),
        max_procs=most,
        max_per_scale=draw(st.integers(1, 20)),
        max_cpu=draw(st.floats(1, 100)),
        max_mem=draw(st.floats(1, 100)),
        mem_budget=draw(st.none() | st.integers(1, 8 * GIB)),
        retire_idle=draw(st.booleans()),
        burst=draw(st.booleans()),
        throttle=draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(views(), any_limits())
def test_properties(facts: PoolView, limits: Limits) -> None:
    """For any view: bounds hold, nothing is asked twice, and nobody dies unasked.

    Only memory, a drain, a burst's end or a hang take a worker below the smallest size. The same
    view gives the same decision and the same memory: there is nothing else.
    """
    decision = decide(facts, limits)
    by_name = {w.name: w for w in facts.workers}
    spawned = sum(a.count for a in decision.actions if isinstance(a, Spawn))
    stops = [a for a in decision.actions if isinstance(a, Stop)]
    kills = [a for a in decision.actions if isinstance(a, Kill)]

    if spawned:
        assert len(facts.workers) + spawned <= limits.max_procs, "the cap counts every process"
        assert all(a.count > 0 for a in decision.actions if isinstance(a, Spawn))
        replaced = (Reason.RESTART, Reason.ZOMBIE, Reason.OVERDUE)
        assert all(a.reason in replaced for a in stops), "grows and shrinks at once"
    assert 0 <= decision.target <= max(limits.max_procs, len(facts.workers))
    assert all(by_name[a.name].stop_at is not None for a in kills), "killed before it was stopped"
    assert all(by_name[a.name].stop_at is None for a in stops), "stopped twice"
    assert len({a.name for a in stops} | {a.name for a in kills}) == len(stops) + len(kills)
    assert all(by_name[a.name].kill_at is None for a in kills), "killed twice"

    live = [w for w in facts.workers if not w.stopping]
    chosen = [a for a in stops if a.reason in (Reason.IDLE, Reason.CPU)]
    if chosen:
        assert len(live) - len(chosen) >= floor(facts, limits), "below the floor by choice"

    again = decide(facts, limits)
    assert again == decision
    assert remember(facts, again, limits) == remember(facts, decision, limits)
