"""Who a pool is: its name, which another may have too, and its run, which nobody else has.

A *run* is one life of a pool: a digest of the host, then random digits. Workers are named for it
and numbered, so that those of a pool that was killed are not taken for those of the pool that was
started under its name, nor two living pools of one name for one another.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from pysplash.host.identity import host_digest

#: workers of releases that knew no runs were named for their pool, and eight digits
_EARLIER = r"[0-9a-f]{8}"
_RUN = re.compile(r"[0-9a-f]{10}")


class PoolId(NamedTuple):
    """A pool in one of its lives; *run* is empty for one of an earlier release."""

    name: str
    run: str = ""

    @property
    def entry(self) -> str:
        """What stands for it in the list of pools."""
        return f"{self.name}/{self.run}" if self.run else self.name

    def worker(self, number: int) -> str:
        """Return the name of its worker *number*, from 1."""
        return f"{self.name}-{self.run}-{number}"

    def has(self, worker: str) -> bool:
        """Return whether *worker* is the name of one of its workers."""
        end = rf"{self.run}-[0-9]+" if self.run else _EARLIER
        return re.fullmatch(rf"{re.escape(self.name)}-{end}", worker) is not None

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, where process ids are the ones that are known here."""
        return self.run.startswith(host_digest())


def new_run() -> str:
    """Return what tells one life of a pool from all others."""
    return host_digest() + secrets.token_hex(3)


def pool_id(entry: str) -> PoolId:
    """Return the pool that *entry* of the list of pools stands for."""
    name, slash, run = entry.rpartition("/")
    return PoolId(name, run) if slash and _RUN.fullmatch(run) else PoolId(entry)
