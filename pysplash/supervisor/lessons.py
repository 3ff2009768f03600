"""Lessons: what jobs of each function need, as learned, kept in Redis for later and other pools.

One hash, a field a function, each a JSON object of plain numbers; it expires when nobody has
added to it for a week. Whatever is not a lesson is ignored. The last writer wins: lessons
are estimates, and each pool goes on from what it sees itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from pysplash.control.learning import (
    MOST_FUNCTIONS,
    MOST_NAME,
    Learner,
    carried,
    from_record,
    to_record,
)
from pysplash.control.model import NEVER, Lesson, Sample, WorkerView
from pysplash.errors import LessonsUnavailable
from pysplash.log import logger

log = logger("pool")

#: seconds between two savings
SAVE = 60.0


class LessonKeeper:
    """Learns from every tick; loads lessons at the start and saves new ones every minute."""

    def __init__(self, store: LessonStore) -> None:
        self._store = store
        self._learner: Learner | None = None
        self._saved_at = NEVER
        self._complained = False

    def observe(
        self, now: float, workers: tuple[WorkerView, ...], sample: Sample
    ) -> Mapping[str, Lesson]:
        """Learn from one tick; return all lessons so far."""
        if self._learner is None:
            self._learner = Learner(self._load())
            self._saved_at = now
        self._learner.observe(now, workers, sample.cpu)
        if now - self._saved_at >= SAVE:
            self._saved_at = now
            self.save()
        return self._learner.lessons

    def save(self) -> None:
        """Save new lessons; while Redis is away they stay in memory."""
        try:
            if self._learner is not None:
                self._store.save(self._learner.lessons)
        except LessonsUnavailable as error:
            self._complain(error)

    def _load(self) -> dict[str, Lesson]:
        try:
            return self._store.load()
        except LessonsUnavailable as error:
            self._complain(error)
            return {}

    def _complain(self, error: LessonsUnavailable) -> None:
        if not self._complained:
            self._complained = True
            log.warning("%s; continuing without saved lessons", error, extra={"action": "lessons"})


KEY = "pysplash:lessons"
#: seconds lessons are kept
KEEP = 7 * 86400
#: longest record of one lesson that is read, in bytes
MOST_RECORD = 1000


class LessonStore:
    """Loads and saves lessons, in one round trip each."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._saved: dict[str, Lesson] = {}

    def load(self) -> dict[str, Lesson]:
        """Return the saved lessons; raise :class:`LessonsUnavailable` if Redis fails."""
        try:
            found: dict[Any, Any] = self._connection.hgetall(KEY)
        except RedisError as error:
            raise LessonsUnavailable(f"lessons cannot be read: {error}") from error
        known = ((_text(name), _lesson(record)) for name, record in found.items())
        return carried((name, lesson) for name, lesson in known if lesson is not None)

    def save(self, lessons: Mapping[str, Lesson]) -> None:
        """Save the lessons that have changed; raise :class:`LessonsUnavailable` if Redis fails."""
        news: dict[Any, Any] = {
            name: json.dumps(to_record(lesson))
            for name, lesson in lessons.items()
            if self._saved.get(name) is not lesson and len(name) <= MOST_NAME
        }
        if not news:
            return
        try:
            self._write(news)
        except RedisError as error:
            raise LessonsUnavailable(f"lessons cannot be saved: {error}") from error
        self._saved = dict(lessons)

    def _write(self, news: dict[Any, Any]) -> None:
        if self._connection.hlen(KEY) > 2 * MOST_FUNCTIONS:
            self._connection.delete(KEY)
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.hset(KEY, mapping=news)
            pipeline.expire(KEY, KEEP)
            pipeline.execute()


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _lesson(record: Any) -> Lesson | None:
    if len(record) > MOST_RECORD:
        return None
    try:
        return from_record(json.loads(record))
    except ValueError:
        return None
