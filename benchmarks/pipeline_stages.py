"""The pipeline of :mod:`benchmarks.pipeline`, as workers import it: three stages over numbers.

Items are numbers. The first stage passes each on as a dict; the second makes two parts of it, as a
list, or, of every fourth number, as a generator; the third lets each part leave, as a dict, to
where nobody takes it. Each handler takes up to a millisecond, so that kills fall in there too.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from pysplash import Stage

#: in the order in which a pool serves them; and where nobody serves
LAST, MIDDLE, FIRST = FLOW = ("pipe.last", "pipe.middle", "pipe.first")
OUT = "pipe.out"
PARTS = (b"a", b"b")
#: one number of so many is split by a generator
DRIPPING = 4
#: longest time in seconds a handler takes
LONGEST = 0.001


def drips(number: int) -> bool:
    """Whether the parts of a number are forwarded one by one, before it is acknowledged."""
    return number % DRIPPING == 0


def parts(number: int) -> list[bytes]:
    """Return what leaves the last stage for a number."""
    return [b"%d%s" % (number, part) for part in PARTS]


def pass_on(_: Stage, data: bytes) -> dict[str, bytes]:
    """Forward a number."""
    _work()
    return {MIDDLE: data}


def split(_: Stage, data: bytes) -> list[tuple[str, bytes]] | Iterator[tuple[str, bytes]]:
    """Forward both parts of a number, in one step or one after the other."""
    _work()
    return _drip(int(data)) if drips(int(data)) else [(LAST, part) for part in parts(int(data))]


def let_out(_: Stage, data: bytes) -> dict[str, bytes]:
    """Forward a part to where nobody takes it."""
    _work()
    return {OUT: data}


def _drip(number: int) -> Iterator[tuple[str, bytes]]:
    for part in parts(number):
        yield LAST, part
        _work()


def _work() -> None:
    time.sleep(random.uniform(0, LONGEST))


Stage(FIRST, pass_on)
Stage(MIDDLE, split)
Stage(LAST, let_out)
