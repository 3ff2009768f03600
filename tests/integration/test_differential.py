"""Our worker leaves behind what RQ's does: both play each scenario, then all keys are compared."""

from __future__ import annotations

import inspect
import re
import signal
from collections.abc import Callable, Iterable, Iterator

import pytest
from redis import Redis
from rq.executions import Execution

from tests.generation import RQ_3, since_3
from tests.servers import own_server

from . import scenario_jobs as jobs
from .scenarios import ONE_JOB
from .scenarios_of_many import MANY_JOBS
from .scenarios_of_three import SINCE_3
from .scenarios_of_trouble import TAMPERED
from .snapshot import Snapshot, differences, take
from .staging import (
    Build,
    Scenario,
    build_alone,
    build_hasty,
    build_in_pool,
    build_prefetching,
    build_reference,
    play,
)

ALL = [*ONE_JOB, *MANY_JOBS, *TAMPERED, *SINCE_3]
SCENARIOS = {scenario.name: scenario for scenario in ALL if RQ_3 or scenario not in SINCE_3}

#: where our worker may differ from RQ's, and why: patterns of a scenario's name, a colon and a path
ALLOWED = {
    r"warm stop: after run 1: rq:worker:w1\[shutdown_requested_date\]": (
        "our stop handler sets a flag and nothing else, so that a stop may come at any moment"
    ),
    r".*: (run \d: )?look \d: rq:worker:w\d(:executions)? ttl": (
        "while at work our worker's keys are made to outlive the lease, RQ's to end with it"
    ),
    r"(suspended|abandoned with a callback): (after )?run \d: (look 1: )?rq:worker:w\d\[state\]": (
        "we are idle, and RQ is still started, when we look whether to work at all"
    ),
}
if RQ_3:
    ALLOWED[r"suspended: after run 1: rq:clean_groups.*"] = (
        "we clean before we look whether to work at all, and RQ 3 leaves a lock that ends by itself"
    )
if "worker_name" not in inspect.signature(Execution).parameters:
    ALLOWED[r".*: rq:execution:.*\[worker_name\]"] = (
        "RQ before 2.11 does not say whose an execution is; we do, and settle by it"
    )
#: where single scenarios differ, and why
ALLOWED_IN_SCENARIO = {
    "ttl is over": (r".*:intermediate.*", "RQ leaves the id of a job that is gone behind"),
    "hash is gone": (r".*:intermediate.*", "RQ leaves the id of a job that is gone behind"),
    "ids without jobs": (r".*:intermediate.*", "RQ leaves the id of a job that is gone behind"),
    "hash without data": (
        r".*(:intermediate|pysplash:quarantine:|rq:job:a|rq:results:a|current_job_working_time).*",
        "RQ passes over it in silence; here it fails, and its id is set aside for a person to find",
    ),
    "no origin stored": (
        r".*:intermediate.*",
        "RQ leaves the id behind, because it looks for it under another queue's name",
    ),
    "broken handler": (
        r".*",
        "what leaves RQ's bookkeeping ends its worker and leaves the job started; here it fails "
        "(test_a_broken_handler_changes_nothing)",
    ),
    "fails with what cannot be encoded": (
        r".*",
        "the same; test_worker.py says how it fails",
    ),
    "data is not packed": (
        r".*rq:job:a\[data\]",
        "RQ packs what an old version stored unpacked; we leave it as it is",
    ),
    "deletes itself": (
        r".*: rq:(finished:default|job:a|results:a).*",
        "RQ brings a job back that deleted itself; here it stays deleted",
    ),
    "deletes itself and fails": (
        r".*: rq:(failed:default|job:a|results:a).*",
        "the same",
    ),
    "stopped by command": (
        r".*: (journal|rq:job:a\[last_heartbeat\]|rq:results:a\[0\]\[exc_string\]).*",
        "RQ's in-process worker cannot stop its job, which then fails by itself; ours stops it",
    ),
}
#: where it may differ besides when it works for a pool
ALLOWED_IN_POOL = {
    r".*: rq:(executions?|wip):.*": (
        "a pool renews its workers' leases every few seconds, so they are 90 s and not the timeout"
    ),
    r".*: rq:worker:w\d\[pysplash_(hand|turn)\]": "there our worker names what it has in hand",
}
#: where it may differ besides when it takes every job for a brief one
ALLOWED_AHEAD = {
    r".*: run \d: look \d: rq:queue:.*": "the next jobs are in the worker's hand",
    r".*: run \d: look \d: rq:job:\w+\[(status|started_at|last_heartbeat|worker_name)\]": (
        "what is in its hand counts as started"
    ),
    r".*: run \d: look \d: rq:results:.*\[execution_id\]": (
        "executions are numbered as they come to sight, and there is one more"
    ),
    r"((retry|dependent|limit\W) at front|dependent of a repeat|sends another to .*): .*": (
        "what a job puts in front of the next one comes after that, which is in hand already"
    ),
    r"(deletes|cancels) the next: .*": "so does what a job does to the next one",
    r"round robin: .*": "queues take turns by batches",
    r"suspends all: .*": "the next job is run although RQ is suspended meanwhile",
}
if RQ_3:
    ALLOWED_AHEAD[r".*: run \d: look \d: rq:worker:w\d:executions.*"] = (
        "a job of a batch gets its record, and is listed with its worker, when it takes longer"
    )
