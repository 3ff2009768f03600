"""A task that is inside a call in C."""

from __future__ import annotations

import os

from pysplash import task


@task
def blocking() -> int:
    """Be blocked for a minute."""
    return os.system("sleep 61")
