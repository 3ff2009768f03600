"""Where a door may open: on this machine for whoever is on it, elsewhere only behind a key."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from pysplash.errors import ConfigError, UnsafeBind
from pysplash.framed import split_address

#: names that mean this machine
LOCAL_NAMES = ("localhost", "ip6-localhost")
BACKLOG = 1024


def is_local(host: str) -> bool:
    """Return whether only this machine reaches *host*; a name that is not known does not count."""
    if host.lower() in LOCAL_NAMES:
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_bind(door: str, host: str, key: object, what: str) -> None:
    """Raise :class:`UnsafeBind` for a *host* others can reach, without a *key*."""
    if key is None and not is_local(host):
        raise UnsafeBind(
            f"the {door} door would be open to all who reach {host or 'any address'}: "
            f"give {what}, or bind it to 127.0.0.1"
        )


def listen(address: str) -> socket.socket:
    """Return a socket that listens at ``"host:port"``; port 0 is any free one.

    Raises :class:`ConfigError`, saying why, where that is not to be had.
    """
    host, port = split_address(address)
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError(
            f"cannot listen at {address} ({error.strerror or error}): give another HOST:PORT"
        ) from error
    return listener


def shown(listener: socket.socket) -> str:
    """Return where a socket listens, as ``"host:port"``."""
    place: Sequence[object] = listener.getsockname()
    host, port = place[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
