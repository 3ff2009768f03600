"""The sampler on the real machine, and lessons in a real server."""

from __future__ import annotations

import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

import pytest
from redis import Redis

from pysplash.control.model import ANY, PROVEN, Lesson
from pysplash.errors import LessonsUnavailable
from pysplash.host.capacity import Host
from pysplash.host.sampling import Sampler
from pysplash.supervisor.forkserver.throttling import cpu_seconds
from pysplash.supervisor.lessons import KEY, MOST_RECORD, LessonStore
from tests.waiting import wait_until

MIB = 2**20


def spin_and_grow(line: Connection[Any, Any]) -> None:
    """Compute until told to grow, then hold 100 MiB and compute on."""
    held = b""
    while True:
        if line.poll():
            line.recv()
            held = bytes(range(256)) * (100 * MIB // 256)
            line.send(len(held))
        sum(range(2000))


def test_a_process_that_computes_and_grows_is_seen() -> None:
    """Cores, proportional size and its growth, from the kernel's own counters."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=spin_and_grow, args=(theirs,))
    process.start()
    try:
        pid = process.pid or 0
        sampler = Sampler(Host(), pss_interval=3600.0)

        def look() -> float:
            sampler.sample(time.monotonic(), [pid], [pid])
            return sampler.cores(pid) or 0.0

        wait_until(lambda: look() > 0.05, 30.0, "a process that computes")
        wait_until(lambda: (sampler.pss(pid) or 0) > MIB, 30.0, "its size")
        before = sampler.pss(pid) or 0
        ours.send("grow")
        assert ours.poll(30.0)
        wait_until(lambda: look() >= 0 and (sampler.pss(pid) or 0) > before + 90 * MIB, 30.0)
    finally:
        process.kill()
        process.join(10)


def compute_by_turns(line: Connection[Any, Any]) -> None:
    """Use three milliseconds of CPU time whenever asked."""
    while True:
        line.recv()
        end = time.process_time() + 0.003
        while time.process_time() < end:
            pass
        line.send(True)


def test_the_fast_loop_sees_less_than_a_hundredth_of_a_second() -> None:
    """Of a crowd on few cores, each gets less than that in a slice and yet must be seen."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=compute_by_turns, args=(theirs,))
    process.start()
    pid = process.pid or 0
    try:
        for _ in range(10):
            before = cpu_seconds(pid) or 0.0
            ours.send(True)
            assert ours.poll(30.0)
            assert ours.recv()
            assert (cpu_seconds(pid) or 0.0) - before >= 0.003
    finally:
        process.kill()
        process.join(10)

    assert cpu_seconds(pid) is None


def test_the_machine_answers_every_question() -> None:
    """Cores, memory, stalls and swap: each is a number that makes sense, or known to be absent."""
    machine = Host()
    stalled = machine.stalled_seconds()

    assert machine.cores() > 0
    assert 0 < machine.memory().used < machine.memory().total
    assert stalled is None or stalled >= 0
    assert all(count >= 0 for count in machine.swaps())


def test_lessons_outlive_a_pool(redis: Redis) -> None:
    """What one pool saved the next one starts with, believed but soon outweighed; it expires."""
    learned = {ANY: Lesson(jobs=500, cores=0.4, peak=1e8), "f": Lesson(jobs=500, cores=0.2)}
    LessonStore(redis).save(learned)
    known = LessonStore(redis).load()

    assert known["f"].cores == 0.2
    assert known[ANY].peak == 1e8
    assert known["f"].jobs == PROVEN
    assert 0 < redis.ttl(KEY) <= 7 * 86400


def test_only_news_are_saved(redis: Redis) -> None:
    """A pool that has learned nothing new writes nothing."""
    lessons, learned = LessonStore(redis), {ANY: Lesson(jobs=5)}
    lessons.save(learned)
    redis.delete(KEY)
    lessons.save(learned)

    assert not redis.exists(KEY)


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"jobs": 1}', b"9" * (MOST_RECORD + 1), b"[" * 900],
)
def test_strange_lessons_are_passed_over(redis: Redis, record: bytes) -> None:
    """Anyone may write to Redis; what is no lesson teaches nothing, and does not stop the rest."""
    LessonStore(redis).save({"good": Lesson(jobs=9)})
    redis.hset(KEY, mapping={"bad": record, b"\xff\xfe": record, "x" * 10000: json.dumps({})})

    assert list(LessonStore(redis).load()) == ["good"]


def test_a_key_of_another_kind_is_no_lesson(redis: Redis) -> None:
    """A string where the hash should be is an error with words, not a crash."""
    redis.set(KEY, "surprise")

    with pytest.raises(LessonsUnavailable, match="cannot be read"):
        LessonStore(redis).load()
    with pytest.raises(LessonsUnavailable, match="cannot be saved"):
        LessonStore(redis).save({ANY: Lesson()})


def test_there_are_only_so_many_lessons(redis: Redis) -> None:
    """Names without end do not fill Redis: the hash starts over."""
    redis.hset(KEY, mapping={f"f{n}": "{}" for n in range(2000)})
    LessonStore(redis).save({"f": Lesson(jobs=9)})

    assert redis.hlen(KEY) == 1
