"""When to look at which call, where the server does not tell of answers. No I/O.

A call is looked at often while it is new and ever less often then, so an answer is found late by
no more than a part of the time it took. The more calls there are, the less often each is looked at.
"""

from __future__ import annotations

import heapq

#: seconds between two looks at one call, at first and at most; the part of its age that they are;
#: and the seconds that each call there is makes them longer
OFTEN, SELDOM, PART, CROWD = 0.004, 1.0, 0.25, 0.0001


class LookSchedule:
    """The next look at each of some calls; times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._when: dict[str, float] = {}

    @property
    def next(self) -> float | None:
        """When the next look is due; None if none is."""
        return self._heap[0][0] if self._heap else None

    def add(self, job_id: str, age: float, now: float, count: int) -> bool:
        """Plan the next look at a call of that *age*, one of *count*; return whether it is next.

        It replaces the one that was planned before.
        """
        moment = now + min(SELDOM, max(OFTEN, PART * age, CROWD * count))
        self._when[job_id] = moment
        heapq.heappush(self._heap, (moment, job_id))
        return self._heap[0][0] == moment

    def due(self, now: float) -> list[str]:
        """Take out the calls whose time has come, and return them."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            moment, job_id = heapq.heappop(self._heap)
            if self._when.get(job_id) == moment:
                del self._when[job_id]
                found.append(job_id)
        return found
