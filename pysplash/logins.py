"""Logins: who shows the token, and which addresses have shown wrong ones too often."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Callable

from .accounts import Accounts
from .log import logger

#: wrong tokens in a row after which an address is refused, and for how many seconds
TRIES, SHUT = 10, 60.0
#: addresses that are kept in mind
MOST = 1024

log = logger("gateway")


class Logins:
    """The one token of a gateway's doors, and the addresses that did not know it.

    After ten wrong tokens in a row, none more than a minute after the one before, an address is
    refused for a minute, whatever it shows. A right one clears its account.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = token.encode()
        self._clock = clock
        #: wrong tokens in a row, and until when they count
        self._wrong = Accounts(MOST)

    @property
    def length(self) -> int:
        """Bytes the token has."""
        return len(self._token)

    def refused(self, host: str) -> float:
        """Return the seconds for which *host* is still refused; 0 if it may show a token."""
        count, until = self._wrong.get(_account(host))
        return max(0.0, until - self._clock()) if count >= TRIES else 0.0

    def admit(self, host: str, shown: bytes) -> bool:
        """Return whether *host* may come in with what it has *shown*, and take note of it."""
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
    """Return who answers for an address: itself, or the network an IPv6 address is one of."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
