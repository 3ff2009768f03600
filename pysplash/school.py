"""The school: what the pool learns from its jobs, begun with what was learned before, and kept."""

from __future__ import annotations

from collections.abc import Mapping

from .devices import LessonsLike
from .errors import LessonsUnavailable
from .learning import Learner
from .log import logger
from .state import NEVER, Lesson, Sample, WorkerView

log = logger("pool")

#: seconds between two savings
SAVE = 60.0


class School:
    """A learner, and its lessons' way to Redis and back; Redis may be away at any time."""

    def __init__(self, store: LessonsLike) -> None:
        self._store = store
        self._learner: Learner | None = None
        self._saved_at = NEVER
        self._complained = False

    def attend(
        self, now: float, workers: tuple[WorkerView, ...], sample: Sample
    ) -> Mapping[str, Lesson]:
        """Take in one tick; return what is known by now."""
        if self._learner is None:
            self._learner = Learner(self._load())
            self._saved_at = now
        self._learner.observe(now, workers, sample.cpu)
        if now - self._saved_at >= SAVE:
            self._saved_at = now
            self.keep()
        return self._learner.lessons

    def keep(self) -> None:
        """Save what is new."""
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
            log.warning("%s; learning anew", error, extra={"action": "lessons"})
