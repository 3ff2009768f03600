"""The ledger of a storm: what each job was meant to do, what became of it, and what is wrong.

Pure: :mod:`benchmarks.census` finds the facts, :func:`judge` names the faults.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

#: a job waits for one of so many before it
NEAR = 50
#: failures of a job that is never meant to return
ALWAYS = 99


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of job."""

    name: str
    #: how many of a hundred jobs are of this kind
    share: int
    #: longest time in seconds a run takes
    seconds: float = 0.0
    #: attempts that are meant to raise
    failures: int = 0
    retries: int = 0
    at_front: bool = False
    #: whether it waits for another job to finish
    dependent: bool = False


KINDS = (
    Kind("plain", 62),
    Kind("nap", 10, seconds=0.006),
    Kind("front", 6, at_front=True),
    Kind("retry", 8, seconds=0.006, retries=2),
    Kind("flaky", 4, failures=1, retries=2),
    Kind("failing", 4, failures=ALWAYS),
    Kind("hopeless", 2, failures=ALWAYS, retries=2),
    Kind("dependent", 4, dependent=True),
)


@dataclass(frozen=True, slots=True)
class Task:
    """A job as it is enqueued; its id ends in its number."""

    job_id: str
    kind: Kind
    queue: str
    seconds: float = 0.0
    #: the job it waits for; "" for none
    parent: str = ""


def plan(jobs: int, seed: int, queues: Sequence[str]) -> list[Task]:
    """Return the jobs of a storm in the order of their numbers, the same for the same seed."""
    chance = random.Random(seed)
    kinds = chance.choices(KINDS, [kind.share for kind in KINDS], k=jobs)
    tasks: list[Task] = []
    for number, kind in enumerate(kinds):
        near = [task.job_id for task in tasks[-NEAR:] if not task.parent]
        parent = chance.choice(near) if kind.dependent and near else ""
        queue, seconds = chance.choice(queues), chance.uniform(0, kind.seconds)
        tasks.append(Task(f"{kind.name}-{number}", kind, queue, seconds, parent))
    return tasks


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis says of a job once nothing runs any more."""

    #: every place its id is in, as often as it is in it
    places: tuple[str, ...] = ()
    #: the status in its hash; "" where there is no hash
    status: str = ""
    #: how many results of success it has
    successes: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job: whether another run of it lived meanwhile, and how it ended."""

    alone: bool = True
    #: "returned", "raised", or "" if it was cut short
    end: str = "returned"


@dataclass(frozen=True, slots=True)
class Case:
    """All there is to know about one job."""

    task: Task
    found: Found
    runs: Sequence[Run]
    #: what Redis says of the job it waits for
    parent: Found

    @property
    def finished(self) -> bool:
        """Whether it is among the finished jobs."""
        return "finished" in self.found.places

    @property
    def returns(self) -> int:
        """How many of its runs returned."""
        return sum(run.end == "returned" for run in self.runs)

    @property
    def allowed(self) -> int:
        """How many runs it may have."""
        return 1 + self.task.kind.retries

    def blame(self) -> int:
        """Return how many of its attempts must have been ended by the death of a worker.

        Runs cut short; runs whose return was not stored; attempts that a failed job did not have.
        """
        cut = sum(not run.end for run in self.runs)
        unstored = max(0, self.returns - self.finished)
        failed = self.found.places == ("failed",)
        return cut + unstored + (max(0, self.allowed - len(self.runs)) if failed else 0)


def _is_stranded(case: Case) -> bool:
    """Whether the job is where nobody will look for it."""
    places = case.found.places
    forgotten = "deferred" in places and "finished" in case.parent.places
    return forgotten or bool({"intermediate", "started", "quarantine", "ready"} & set(places))


def _is_at_odds(case: Case) -> bool:
    """Whether the job's own records say something else than the place it is in."""
    if len(case.found.places) != 1 or _is_stranded(case):
        return False
    (place,) = case.found.places
    return case.found.status != place or case.found.successes != int(case.finished)


#: each fault of one job, in the order in which they are told
FAULTS: dict[str, Callable[[Case], bool]] = {
    "lost": lambda case: not case.found.places,
    "stranded": _is_stranded,
    "left waiting": lambda case: bool({"queued", "scheduled"} & set(case.found.places)),
    "in two places": lambda case: len(case.found.places) > 1,
    "at odds": _is_at_odds,
    "run too often": lambda case: len(case.runs) > case.allowed,
    "overlapping": lambda case: not all(run.alone for run in case.runs),
    "finished unrun": lambda case: case.finished and not case.returns,
}


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a storm's jobs."""

    jobs: int
    places: Mapping[str, int]
    runs: int
    #: runs cut short by a worker's death
    cut: int
    #: attempts that only the death of a worker explains
    blamed: int
    #: what is wrong, and with whom; no entry where nothing is
    faults: Mapping[str, Sequence[str]]

    def with_faults(self, more: Mapping[str, Sequence[str]]) -> Account:
        """Return it with what else is wrong."""
        faults = {**self.faults, **{name: who for name, who in more.items() if who}}
        return replace(self, faults=faults)


def judge(
    tasks: Iterable[Task],
    found: Mapping[str, Found],
    runs: Mapping[str, Sequence[Run]],
    kills: int,
) -> Account:
    """Account for every job, given how many workers were killed.

    A kill ends one attempt at most; what more attempts died of, nobody can say.
    """
    nothing = Found()
    cases = [
        Case(
            task,
            found.get(task.job_id, nothing),
            runs.get(task.job_id, ()),
            found.get(task.parent, nothing),
        )
        for task in tasks
    ]
    blamed = [case.task.job_id for case in cases for _ in range(case.blame())]
    faults = {
        name: tuple(case.task.job_id for case in cases if is_wrong(case))
        for name, is_wrong in FAULTS.items()
    }
    faults["unexplained"] = tuple(blamed[kills:])
    return Account(
        jobs=len(cases),
        places=Counter(place for case in cases for place in case.found.places),
        runs=sum(len(case.runs) for case in cases),
        cut=sum(not run.end for case in cases for run in case.runs),
        blamed=len(blamed),
        faults={name: ids for name, ids in faults.items() if ids},
    )


def read_runs(lines: Iterable[str]) -> dict[str, list[Run]]:
    """Return each job's runs, from the lines of the log in the order in which they were written."""
    records = [line.split() for line in lines]
    ends = {words[1]: (at, words[2]) for at, words in enumerate(records) if words[0] == "end"}
    runs: dict[str, list[Run]] = {}
    until: dict[str, int] = {}
    for at, words in enumerate(records):
        if words[0] != "begin":
            continue
        _, run, job_id, company = words
        ended, how = ends.get(run, (at, ""))
        before = until.get(job_id, -1)
        runs.setdefault(job_id, []).append(Run(company == "alone" and before < at, how))
        until[job_id] = max(before, ended)
    return runs
