"""FailedLogins: a table of so many rows, which forgets the oldest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pysplash.gateway.auth import FailedLogins


def test_what_is_written_is_read() -> None:
    """An account has what was last written for it, until it is dropped."""
    accounts = FailedLogins(4)
    assert accounts.get("a") == (0, 0.0)
    accounts.put("a", 1, 10.0)
    accounts.put("b", 7, 20.0)
    accounts.put("a", 2, 30.0)
    assert (accounts.get("a"), accounts.get("b")) == ((2, 30.0), (7, 20.0))
    accounts.drop("a")
    accounts.drop("nobody")
    assert (accounts.get("a"), accounts.get("b")) == ((0, 0.0), (7, 20.0))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans())))
def test_it_is_a_dictionary_that_forgets(steps: list[tuple[str, bool]]) -> None:
    """Whatever is written and dropped: what is kept is what came last, of so many accounts."""
    accounts, model = FailedLogins(3), dict[str, tuple[int, float]]()
    for number, (account, drop) in enumerate(steps, 1):
        if drop:
            accounts.drop(account)
            model.pop(account, None)
        else:
            with accounts.alone():
                accounts.put(account, number, float(number))
            model.pop(account, None)
            model[account] = (number, float(number))
            while len(model) > 3:
                del model[next(iter(model))]
        assert all(accounts.get(each) == model.get(each, (0, 0.0)) for each in "abcdef")
