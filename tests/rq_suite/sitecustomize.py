"""Leads connections to Redis's usual port to the server of RQ's own tests, in every process."""

import os
import socket
from typing import Any

USUAL_PORT = 6379
PORT = os.environ.get("RQ_SUITE_PORT")


def _redirect(port: int) -> None:
    connect = socket.socket.connect

    def elsewhere(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[1] == USUAL_PORT:
            address = (address[0], port, *address[2:])
        connect(self, address)

    socket.socket.connect = elsewhere  # type: ignore[assignment, method-assign]


if PORT:
    _redirect(int(PORT))
