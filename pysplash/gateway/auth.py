"""Authentication: who shows the token, and which addresses have shown wrong ones too often.

The count of wrong tokens is a table in memory that processes forked later share. It is read without
a lock and written under one, which the system takes away from a process that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import ipaddress
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator

from pysplash.log import logger

from .memory import shared_numbers

#: wrong tokens in a row after which an address is refused, and for how many seconds
TRIES, SHUT = 10, 60.0
#: addresses that are kept in mind
MOST = 1024

log = logger("gateway")


class Logins:
    """The token of a gateway's doors, and the addresses that have shown wrong ones.

    After ten wrong tokens in a row, none more than a minute after the one before, an address is
    refused for a minute, whatever it shows. A right one clears its count.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = token.encode()
        self._clock = clock
        #: wrong tokens in a row, and until when they count
        self._wrong = FailedLogins(MOST)

    @property
    def length(self) -> int:
        """Bytes the token has."""
        return len(self._token)

    def refused(self, host: str) -> float:
        """Return the seconds for which *host* is still refused; 0 if it may show a token."""
        count, until = self._wrong.get(_account(host))
        return max(0.0, until - self._clock()) if count >= TRIES else 0.0

    def admit(self, host: str, shown: bytes) -> bool:
        """Return whether *host* may come in with the token it has *shown*; count wrong ones."""
        if self.refused(host):
            return False
        account = _account(host)
        right = hmac.compare_digest(shown, self._token)
        if right and not self._wrong.get(account)[0]:
            return True
        with self._wrong.alone():
            if right:
                self._wrong.drop(account)
                return True
            count, until = self._wrong.get(account)
            now = self._clock()
            count = count + 1 if now < until else 1
            self._wrong.put(account, count, now + SHUT)
        _tell(account, count)
        return False


def _tell(account: str, count: int) -> None:
    if count < TRIES:
        log.warning("a wrong token from %s", account, extra={"action": "login"})
    else:
        log.warning(
            "%d wrong tokens in a row from %s: it is refused for %g s",
            count,
            account,
            SHUT,
            extra={"action": "lockout"},
        )


def _account(host: str) -> str:
    """Return what an address is counted by: itself, or for IPv6 its /64 network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


#: bytes of what stands for an address
NAME = 16
_NOBODY = bytes(NAME)


class FailedLogins:
    """Wrong tokens by address, for *most* addresses: how many, and until when they count."""

    def __init__(self, most: int) -> None:
        with tempfile.TemporaryFile() as file:
            self._lock = os.dup(file.fileno())
        self._names = mmap.mmap(-1, most * NAME)
        self._counts, self._untils = shared_numbers(most), shared_numbers(most, float)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._lock)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the table against other processes for the length of the block."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def get(self, account: str) -> tuple[int, float]:
        """Return the count of an address, and until when it holds; 0 if there is none."""
        row = self._find(_name(account))
        return (0, 0.0) if row is None else (self._counts[row], self._untils[row])

    def put(self, account: str, count: int, until: float) -> None:
        """Store a count; where the table is full, in place of the oldest."""
        name = _name(account)
        row = self._find(name)
        if row is None:
            row = self._find(_NOBODY)
        if row is None:
            row = min(range(len(self._untils)), key=self._untils.__getitem__)
        self._counts[row], self._untils[row] = count, until
        self._names[row * NAME : (row + 1) * NAME] = name

    def drop(self, account: str) -> None:
        """Clear the count of an address."""
        row = self._find(_name(account))
        if row is not None:
            self._names[row * NAME : (row + 1) * NAME] = _NOBODY

    def _find(self, name: bytes) -> int | None:
        place = self._names.find(name)
        while place % NAME:  # also of -1, which ends the search
            if place < 0:
                return None
            place = self._names.find(name, place + 1)
        return place // NAME


def _name(account: str) -> bytes:
    return hashlib.blake2b(account.encode(errors="replace"), digest_size=NAME).digest()
