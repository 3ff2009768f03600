"""Which functions are brief: those whose jobs were, several times in a row."""

from __future__ import annotations

#: functions that are remembered
MOST_FUNCTIONS = 1000


class Brevity:
    """What one worker knows of how long the jobs of each function take."""

    #: seconds a brief job takes at most
    brief_seconds = 0.001
    #: jobs of a function that must have been brief in a row before the next is taken to be
    streak = 8
    #: seconds of jobs that a worker takes at once, however few wait: about what a turn costs
    handful_seconds = 0.0005

    def __init__(self) -> None:
        #: functions by name, and how often in a row they were brief
        self.streaks: dict[str, int] = {}
        #: the seconds that jobs took lately
        self._pace = self.brief_seconds

    def is_brief(self, function: str) -> bool:
        """Return whether the next job of *function* will probably be brief."""
        return self.streaks.get(function, 0) >= self.streak

    def learn(self, function: str, seconds: float) -> None:
        """Note how long a job of *function* took."""
        self._pace += (min(seconds, self.brief_seconds) - self._pace) / 8
        if seconds >= self.brief_seconds:
            self.forget(function)
        elif function in self.streaks or len(self.streaks) < MOST_FUNCTIONS:
            self.streaks[function] = self.streaks.get(function, 0) + 1

    def forget(self, function: str) -> None:
        """Take *function* for brief no more, until its jobs have been so again."""
        self.streaks.pop(function, None)

    def handful(self, most: int) -> int:
        """Return how many jobs, *most* at most, make up what a turn costs."""
        return max(1, min(most, int(self.handful_seconds / max(self._pace, 1e-6))))
