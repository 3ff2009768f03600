"""Helping: a job that waits runs the jobs it waits for, before it sleeps.

The rule is Wagner and Calder's leapfrogging, as Java's fork-join pool has it: run only what brings
the own end nearer. So what stands on a worker's stack always waits for what stands above it.
"""

from __future__ import annotations

import time
from typing import Any

from rq.job import Job

from pysplash.errors import NestedTooDeeply

from .deadlock import FAN_KEY
from .offer import FEWEST, MOST, WATCHED, Help, Helper, Search, Stuck
from .progress import Report
from .waiter import Waiter

#: seconds between two looks while one descendant after the other is run here, at first
GLANCE = 0.5
#: seconds up to which a blocking read ends late: the server looks at its clock ten times a second
GRAIN = 0.1
#: how many times `max_nesting` jobs may be nested at most
HARD = 10


class HelpingWaiter(Waiter):
    """A wait of the job *me* on the worker *helper*."""

    few = 256  # a look more is a search more, too

    def __init__(self, *arguments: Any, helper: Helper, me: Job) -> None:
        super().__init__(*arguments)
        self._helper = helper
        self._me = me
        self._search = Search(())
        self._found_nothing = False
        self._left_to_others = helper.depth < helper.max_nesting

    def run(self, me: Job | None, report: Report) -> bool:
        """Wait, running jobs meanwhile; return whether all ended."""
        try:
            return super().run(me, report)
        finally:
            self._helper.settle()

    def step(self) -> None:
        """Run jobs that can be run here; if there is none, sleep."""
        if not self._left_to_others:
            self._leave_to_others()
        elif not self._help():
            super().step()

    def also_watched(self, number: int) -> dict[Any, Any]:
        """Return the streams that grow when a running descendant begins to wait."""
        if number != self.clients.of(self._me)[0]:
            return {}
        return {FAN_KEY.format(name): b"0-0" for name in self._search.running[:WATCHED]}

    def stuck(self) -> list[tuple[Job, Stuck]]:
        """Return also the queued jobs that descendants wait for."""
        return super().stuck() + [(self._me, stuck) for stuck in self._search.stuck]

    def _help(self) -> bool:
        """Run descendants until none is left to claim; return whether any was run."""
        helper = self._helper
        ids = [job.id for job in self.pending.values() if self._is_in_our_database(job)]
        search = self._search = Search(ids, MOST if self._found_nothing else FEWEST)
        ran, glance = False, time.monotonic() + self.rarely(GLANCE)
        while self.left() > 0:
            came_to = self.insist(lambda: helper.help(search))
            if came_to in (None, Help.NOTHING):
                break
            ran = True
            if time.monotonic() >= glance or (self.raising and came_to is Help.FAILED):
                self.insist(self.look)
                glance = time.monotonic() + self.rarely(GLANCE)
        self._found_nothing = not ran
        if ran:
            helper.settle()
            self.insist(self.look)
        return ran

    def _is_in_our_database(self, job: Job) -> bool:
        """Whether the worker may find the job by its id.

        Another server's jobs are looked for in vain, which does no harm; those of another database
        of this one may bear the same names.
        """
        ours, its = (
            each.connection.connection_pool.connection_kwargs.get("db") or 0
            for each in (self._me, job)
        )
        return bool(ours == its)

    def _leave_to_others(self) -> None:
        """When nested deeply, let another worker take the jobs first.

        Patience is halved each time nobody came, so that a chain ends soon on a single worker.
        """
        helper = self._helper
        if helper.depth >= HARD * helper.max_nesting:
            raise NestedTooDeeply(
                f"job {self._me.id} waits inside {helper.depth - 1} others and would run more "
                "inside itself: let jobs wait for fewer levels of jobs, raise --max-nesting, or "
                "allow more workers"
            )
        self._left_to_others = True
        if helper.patience < GRAIN:
            time.sleep(min(helper.patience, max(0.0, self.left())))
            self.insist(self.look)
        else:
            before, self.block = self.block, helper.patience
            super().step()
            self.block = before
        helper.be_patient(longer=not self.stuck())
