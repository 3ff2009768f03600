"""Random forests of jobs that wait for jobs, each of which must come to an end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.acceptance.tree_jobs import Forest, Node, Trouble, Wait

#: queues the pool serves, and one that nobody does
SERVED, UNSERVED = ("a", "b"), "nobody"
#: seconds of a wait that must be given up, and of work that outlasts a short timeout
SOON, SLOW = 0.05, 1.3
#: nodes of a forest
MOST = 24


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    """Return a forest: its first node is a root, any other may be one."""
    size = draw(st.integers(1, MOST))
    parents = [draw(_parents(index)) for index in range(size)]
    nodes = []
    for index in range(size):
        children = [other for other in range(index + 1, size) if index in parents[other]]
        only = len(parents[index]) == 1 and draw(st.booleans())
        owner = next(iter(parents[index])) if only else None
        node = replace(draw(_nodes), waits=draw(_waits(children)), owner=owner)
        # who is settled while he runs may not go on for long: his next run has begun
        nodes.append(replace(node, early=node.early and node.trouble != "lapse"))
    _delay(nodes, draw(_long_ones(nodes)))
    return mend(draw(_dependencies(nodes)))


def _parents(index: int) -> st.SearchStrategy[set[int]]:
    """Who waits for a node: deep, flat and bushy trees, shared children and further roots."""
    if index == 0:
        return st.just(set())
    one = st.one_of(st.just(index - 1), st.just(0), st.integers(0, index - 1))
    return st.one_of(one.map(lambda only: {only}), st.sets(one, max_size=3))


_troubles: list[Trouble] = ["", "", "", "", "", "", "raise", "exit", "again", "lapse"]
_nodes = st.builds(
    Node,
    trouble=st.sampled_from(_troubles),
    early=st.booleans(),
    times=st.integers(1, 3),
    retries=st.integers(0, 2),
    queue=st.sampled_from([*SERVED * 10, UNSERVED]),
    at_front=st.booleans(),
    nap=st.sampled_from([0.0] * 12 + [0.001] * 6 + [0.01] * 2),
    allow_failure=st.booleans(),
)


@st.composite
def _waits(draw: st.DrawFn, children: list[int]) -> tuple[Wait, ...]:
    """Return waits in which every one of *children* is waited for, now and then twice."""
    waits = []
    left = draw(st.permutations(children))
    while left:
        count = draw(st.integers(1, len(left)))
        group, left = left[:count], left[count:]
        if draw(st.integers(0, 9)) == 9:
            group.append(group[0])
        waits.append(replace(draw(_manners()), children=tuple(group)))
    if draw(st.integers(0, 5)) == 5:
        items = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=1, max_size=6))
        waits.append(replace(draw(_manners()), items=tuple(items)))
    return tuple(waits)


@st.composite
def _manners(draw: st.DrawFn) -> Wait:
    max_wait = draw(st.sampled_from([None] * 6 + [0, SOON]))
    # a wait that does not help could need one worker more than there is
    help = max_wait is None or draw(st.booleans())
    on_failure = draw(st.sampled_from(["raise", "none", "return"]))
    return Wait(on_failure=on_failure, max_wait=max_wait, help=help)


@st.composite
def _long_ones(draw: st.DrawFn, nodes: list[Node]) -> dict[int, bool]:
    """Return which nodes take a second or more, and which of them exceed their timeout so."""
    if draw(st.integers(0, 7)) < 7:
        return {}
    waiting = [index for index, node in enumerate(nodes) if node.waits]
    found = draw(st.sets(st.integers(0, len(nodes) - 1), max_size=1))
    long_ones = dict.fromkeys(found, draw(st.booleans()))
    if waiting:
        long_ones[draw(st.sampled_from(waiting))] = True
    return long_ones


def _delay(nodes: list[Node], long_ones: dict[int, bool]) -> None:
    for index, dozes in long_ones.items():
        node = nodes[index]
        if dozes:
            # with waits behind it, its timeout must have outlived those of the jobs inside it
            late = replace(node, trouble="doze", early=node.early and not node.waits)
            nodes[index] = replace(late, times=9, retries=min(1, node.retries))
        else:
            nodes[index] = replace(node, nap=SLOW)


@st.composite
def _dependencies(draw: st.DrawFn, nodes: list[Node]) -> list[Node]:
    """Let some nodes depend on later ones that surely exist by then."""
    found = []
    for index, node in enumerate(nodes):
        near = {node.owner, None}
        others = [j for j in range(index + 1, len(nodes)) if nodes[j].owner in near]
        wanted = others and draw(st.integers(0, 3)) == 3
        after = draw(st.sets(st.sampled_from(others), max_size=2)) if wanted else ()
        found.append(replace(node, after=tuple(sorted(after))))
    return found


def mend(nodes: list[Node]) -> Forest:
    """Return the forest with a limit for every wait that could last for ever.

    What may not end: a job in a queue that nobody serves, one that depends on a job that may fail
    or not end (RQ leaves it deferred). What waits for such a job needs a limit.
    """
    mended = list(nodes)
    fails, stays = endangered(nodes), set[int]()
    for index in reversed(range(len(nodes))):
        node = mended[index]
        if node.trouble or any(_hurts(wait, fails) for wait in node.waits):
            fails.add(index)
        if node.queue == UNSERVED or set(node.after) & (fails | stays):
            stays.add(index)
        mended[index] = replace(node, waits=tuple(_bounded(wait, stays) for wait in node.waits))
    return tuple(mended)


def _hurts(wait: Wait, fails: set[int]) -> bool:
    return bool(set(wait.children) & fails) or not all(wait.items)


def _bounded(wait: Wait, stays: set[int]) -> Wait:
    without_end = wait.max_wait is None and set(wait.children) & stays
    return replace(wait, max_wait=SOON) if without_end else wait


def endangered(nodes: list[Node] | Forest) -> set[int]:
    """Return the nodes that a timeout further out may cut short: all beneath one that dozes."""
    found: set[int] = set()
    for index, node in enumerate(nodes):
        if node.trouble == "doze" or index in found:
            found.update(node.after, *(wait.children for wait in node.waits))
    return found
