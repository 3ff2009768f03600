"""The home of lessons in Redis: what one pool has learned of jobs, for the next and for others.

One hash, a field a function, each a JSON object of plain numbers; it expires when nobody has
added to it for a week. Whatever is not a lesson is passed over. The last writer wins: lessons
are estimates, and each pool goes on from what it sees itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from .errors import LessonsUnavailable
from .learning import MOST_FUNCTIONS, MOST_NAME, carried, from_record, to_record
from .state import Lesson

KEY = "pysplash:lessons"
#: seconds lessons are kept
KEEP = 7 * 86400
#: longest record of one lesson that is read, in bytes
MOST_RECORD = 1000


class Lessons:
    """Loads and saves lessons, in one round trip each."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._saved: dict[str, Lesson] = {}

    def load(self) -> dict[str, Lesson]:
        """Return what has been learned before; raise :class:`LessonsUnavailable` if Redis fails."""
        try:
            found: dict[Any, Any] = self._connection.hgetall(KEY)
        except RedisError as error:
            raise LessonsUnavailable(f"lessons cannot be read: {error}") from error
        known = ((_text(name), _lesson(record)) for name, record in found.items())
        return carried((name, lesson) for name, lesson in known if lesson is not None)

    def save(self, lessons: Mapping[str, Lesson]) -> None:
        """Save what is new; raise :class:`LessonsUnavailable` if Redis fails."""
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
