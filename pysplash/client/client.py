"""The client: call a task by name and have its answer, from any thread of any program."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from redis import Redis

from pysplash.connections.clients import from_url
from pysplash.connections.environment import from_environment
from pysplash.errors import CallTimeout, ConnectionFailed

from .discovery import PoolFacts
from .requests import CallAnswer, CallRequest, Named, build
from .routing import PAUSE, TRIES, Route, Routes, not_taken
from .terms import (
    FAILURE_TTL,
    RESULT_TTL,
    Allowance,
    Terms,
    Timing,
    check_terms,
    check_timeout,
)
from .transport import Transport


class Client:
    """Calls tasks by name: ``Client(url).add(5, 6)`` is 11.

    Any attribute is a task, ``client.math.add(1, 2)`` too, and all its arguments are the task's;
    :meth:`execute` calls by a name in a text, with a timeout of its own. One client serves many
    threads, over at most *max_connections* connections; it may be made before a fork.

    Where to find Redis: *connection*, a client; or *url*; or RQ's and Redis's variables in the
    environment. *timeout* is seconds a call may take altogether (None: no limit); with *overflow*
    a call may take so many seconds more, but no more than *overflows* calls of one task in a row.
    A call that took too long is cancelled, or left to run, as *on_timeout* says (``"cancel"``,
    ``"leave"``). *patience* is seconds a call waits for a pool that serves it, before it fails.
    Answers are kept for *result_ttl* seconds, failures for *failure_ttl*. *serializer* is RQ's,
    needed only where a pool uses one of its own. A *plain* client gets results
    as JSON and never unpickles any: for what answers strangers.

    The form ``client.add(5, 6)`` is that of remote calls by attribute, as in ``xmlrpc.client``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        connection: Redis | None = None,
        timeout: float | None = None,
        overflow: float = 0.0,
        overflows: int = 0,
        on_timeout: str = "cancel",
        patience: float = 0.0,
        result_ttl: int = RESULT_TTL,
        failure_ttl: int = FAILURE_TTL,
        serializer: Any = None,
        plain: bool = False,
        max_connections: int = 64,
    ) -> None:
        self._terms = check_terms(
            Terms(
                timeout,
                overflow,
                overflows,
                on_timeout,
                patience,
                result_ttl,
                failure_ttl,
                serializer,
                plain,
            )
        )
        if max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, not {max_connections!r}")
        client = connection or (from_url(url) if url else from_environment())
        self._transport = Transport(client, max_connections, result_ttl)
        self._allowance = Allowance(overflow, overflows)
        self._routes = Routes(patience)

    # --- calling ---

    def execute(
        self,
        name: str,
        /,
        *arguments: Any,
        timeout: float | None = None,
        on_timeout: str | None = None,
        **named: Any,
    ) -> Any:
        """Call the task *name* and return what it returns.

        *timeout* and *on_timeout* are the client's if they are None. Raises
        :class:`~pysplash.errors.ExecutionError`, with the remote traceback, if the task fails;
        :class:`~pysplash.errors.CallTimeout`; :class:`~pysplash.errors.NoWorkerError` and
        :class:`~pysplash.errors.UnknownTask` before anything is enqueued.
        """
        return self.call(name, arguments, named, timeout, on_timeout)

    def call(
        self,
        name: str,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        timeout: float | None = None,
        on_timeout: str | None = None,
    ) -> Any:
        """Call the task *name*; as :meth:`execute`, for arguments that come from elsewhere."""
        began = time.monotonic()
        timing = Timing(name, self._terms, self._allowance, timeout, on_timeout, began)
        call = Call(self._transport, self._submit(name, arguments, named, timing.ttl))
        try:
            value = call.result(timing.left(time.monotonic()))
        except CallTimeout:
            timing.ended(time.monotonic())
            if timing.cancels and not call.cancel() and call.wait(0):
                return call.result(0)
            raise timing.error() from None
        timing.ended(time.monotonic())
        return value

    def submit(self, name: str, /, *arguments: Any, **named: Any) -> Call:
        """Enqueue a call of the task *name* and return its handle; all arguments are the task's."""
        return Call(self._transport, self._submit(name, arguments, named))

    def map(
        self, name: str, /, *iterables: Iterable[Any], timeout: float | None = None
    ) -> list[Any]:
        """Call the task *name* once for each tuple of items, as the built-in map does.

        Return what they return, in this order. The first failure is raised, once it is seen in
        this order. After *timeout* seconds for all of them together what has not ended is
        cancelled or left, as the client does, and :class:`~pysplash.errors.CallTimeout` raised.
        """
        soft = self._terms.timeout if timeout is None else check_timeout(timeout)
        until = None if soft is None else time.monotonic() + soft
        calls = self.submit_many(name, *iterables)
        requests = [call.request for call in calls]
        if not self._transport.wait_for_all(requests, until):
            if self._terms.on_timeout == "cancel":
                for call in calls:
                    call.cancel()
            raise CallTimeout(f"{len(calls)} calls of task {name} did not end within {soft:g} s")
        for call, answer in zip(calls, self._transport.look(requests), strict=True):
            call.answer = answer
        return [call.result() for call in calls]

    def submit_many(self, name: str, /, *iterables: Iterable[Any]) -> list[Call]:
        """Enqueue a call of the task *name* for each tuple of items; return the handles."""
        items = list(zip(*iterables, strict=False))
        if not items:
            return []
        route = self._route(name)
        requests = [build(route, self._terms, item, {}) for item in items]
        taken = self._transport.enqueue_all(requests)
        return [
            Call(self._transport, request if enqueued else self._submit(name, item, {}))
            for request, item, enqueued in zip(requests, items, taken, strict=True)
        ]

    def ping(self) -> bool:
        """Return whether Redis answers and a pool is alive that takes calls."""
        try:
            return any(pool.open for pool in self.pools())
        except ConnectionFailed:
            return False

    def pools(self) -> list[PoolFacts]:
        """Return what every living pool says of itself; one round trip."""
        return self._transport.pools()

    def close(self) -> None:
        """Close all connections; the client may be used again, and opens others."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Named:
        if name.startswith("_"):
            raise AttributeError(f"Client has no attribute {name!r}, and no task is named so")
        return Named(self.call, name)

    # --- what calls are made of ---

    def _submit(
        self, name: str, arguments: tuple[Any, ...], named: dict[str, Any], ttl: float | None = None
    ) -> CallRequest:
        for _ in range(TRIES):
            route = self._route(name)
            request = build(route, self._terms, arguments, named, ttl)
            if self._transport.enqueue(request):
                return request
            self._routes.distrust()
        raise not_taken(name)

    def _route(self, name: str) -> Route:
        """Return the route of a task; read the pools again where that is due."""
        asked = time.monotonic()
        route = self._routes.believed(name, asked)
        while route is None:
            self._routes.learn(self.pools(), time.monotonic())
            route = self._routes.find(name, asked, time.monotonic())
            if route is None:
                time.sleep(PAUSE)
        return route


class Call:
    """A call that was submitted. Its answer can be had as often as wanted, by any thread."""

    def __init__(self, transport: Transport, request: CallRequest) -> None:
        self._transport = transport
        self.request = request
        self.answer: CallAnswer | None = None

    @property
    def id(self) -> str:
        """The id of its job."""
        return self.request.job_id

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.request.task

    def status(self) -> str:
        """Return RQ's word for where it is.

        ``"queued"``, ``"started"``, ``"finished"``, ``"failed"``, ``"stopped"``, ``"canceled"`` or,
        once nothing is kept of it, ``"vanished"``.
        """
        return (
            self.answer.status if self.answer is not None else self._transport.status(self.request)
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for *timeout* seconds at most; return whether it has."""
        until = None if check_timeout(timeout) is None else time.monotonic() + (timeout or 0.0)
        if self.answer is None:
            self.answer = self._transport.wait(self.request, until)
        return self.answer is not None

    def result(self, timeout: float | None = None) -> Any:
        """Return what the task returned, waiting *timeout* seconds at most (None: no limit).

        Raises :class:`~pysplash.errors.ExecutionError` if it failed, was stopped or cancelled, or
        nothing is kept of it; :class:`~pysplash.errors.CallTimeout` if it goes on.
        """
        if timeout is not None:
            timeout = max(0.0, timeout)
        if not self.wait(timeout):
            raise CallTimeout(f"task {self.task} did not answer within {timeout:g} s")
        assert self.answer is not None
        return self.answer.get()

    def cancel(self) -> bool:
        """Take it off its queue, or have its worker stop it; False if it has ended before."""
        return self._transport.cancel(self.request)

    def __repr__(self) -> str:
        return f"<Call {self.id} of {self.task}>"
