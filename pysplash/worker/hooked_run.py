"""Running a claimed job through RQ's own methods, for the tools that have patched these.

RQ's ``execute_job`` and ``perform_job`` run as they are, with whatever a tool has put around them
or around ``Job.perform``. What they do at Redis is done already, or is done our way: the job was
registered with its claim, and its outcome goes with the next turn, if RQ need not store it. So a
patched worker keeps most of its speed, and waits for an absent Redis as an unpatched one does.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue

from pysplash.jobs.results import SETTLES, portrait
from pysplash.jobs.rq import enter, hold, leave, perform
from pysplash.log import logger

from .hooks import Hooks
from .horse import ENTRY, HorseDone, borrow, stand_ins
from .interrupts import Interrupts
from .outcomes import Outcomes
from .supervised import Supervised
from .timeouts import StackingDeathPenalty

log = logger("worker")

#: stores what a job returned: the job, its queue, the value, when it began, in microseconds, and
#: whether it has changed itself
Store = Callable[[Job, Queue, Any, int, bool], None]


class _Run:
    """One job that RQ's methods run."""

    def __init__(
        self, job: Job, queue: Queue, function: str, execution: Execution, store: Store
    ) -> None:
        self.job = job
        self.function = function
        self.queue = queue
        self.execution = execution
        self.store = store
        self.began = 0
        #: what is looked at for changes that the job makes to itself
        self.portrait: Any = None
        #: what was being handled when it began: a job may wait for others in an except clause
        self.handled = sys.exc_info()[1]
        #: whether its outcome is being stored; whether it is stored, or will be
        self.settling = self.settled = False


