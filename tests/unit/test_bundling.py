"""Calls on their way together: who goes with whom, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from pysplash.client.bundling import MOST, WARY, Bundles
from pysplash.errors import CallError, ConnectionFailed, ExecutionError
from pysplash.jobs.bundles import BundleProgress


class Job:
    """A job by hand: its calls, and how they end."""

    def __init__(self, hand: Hand, payloads: Sequence[bytes]) -> None:
        self._hand = hand
        self.texts = [payload.decode() for payload in payloads]
        self.id = "job"
        self.awaited = self
        self.looks = 0
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(self, seconds: float = 0.0, count: int | None = None) -> None:
        """End it, with *count* answers, after *seconds*."""
        self.ended.set_result([seconds, *self.texts[:count]])

    async def wait(self, timeout: float) -> bool:
        """Wait for its end, however long; where it is to be looked at, let that be done first."""
        if self.looks:
            self.looks -= 1
            return False
        await asyncio.wait([self.ended])
        return True

    def value(self) -> Any:
        """Return its end."""
        return self.ended.result()

    async def parts(self) -> BundleProgress | None:
        """Say what is known of how far it got."""
        if isinstance(self._hand.known, Exception):
            raise self._hand.known
        return self._hand.known

    def drop(self) -> None:
        """Be forgotten."""


class Hand:
    """A client by hand: it keeps the jobs it is given."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.looks = 0
        self.known: BundleProgress | Exception | None = None

    async def submit_together(self, task: str, payloads: Sequence[bytes], ttl: float) -> Job:
        """Take a job."""
        self.jobs.append(Job(self, payloads))
        self.jobs[-1].looks = self.looks
        return self.jobs[-1]


def played(
    play: Callable[[Bundles, Hand, list[Any]], Awaitable[None]], gather: float = 1000
) -> list[Any]:
    """Return what calls came to, as a play makes them."""
    told: list[Any] = []

    async def run() -> None:
        hand: Any = Hand()
        some = Bundles(hand, "task", 1000, gather)
        await play(some, hand, told)
        await some.close()

    asyncio.run(run())
    return told


async def settled() -> None:
    """Let the loop do all that is to be done at once."""
    loop = asyncio.get_running_loop()
    for _ in range(20):
        turn: asyncio.Future[None] = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


def add(some: Bundles, told: list[Any], *texts: str) -> None:
    """Make calls at the same moment."""
    for text in texts:
        some.add(text.encode(), lambda answer, error: told.append(error or answer))


async def come(some: Bundles, told: list[Any], *texts: str) -> None:
    """Make calls at the same moment, and let them go."""
    add(some, told, *texts)
    await settled()


async def warm(some: Bundles, hand: Hand, told: list[Any]) -> None:
    """Make brief calls, one after the other, until as many go together as may."""
    while some._reach < MOST:
        await come(some, told, "w")
        hand.jobs[-1].answer()
        await settled()
    hand.jobs.clear()
    told.clear()


def test_at_first_each_call_has_its_job() -> None:
    """Nobody knows yet how long they take."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await come(some, told, "a", "b", "c")
        assert [job.texts for job in hand.jobs] == [["a"], ["b"], ["c"]]
        for job in reversed(hand.jobs):
            job.answer()
        await settled()

    assert played(play) == ["c", "b", "a"]


def test_brief_calls_go_together() -> None:
    """The first at once; what comes meanwhile with the next, when that one has landed."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, "a", "b")
        await come(some, told, "c")
        await come(some, told, "d")
        assert [job.texts for job in hand.jobs] == [["a", "b"]]
        hand.jobs[0].answer()
        await settled()
        assert [job.texts for job in hand.jobs] == [["a", "b"], ["c", "d"]]
        hand.jobs[1].answer()
        await settled()

    assert played(play) == ["a", "b", "c", "d"]


def test_enough_do_not_wait_for_others() -> None:
    """Half of what may go together goes while others are on their way."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, "a")
        await come(some, told, *"bcdefgh")
        assert [len(job.texts) for job in hand.jobs] == [1]
        await come(some, told, "i")
        assert [len(job.texts) for job in hand.jobs] == [1, 8]

    assert len(played(play)) == 9


def test_nobody_waits_long_for_others() -> None:
    """What is on its way may be behind others in its queue."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, "a")
        await come(some, told, "b")
        assert [job.texts for job in hand.jobs] == [["a"], ["b"]]

    played(play, gather=0)


