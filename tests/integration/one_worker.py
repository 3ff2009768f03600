"""One worker as a pool's fork server runs it: ``python -m tests.integration.one_worker URL Q...``.

It cleans RQ's registries at its start, as the first worker of a pool does.
"""

from __future__ import annotations

import sys

from pysplash.config import WorkerSettings
from pysplash.connections.clients import from_url, portable
from pysplash.supervisor.forkserver.boot import run_worker
from pysplash.worker.scoreboard import Scoreboard, Slot

NAME = "one"


def main(url: str, *queues: str) -> None:
    """Work until stopped."""
    settings = WorkerSettings(queues, portable(from_url(url)))
    run_worker(settings, NAME, Slot(Scoreboard(1), 0, NAME), maintain=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
