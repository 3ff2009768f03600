"""What must have become of a forest: the same trees played in plain Python.

Chance decides which limited waits were given up, and what was under way inside a job whose time
was over; that is taken from the jobs' own notes where it is allowed. All else has one right end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.tree_jobs import Forest, Node, Wait, digest
from tests.acceptance.trees import UNSERVED, endangered

#: how a run ends that has one of these troubles
ENDS = {"raise": "LookupError", "exit": "SystemExit", "again": "Retry", "lapse": "int"}
ENDS["doze"] = "JobTimeoutException"
OVERTAKEN = "inside which this job ran"


@dataclass
class Run:
    """One run of a node: what came of its waits, and how it ended."""

    waits: list[str] = field(default_factory=list)
    #: the small jobs that ran for it: of which wait, which
    leaves: list[tuple[int, int]] = field(default_factory=list)
    end: str = ""


@dataclass
class Seen:
    """What the server says of one node's job, and the job itself of its runs."""

    status: str | None
    value: Any = None
    trace: str = ""
    runs: list[Run] = field(default_factory=list)


class Complaint(Exception):
    """Something is not as it must be."""


class Judge:
    """Compares what was seen of each node with what must have been."""

    def __init__(self, forest: Forest, seen: list[Seen]) -> None:
        self._forest, self._seen = forest, seen
        self._in_danger = endangered(forest)
        #: how each node ended: its value, None: it failed, or not at all
        self._ended: dict[int, int | None] = {}

    def complaints(self) -> list[str]:
        """Return all that is wrong, node by node from the leaves up; nothing if all is well."""
        return list(self._complaints())

    def _complaints(self) -> Iterator[str]:
        for index in reversed(range(len(self._forest))):
            try:
                self._check(index, self._forest[index], self._seen[index])
            except Complaint as complaint:
                yield f"node {index}: {complaint}; seen: {self._seen[index]}"
            status, value = self._seen[index].status, self._seen[index].value
            if status in ("finished", "failed"):
                self._ended[index] = value if status == "finished" else None

    def _check(self, index: int, node: Node, seen: Seen) -> None:
        created, must = self._creation(node)
        if seen.status is None:
            insist(not must, "does not exist")
            insist(not seen.runs, "ran without being there")
            return
        insist(created, "exists although its owner never came to enqueue it")
        held = self._held(node, seen)
        if held:
            insist(seen.status == held, f"is not {held}")
            insist(not seen.runs, "ran although it was not to")
        elif index in self._in_danger:
            self._check_endangered(index, node, seen)
        else:
            self._check_runs(index, node, seen)

    def _creation(self, node: Node) -> tuple[bool, bool]:
        """Return whether it may have been enqueued, and whether it must have been."""
        if node.owner is None:
            return True, True
        owner, runs = self._forest[node.owner], self._seen[node.owner].runs
        if owner.trouble and owner.early:
            runs = runs[owner.times :]
        cut = node.owner in self._in_danger or owner.trouble == "doze"
        return bool(runs), bool(runs) and not cut

    def _held(self, node: Node, seen: Seen) -> str:
        """Return the status it must have kept without a run; nothing if it must have ended."""
        others = [self._seen[other].status for other in node.after]
        if all(status == "finished" for status in others):
            return "queued" if node.queue == UNSERVED else ""
        failed = all(status in ("finished", "failed") for status in others)
        if node.allow_failure and failed and seen.status != "deferred":
            # RQ releases it if it was enqueued before the others failed, else it does not.
            return "queued" if node.queue == UNSERVED else ""
        return "deferred"

    # --- runs ---

    def _check_runs(self, index: int, node: Node, seen: Seen) -> None:
        """Play its life: each run must have ended as it had to, and there must be as many."""
        left = retries(node)
        for number, run in enumerate(seen.runs, start=1):
            insist(left >= 0, f"ran {len(seen.runs)} times")
            end = self._end_of(node, number, run)
            insist(run.end == end, f"run {number} ended with {run.end!r}, not {end!r}")
            # who returns Retry was not enqueued with one
            over = (end == "int" and not lapsed(node, number)) or (
                node.trouble == "again" and end != "Retry"
            )
            left = -1 if over else left - 1
        insist(left < 0, f"ran only {len(seen.runs)} times")
        self._check_outcome(index, node, seen)

    def _check_outcome(self, index: int, node: Node, seen: Seen) -> None:
        last = seen.runs[-1]
        well = last.end == "int" and not lapsed(node, len(seen.runs))
        status = "finished" if well else "failed"
        insist(seen.status == status, f"is not {status}")
        if status == "finished":
            value = digest(index, self._values(node, last))
            insist(seen.value == value, f"did not return {value}")

    def _end_of(self, node: Node, number: int, run: Run) -> str:
        """Return how a run must have ended, after waits that came to what they may have."""
        troubled = bool(node.trouble) and number <= node.times
        if troubled and node.early:
            insist(not run.waits, "waited too soon")
            return ENDS[node.trouble]
        for place, wait in enumerate(node.waits):
            if place == len(run.waits):
                insist(node.trouble == "doze", f"run {number} left out wait {place}")
                break  # its time was over in the middle
            insist(run.waits[place] in self._may_come_to(wait), f"wait {place} went wrong")
            leaves = sorted(number for where, number in run.leaves if where == place)
            insist(leaves == list(range(len(wait.items))), f"wait {place}: ran {leaves}")
            if run.waits[place] == "failed":
                return "JobFailed"
        return ENDS[node.trouble] if troubled else "int"

    def _may_come_to(self, wait: Wait) -> Iterator[str]:
        failed = [self._ended.get(child, 0) is None for child in wait.children]
        failed += [not well for well in wait.items]
        if wait.max_wait is not None:
            yield "gave up"
        if any(failed) and wait.on_failure == "raise":
            yield "failed"
        elif all(child in self._ended for child in wait.children):
            yield "done"

    def _values(self, node: Node, run: Run) -> list[object]:
        return [
            "gave up" if came_to == "gave up" else list(self._results(wait))
            for wait, came_to in zip(node.waits, run.waits, strict=True)
        ]

    def _results(self, wait: Wait) -> Iterator[object]:
        values = [self._ended[child] for child in wait.children]
        values += [number if well else None for number, well in enumerate(wait.items)]
        for value in values:
            yield "failed" if value is None and wait.on_failure == "return" else value

    def _check_endangered(self, index: int, node: Node, seen: Seen) -> None:
        """Judge a node that may have been cut short: at any moment, even just before its code."""
        insist(len(seen.runs) <= retries(node) + 1, f"ran {len(seen.runs)} times")
        if seen.status == "failed" and OVERTAKEN in seen.trace:
            return
        for number, run in enumerate(seen.runs, start=1):
            if run.end not in ("Overtaken", ""):
                end = self._end_of(node, number, run)
                insist(run.end == end, f"run {number} ended with {run.end!r}, not {end!r}")
        insist(bool(seen.runs), "never ran")
        self._check_outcome(index, node, seen)


def retries(node: Node) -> int:
    """Return how many runs there may be after the first."""
    return max(1, node.retries) if node.trouble == "again" else node.retries


def lapsed(node: Node, number: int) -> bool:
    """Return whether what its run no. *number* returned came too late to count."""
    return node.trouble == "lapse" and number <= node.times


def insist(holds: bool, complaint: str) -> None:
    """Raise Complaint unless it holds."""
    if not holds:
        raise Complaint(complaint)


def count(runs: list[list[Any]], size: int) -> list[list[Run]]:
    """Return the runs of each node, from the notes the jobs have left in order."""
    found: list[list[Run]] = [[] for _ in range(size)]
    starts: Counter[int] = Counter()
    for index, number, event, what in runs:
        if event == "start":
            starts[index] += 1
            insist(number == starts[index], f"node {index}: run {number} started out of turn")
            found[index].append(Run())
        elif event == "leaf":
            found[index][number - 1].leaves.append(tuple(what))
        elif event == "wait":
            found[index][number - 1].waits.append(what)
        else:
            found[index][number - 1].end = what
    return found