def test_calls_that_take_long_go_alone_again() -> None:
    """As soon as one job has shown it."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, "a", "b")
        hand.jobs[0].answer(1.0)
        await settled()
        await come(some, told, "c", "d")
        assert [job.texts for job in hand.jobs[1:]] == [["c"], ["d"]]

    played(play)


def test_calls_that_were_not_begun_go_first() -> None:
    """And have their answers from another job."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, *"abc")
        await come(some, told, "d")
        hand.jobs[0].answer(count=1)
        await settled()
        hand.jobs[1].answer()
        await settled()
        assert [job.texts for job in hand.jobs] == [list("abc"), ["d"], list("bc")]
        hand.jobs[2].answer()
        await settled()

    assert played(play) == ["a", "d", "b", "c"]


def test_calls_whose_time_ends_at_other_times_go_apart() -> None:
    """One that is sent again may be nearly late: that is no reason to give others up."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        add(some, told, "old", "older")
        some._timeout += 2
        await come(some, told, "new")
        assert [job.texts for job in hand.jobs] == [["old", "older"]]
        hand.jobs[0].answer()
        await settled()
        assert [job.texts for job in hand.jobs] == [["old", "older"], ["new"]]

    played(play)


def test_calls_none_of_which_could_be_made_go_alone() -> None:
    """A worker without room for its notes makes none, rather than one that may be made twice."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, "a", "b")
        hand.jobs[0].answer(count=0)
        await settled()
        assert [job.texts for job in hand.jobs[1:]] == [["a"], ["b"]]

    played(play)


def test_a_late_call_keeps_no_other() -> None:
    """Those before it have their answers, those after it are sent again, once."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        hand.looks, hand.known = 2, BundleProgress(["A"], False)
        await come(some, told, *"abcd")
        assert told == ["A"]
        assert [job.texts for job in hand.jobs] == [list("abcd"), ["c"], ["d"]]
        for job in hand.jobs[1:]:
            job.answer()
        await settled()
        hand.jobs[0].answer(count=2)
        await settled()

    assert played(play) == ["A", "c", "d", "b"]


@pytest.mark.parametrize(
    "error", [ConnectionFailed("away"), CallError("refused"), ValueError("no JSON")]
)
def test_calls_outlive_a_look_that_fails(error: Exception) -> None:
    """How far a job has got is nice to know, no more."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        hand.looks, hand.known = 1, error
        await come(some, told, "a", "b")
        hand.jobs[0].answer()
        await settled()

    assert played(play) == ["a", "b"]


@pytest.mark.parametrize(("again", "sent"), [(False, ["c"]), (True, ["b", "c"])])
def test_a_job_that_failed_is_broken_up(again: bool, sent: list[str]) -> None:
    """What it says of the call in hand decides whether that is made again."""
    failure = ExecutionError("task", "failed", "", "id")

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, *"abc")
        hand.known = BundleProgress(["A"], again)
        hand.jobs[0].ended.set_exception(failure)
        await settled()
        assert [job.texts for job in hand.jobs[1:]] == [[text] for text in sent]
        assert told == ["A", *([] if again else [failure])]

    played(play)


def test_a_late_call_that_is_to_go_again_does() -> None:
    """Though by then it was alone in its job."""
    failure = ExecutionError("task", "failed", "", "id")

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        hand.looks, hand.known = 1, BundleProgress([], False)
        await come(some, told, *"ab")
        hand.known = BundleProgress([], True)
        hand.jobs[0].ended.set_exception(failure)
        await settled()
        assert [job.texts for job in hand.jobs[1:]] == [["b"], ["a"]]
        for job in hand.jobs[1:]:
            job.answer()
        await settled()

    assert played(play) == ["b", "a"]


def test_after_a_failure_calls_go_alone_for_a_while() -> None:
    """A task that fails now and then has its failures where RQ's tools show them."""
    failure = ExecutionError("task", "failed", "", "id")

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, "a", "b")
        hand.jobs[0].ended.set_exception(failure)
        await settled()
        assert told == [failure, failure], "nobody knows with which it failed"
        for _ in range(WARY):
            await come(some, told, "c")
            hand.jobs[-1].answer()
            await settled()
        assert some._reach == 1
        await come(some, told, "d")
        hand.jobs[-1].answer()
        await settled()
        assert some._reach == 2

    played(play)


def test_an_answer_that_makes_no_sense_is_an_error() -> None:
    """Somebody else's function may stand where the task should."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        for answer in ("text", [], [1.0], ["a", "b"], None):
            await come(some, told, "a")
            hand.jobs[-1].ended.set_result(answer)
            await settled()

    assert [type(each) for each in played(play)] == [CallError] * 5


def test_what_waits_when_the_door_closes_is_told_so() -> None:
    """Nobody is left without an answer."""

    async def play(some: Bundles, hand: Hand, told: list[Any]) -> None:
        await warm(some, hand, told)
        await come(some, told, "a")
        await come(some, told, "b")

    assert [str(each) for each in played(play)] == ["the door was closed"] * 2
