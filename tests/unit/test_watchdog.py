"""LoopBeats: who hangs, as far as can be told from beats, CPU and the looks at them."""

from __future__ import annotations

import pytest

from pysplash.gateway.watchdog import BUSY, HUNG, LOOK, LoopBeats, Watchdog


def hangs_after(beats: bool, share: float, every: float = LOOK) -> float | None:
    """Return after how many seconds a process counts as hung that uses *share* of a core."""
    watchdog, now, beat = Watchdog(0, 0.0), 0.0, 1
    while now < 3 * BUSY:
        if watchdog.is_hung(beat, share * now, now):
            return now
        now += every
        beat += beats
    return None


@pytest.mark.parametrize(
    ("beats", "share", "expected"),
    [(True, 0.0, None), (True, 1.0, None), (False, 0.0, HUNG), (False, 1.0, BUSY)],
)
def test_who_hangs(beats: bool, share: float, expected: float | None) -> None:
    """Who does not beat any more; who computes meanwhile may be about to, and has longer."""
    assert hangs_after(beats, share) == expected


def test_nothing_hangs_while_nobody_looks() -> None:
    """Where watcher and watched were stopped together, or asleep, no time has passed."""
    watchdog = Watchdog(0, 0.0)
    assert not watchdog.is_hung(1, 0.0, 0.0)
    assert not watchdog.is_hung(1, 0.0, 10 * BUSY)
    assert not watchdog.is_hung(2, 0.0, 10 * BUSY + LOOK)
    assert hangs_after(False, 0.0, every=HUNG) == HUNG * HUNG / (2 * LOOK)


def test_each_process_has_its_own_pulse() -> None:
    """None has beaten before it lives."""
    pulses = LoopBeats(3)
    assert [pulses[place] for place in range(3)] == [0, 0, 0]