#: scenarios that show the rarer ones of these differences: the first to be looked at for them
TELLING = ("mixed", "random")
#: there is nothing to fetch ahead where there is one job; a worker in haste takes several at once
AHEAD, HASTY = "prefetching", "in haste"

MODES: dict[str, tuple[Build, dict[str, str]]] = {
    "alone": (build_alone, ALLOWED),
    "in a pool": (build_in_pool, ALLOWED | ALLOWED_IN_POOL),
    AHEAD: (build_prefetching, ALLOWED | ALLOWED_IN_POOL | ALLOWED_AHEAD),
    HASTY: (build_hasty, ALLOWED | ALLOWED_IN_POOL | ALLOWED_AHEAD),
}


def is_played(number: int, scenario: Scenario, mode: str) -> bool:
    """Whether a scenario is for a mode; in haste every fourth is played."""
    batches = mode in (AHEAD, HASTY)
    if (mode != "alone" and not scenario.pool) or (batches and scenario in ONE_JOB):
        return False
    return mode != HASTY or number % 4 == 0


CASES = [
    pytest.param(
        scenario, mode, id=f"{scenario.name}-{mode}", marks=since_3 if scenario in SINCE_3 else ()
    )
    for number, scenario in enumerate(ALL)
    for mode in MODES
    if is_played(number, scenario, mode)
]


