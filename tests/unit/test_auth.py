"""Logins: the right token always counts, wrong ones so often and so long."""

from __future__ import annotations

import logging

import pytest

from pysplash.gateway.auth import MOST, SHUT, TRIES, Logins


class Clock:
    """A clock by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def logins(clock: Clock) -> Logins:
    """Logins of which nobody has made use yet."""
    return Logins("sesame", clock)


def fail(logins: Logins, host: str, times: int) -> None:
    """Show wrong tokens."""
    for _ in range(times):
        assert not logins.admit(host, b"wrong")


def test_an_address_is_refused_after_so_many(
    logins: Logins, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten wrong tokens in a row, and the right one does not help for a minute; others come in."""
    fail(logins, "10.0.0.1", TRIES - 1)
    assert logins.admit("10.0.0.1", b"sesame")
    fail(logins, "10.0.0.1", TRIES)
    assert logins.refused("10.0.0.1") == SHUT
    assert not logins.admit("10.0.0.1", b"sesame")
    assert logins.admit("10.0.0.2", b"sesame")
    assert caplog.messages[0] == "a wrong token from 10.0.0.1"
    assert caplog.messages[-1] == ("10 wrong tokens in a row from 10.0.0.1: it is refused for 60 s")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (2 * TRIES - 1)
    clock.now += SHUT
    assert logins.refused("10.0.0.1") == 0
    assert logins.admit("10.0.0.1", b"sesame")


def test_after_a_lockout_the_count_begins_anew(logins: Logins, clock: Clock) -> None:
    """Who comes back after its minute has as many tries as before; refusals do not count."""
    fail(logins, "10.0.0.1", 3 * TRIES)
    clock.now += SHUT
    fail(logins, "10.0.0.1", TRIES - 1)
    assert logins.refused("10.0.0.1") == 0


def test_mistakes_far_apart_do_not_add_up(logins: Logins, clock: Clock) -> None:
    """A wrong token is forgotten after a minute without another."""
    for _ in range(3 * TRIES):
        fail(logins, "10.0.0.1", 1)
        clock.now += SHUT
    assert logins.refused("10.0.0.1") == 0


@pytest.mark.parametrize(
    ("guesser", "neighbour", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("", "10.0.0.1", False),
    ],
)
def test_who_answers_for_an_address(
    logins: Logins, guesser: str, neighbour: str, same: bool
) -> None:
    """Each IPv4 address for itself, of IPv6 the network in which one may choose addresses."""
    fail(logins, guesser, TRIES)
    assert bool(logins.refused(neighbour)) == same


def test_so_many_addresses_are_kept_in_mind(logins: Logins) -> None:
    """The one that has been quiet for longest is forgotten, so what is kept is bounded."""
    fail(logins, "guesser", TRIES)
    for number in range(MOST - 1):
        fail(logins, f"host-{number}", 1)
    assert logins.refused("guesser")
    fail(logins, "one-more", 1)
    assert not logins.refused("guesser")