class HookedRun:
    """Runs jobs of *worker* through RQ's methods.

    While one runs, some methods of the worker are replaced on the worker itself. *fail* stores the
    exception that is being handled as the job's failure, *load* imports what a job calls.
    """

    def __init__(
        self,
        worker: Supervised,
        interrupts: Interrupts,
        outcomes: Outcomes,
        fail: Callable[[Job, Queue], None],
        load: Callable[[Job], Any],
    ) -> None:
        self._worker = worker
        self._load = load
        self._interrupts = interrupts
        self._outcomes = outcomes
        self._fail = fail
        self._run: _Run | None = None
        #: whether ``prepare_job_execution`` is patched, so that it has to be called for the patch
        self._prepares = False
        #: whether ``main_work_horse`` is patched, and RQ's ``execute_job`` would not call it
        self._enters_horse = False
        self._borrowed: dict[str, Any] = {}
        #: the names of what is replaced on the worker now
        self._replaced: set[str] = set()
        self._replacements: dict[str, Any] = {
            "_is_hooked": True,
            "prepare_execution": self._prepare_execution,
            "prepare_job_execution": self._prepare_job_execution,
            "handle_execution_ended": self._handle_execution_ended,
            "set_state": self._set_state,
        } | {
            name: partial(self._unless_settled, name)
            for name in (
                "handle_job_success",
                "handle_job_retry",
                "handle_job_failure",
                "handle_exception",
            )
        }

    def note(self, hooks: Hooks) -> None:
        """Take what is patched from now on."""
        named = {name.rpartition(".")[2] for name in hooks.around}
        self._prepares = "prepare_job_execution" in named
        self._enters_horse = ENTRY in named and "execute_job" not in named
        self._borrowed = borrow(self._worker, hooks.borrowed)

    def run(self, job: Job, queue: Queue, function: str, store: Store) -> None:
        """Run *job*, which calls *function*, to its stored or storable outcome.

        *store* takes what it returned.
        """
        before, worker = self._run, self._worker
        run = self._run = _Run(job, queue, function, self._outcomes.execution(job), store)
        hold(worker, run.execution)
        instead = stand_ins(worker, partial(perform, worker, job, queue))
        self._replace(self._borrowed | self._replacements | instead)
        try:
            self._enter(job, queue)
            if not run.settled:
                raise RuntimeError("a patched execute_job or perform_job did not run the job")
        except Exception as error:
            if run.settled:
                text = "job %s: a patched method of RQ raised, the outcome stands: %r"
                log.error(text, job.id, error, extra={"action": "hook", "job": job.id})
            else:
                self._settle(run, lambda: self._fail(job, queue))
        finally:
            self._run = before
            hold(worker, None)
            if before is None:
                self._restore()

    def _enter(self, job: Job, queue: Queue) -> None:
        with contextlib.suppress(HorseDone):
            if self._enters_horse:
                self._worker.main_work_horse(job, queue)
            else:
                self._worker.execute_job(job, queue)

    def _replace(self, methods: dict[str, Any]) -> None:
        vars(self._worker).update(methods)
        self._replaced.update(methods)

    def _restore(self) -> None:
        for name in self._replaced:
            vars(self._worker).pop(name, None)
        self._replaced.clear()

    # --- what RQ's methods find on the worker ---

    def _own(self, name: str) -> Any:
        """Return the worker's method *name* as its class has it, patched or not."""
        kind = type(self._worker)
        if name in self._borrowed:
            return self._borrowed[name]
        found = next(vars(each)[name] for each in kind.__mro__ if name in vars(each))
        return found.__get__(self._worker, kind) if hasattr(found, "__get__") else found

    def _prepare_execution(self, job: Job) -> Execution:
        run = self._run
        if run is None or job is not run.job:
            execution: Execution = self._own("prepare_execution")(job)
            return execution
        return run.execution

    def _prepare_job_execution(self, job: Job, *arguments: Any, **settings: Any) -> None:
        run = self._run
        if run is None or job is not run.job or self._prepares:
            self._own("prepare_job_execution")(job, *arguments, **settings)
        if run is not None and job is run.job:
            # taken by RQ's very next step; callbacks have the class's own
            penalty: Any = partial(_JobPenalty, self._worker, self._interrupts, run, self._load)
            self._worker.death_penalty_class = penalty

    def _handle_execution_ended(self, job: Job, queue: Queue, *rest: Any, **named: Any) -> None:
        """Store how the job ended: the first that RQ does once its function has."""
        run = self._run
        if run is None or job is not run.job or run.settling:
            self._own("handle_execution_ended")(job, queue, *rest, **named)
            return
        if run.settled:
            return
        failure = sys.exc_info()[1]
        if failure is not None and failure is not run.handled:
            self._settle(run, lambda: self._fail(job, queue))
        else:
            self._settle(run, lambda: self._store(run))

    def _store(self, run: _Run) -> None:
        job: Any = run.job
        run.store(job, run.queue, job._result, run.began, portrait(job) != run.portrait)

    def _settle(self, run: _Run, settle: Callable[[], None]) -> None:
        """Store an outcome, and leave nothing of it for RQ to do."""
        run.settling = True
        try:
            settle()
        finally:
            run.settling = False
        run.settled = True
        job: Any = run.job
        job._success_callback = job._failure_callback = job._stopped_callback = None
        job._success_callback_name = job._failure_callback_name = None
        job.webhooks = []

    def _unless_settled(self, name: str, *arguments: Any, **settings: Any) -> Any:
        run = self._run
        if run is not None and run.settled:
            given = (*arguments, settings.get("job"))
            if any(each is run.job for each in given):
                return None
        return self._own(name)(*arguments, **settings)

    def _set_state(self, state: Any, pipeline: Any = None) -> None:
        """Leave it to the next turn to tell Redis."""
        self._worker._state = state


class _JobPenalty(StackingDeathPenalty):
    """The timeout of the job's function, in which stops are allowed as well."""

    def __init__(
        self,
        worker: Any,
        interrupts: Interrupts,
        run: _Run,
        load: Callable[[Job], Any],
        timeout: Any,
        exception: Any,
        **details: Any,
    ) -> None:
        super().__init__(timeout, exception, **details)
        self._interrupts = interrupts
        self._run = run
        self._load = load
        self._worker = worker
        del worker.death_penalty_class

    def __enter__(self) -> None:
        self._run.began = time.time_ns() // 1000
        self._run.portrait = portrait(self._run.job)
        self.setup_death_penalty()
        self._interrupts.in_job = True
        self._settles = SETTLES.set(True)
        self._entered = enter(self._run.job)  # earlier than RQ does: a stop looks which job it is
        try:
            self._interrupts.allow()
            self._load(self._run.job)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        leave(self._entered)
        SETTLES.reset(self._settles)
        self._interrupts.in_job = False
        self._interrupts.forbid()
        super().__exit__(*exc_info)
        self._worker._tidy(self._run.function)
