"""JSON-RPC requests answered by calls of tasks, for HTTP and ZeroMQ alike."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from pysplash.application.registry import check_name
from pysplash.client.requests import LARGE
from pysplash.errors import (
    Busy,
    CallError,
    CallTimeout,
    ConfigError,
    ConnectionFailed,
    ExecutionError,
    NoWorkerError,
    UnknownTask,
)
from pysplash.gateway.admission import Dispatcher, DoorLimit
from pysplash.log import logger

from .jsonrpc import (
    BUSY,
    FAILED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    NO_WORKER,
    TIMED_OUT,
    InvalidRequest,
    RpcRequest,
    answer,
    failure,
    fits,
    read,
    write,
)

log = logger("gateway")


class Rpc:
    """Answers JSON-RPC requests by calls of tasks over one door's limits, *calls*.

    An answer says which class of error a task raised and under which id its job can be found,
    its traceback only with *tracebacks*.
    """

    def __init__(self, dispatcher: Dispatcher, calls: DoorLimit, *, tracebacks: bool) -> None:
        self._dispatcher = dispatcher
        self._calls = calls
        self._tracebacks = tracebacks

    def is_full(self) -> bool:
        """Return whether the door accepts no more calls."""
        return self._calls.is_full()

    @staticmethod
    def busy() -> bytes:
        """Return the answer to a request that was not even read."""
        return write(failure(None, BUSY))

    async def answer(self, data: bytes) -> bytes | None:
        """Return the answer to the request *data*; None where nobody wants one."""
        try:
            large = len(data) > LARGE
            requests, batch = await asyncio.to_thread(read, data) if large else read(data)
        except InvalidRequest as bad:
            return write(failure(None, bad.code))
        size = len(data) // len(requests)
        del data  # while calls wait, only what was made of it is kept
        answers = await asyncio.gather(*(self._one(request, size) for request in requests))
        wanted = [one for one in answers if one is not None]
        if not wanted:
            return None
        told = wanted if batch else wanted[0]
        large = any(_is_large(one.get("result")) for one in wanted)
        return await asyncio.to_thread(write, told) if large else write(told)

    async def _one(self, request: RpcRequest | InvalidRequest, size: int) -> dict[str, Any] | None:
        if isinstance(request, InvalidRequest):
            return failure(request.id, request.code)
        wrong = self._wrong(request)
        if request.notification:
            if wrong is None:
                self._calls.notify(request.method, request.arguments, request.named, size=size)
            return None
        if wrong is not None:
            return failure(request.id, wrong)
        try:
            result = await self._calls.call(
                request.method, request.arguments, request.named, size=size
            )
        except (CallError, ConnectionFailed) as error:
            return self._failure(request.id, error)
        return answer(request.id, result)

    def _wrong(self, request: RpcRequest) -> int | None:
        """Return the error code of a request that is known to be wrong before any call."""
        with contextlib.suppress(ConfigError):
            check_name(request.method)
            offer = self._dispatcher.offer(request.method)
            return None if offer is None or fits(offer.signature, request) else INVALID_PARAMS
        return METHOD_NOT_FOUND

    def _failure(self, request_id: Any, error: Exception) -> dict[str, Any]:
        if isinstance(error, ExecutionError):
            data = {"type": error.type, "status": error.status, "job": error.job_id}
            if self._tracebacks:
                data["traceback"] = error.traceback
            log.info("task %s, job %s: %s", error.task, error.job_id, error.status)
            return failure(request_id, FAILED, data)
        for kind, code in _CODES:
            if isinstance(error, kind):
                return failure(request_id, code)
        log.error("a call failed: %s", error)
        return failure(request_id, INTERNAL_ERROR)


def _is_large(result: Any) -> bool:
    return isinstance(result, str) and len(result) > LARGE


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (Busy, BUSY),
    (UnknownTask, METHOD_NOT_FOUND),
    (CallTimeout, TIMED_OUT),
    (NoWorkerError, NO_WORKER),
)