def permitted(line: str, allowed: Iterable[str]) -> bool:
    """Whether the difference on *line* is one of *allowed*."""
    return any(re.match(f"{pattern}: RQ has ", line) for pattern in allowed)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the address of the one server on which all is played."""
    with own_server() as server:
        yield server.url


@pytest.fixture(scope="module")
def played() -> dict[str, Snapshot]:
    """Return what RQ's worker has left, scenario by scenario, as far as it was played."""
    return {}


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    """Workers take the process's handlers; give them back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("scenario", "mode"), CASES)
def test_all_keys_are_rqs(
    scenario: Scenario, mode: str, url: str, played: dict[str, Snapshot]
) -> None:
    """What a scenario leaves in Redis, and shows on its way, does not depend on the worker."""
    if scenario.name not in played:
        played[scenario.name] = play(scenario, build_reference, url)
    build, everywhere = MODES[mode]
    allowed = [*everywhere]
    if scenario.name in ALLOWED_IN_SCENARIO:
        allowed.append(ALLOWED_IN_SCENARIO[scenario.name][0])

    found = differences(played[scenario.name], play(scenario, build, url))
    found = [line for line in found if not permitted(f"{scenario.name}: {line}", allowed)]

    assert not found, "\n".join(found)


def deviations(name: str, mode: str, url: str) -> list[str]:
    """Return all differences of a scenario, allowed or not."""
    theirs, ours = (
        play(SCENARIOS[name], build, url) for build in (build_reference, MODES[mode][0])
    )
    return [f"{name}: {line}" for line in differences(theirs, ours)]


@pytest.mark.parametrize(
    ("mode", "pattern"),
    [(mode, pattern) for mode in MODES if mode != HASTY for pattern in MODES[mode][1]],
)
def test_what_is_allowed_is_needed(mode: str, pattern: str, url: str) -> None:
    """A difference that is gone must be taken off the list."""
    names = [name for name in SCENARIOS if re.fullmatch(pattern.split(": ", maxsplit=1)[0], name)]
    names.sort(key=lambda name: name not in TELLING)
    found = (line for name in names for line in deviations(name, mode, url))

    assert any(permitted(line, [pattern]) for line in found), names


def test_a_broken_handler_changes_nothing(url: str) -> None:
    """A failure is stored as RQ stores it where no handler breaks."""
    theirs = play(SCENARIOS["fails"], build_reference, url)
    ours = play(SCENARIOS["broken handler"], build_alone, url)

    assert differences(theirs, ours) == []


@pytest.mark.parametrize("name", ALLOWED_IN_SCENARIO)
def test_what_is_allowed_in_a_scenario_is_needed(name: str, url: str) -> None:
    """So must one that was of a single scenario."""
    found = deviations(name, "alone", url)

    assert any(permitted(line, [ALLOWED_IN_SCENARIO[name][0]]) for line in found), found


def test_no_scenario_is_hidden_by_another() -> None:
    """Each scenario has a name of its own."""
    assert len({scenario.name for scenario in ALL}) == len(ALL)


def test_every_job_of_a_scenario_is_seen(url: str) -> None:
    """The comparison is of something: a play shows looks, registries, results and the journal."""
    seen = play(SCENARIOS["mixed"], build_reference, url)

    for path in (
        "run 1: work()",
        "run 1: look 1: rq:worker:w1" + (":executions[a:<id 1>]" if RQ_3 else "[current_job]"),
        "run 1: look 1: rq:wip:default[a:<id 1>]",
        "run 1: look 5: rq:execution:f:<id 1>[created_at]",
        "after run 1: rq:results:b[0][exc_string]",
        "after run 1: rq:finished:default[a]",
        "after run 1: rq:job:a ttl",
        "after run 1: journal[0]",
    ):
        assert path in seen


MEDDLING: dict[str, tuple[Callable[[Redis], object], str]] = {
    "job never expires": (lambda redis: redis.persist("rq:job:a"), "rq:job:a ttl"),
    "job expires too late": (lambda redis: redis.expire("rq:job:a", 560), "rq:job:a ttl"),
    "result expires too early": (
        lambda redis: redis.expire("rq:results:a", 60),
        "rq:results:a ttl",
    ),
    "wrong status": (lambda redis: redis.hset("rq:job:a", "status", "x"), "rq:job:a[status]"),
    "no end": (lambda redis: redis.hset("rq:job:a", "ended_at", ""), "rq:job:a[ended_at]"),
    "time in another form": (
        lambda redis: redis.hset("rq:job:a", "ended_at", redis.time()[0]),
        "rq:job:a[ended_at]",
    ),
    "field lost": (lambda redis: redis.hdel("rq:job:a", "enqueued_at"), "rq:job:a[enqueued_at]"),
    "field too many": (
        lambda redis: redis.hset("rq:worker:w1", "current_job", "a"),
        "rq:worker:w1[current_job]",
    ),
    "wrong count": (
        lambda redis: redis.hincrby("rq:worker:w1", "failed_job_count", 1),
        "rq:worker:w1[failed_job_count]",
    ),
    "wrong score": (
        lambda redis: redis.zincrby("rq:finished:default", -440, "a"),
        "rq:finished:default[a]",
    ),
    "score with a fraction": (
        lambda redis: redis.zincrby("rq:finished:default", 0.5, "a"),
        "rq:finished:default[a]",
    ),
    "wrong member": (
        lambda redis: redis.zadd("rq:finished:default", {"b": 1}),
        "rq:finished:default[b]",
    ),
    "execution left": (
        lambda redis: redis.hset("rq:execution:a:1", "id", 1),
        "rq:execution:a:1[id]",
    ),
    "worker not signed off": (
        lambda redis: redis.sadd("rq:workers", "rq:worker:w1"),
        "rq:workers[rq:worker:w1]",
    ),
    "job left on a queue": (
        lambda redis: redis.rpush("rq:queue:default:intermediate", "a"),
        "rq:queue:default:intermediate[0]",
    ),
    "result twice": (
        lambda redis: redis.xadd("rq:results:a", {"type": 1}),
        "rq:results:a[1][type]",
    ),
    "error forgotten": (
        lambda redis: redis.xtrim("rq:results:b", maxlen=0),
        "rq:results:b[0][exc_string]",
    ),
    "order of work": (lambda redis: redis.lmove("journal", "journal"), "journal[0]"),
    "key too many": (
        lambda redis: redis.set("rq:clean_registries:default", 1),
        "rq:clean_registries:default",
    ),
}


@pytest.mark.parametrize("name", MEDDLING)
def test_a_planted_difference_is_found(name: str, url: str) -> None:
    """The comparison is no formality: each fault, planted by hand in a database, is named."""
    play(SCENARIOS["mixed"], build_reference, url)
    meddle, path = MEDDLING[name]
    with Redis.from_url(url) as client:
        before = take(client)
        meddle(client)
        found = differences(before, take(client))

    assert any(line.startswith(f"{path}: RQ has") for line in found), found


def test_two_plays_by_the_same_worker_are_alike(url: str) -> None:
    """What differs from run to run is left out of the comparison."""
    first = play(SCENARIOS["mixed"], build_reference, url)
    second = play(SCENARIOS["mixed"], build_reference, url)

    assert differences(first, second) == []
    assert jobs.SEEN
