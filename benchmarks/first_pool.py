"""A real pool that is sized by the rule of the first PySplash: ``first_pool.py URL QUEUE``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.rivals import First
from pysplash import Pool
from pysplash.supervisor.devices import Devices
from pysplash.supervisor.loop import Supervisor


class FirstPool(Pool):
    """Today's processes and devices under the rule of then, without the fast loop."""

    def supervise(self, devices: Devices) -> Supervisor:
        """Return the loop, with the first rule in the place of its own."""
        supervisor = super().supervise(devices)
        supervisor.rule = First().decide
        return supervisor


if __name__ == "__main__":
    url, queue = sys.argv[1:]
    sys.exit(FirstPool([queue], url=url, max_cpu=100, throttle=False).start())
