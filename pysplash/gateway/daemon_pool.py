"""The pool of a daemon: a child of it, which ends when it does, however it does."""

from __future__ import annotations

import json
import os
import time

from pysplash.control.model import Decision, PoolView
from pysplash.errors import SplashError
from pysplash.log import configure
from pysplash.supervisor.pool import Pool


def main(facts: str) -> int:
    """Be the pool that *facts* describe; return the exit status, and say why it is not 0."""
    queue, url, handler, parent, words, level, options = json.loads(facts)
    configure(level)

    def watch(_view: PoolView, _decision: Decision) -> None:
        if os.getppid() != parent:
            pool.stop(time.monotonic())

    try:
        pool = Pool([queue], url=url, handlers=[handler], observer=watch, **options)
        return pool.start()
    except SplashError as error:
        os.write(words, json.dumps([type(error).__name__, str(error)]).encode())
        return error.exit_status
