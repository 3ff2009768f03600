"""Which host this is: hosts and containers may share a name, and a process id means nothing there.

Two processes are on one host, as far as process ids go, if they share the running kernel and the
namespace of process ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from pathlib import Path

import psutil

_BOOT, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"


def _running_kernel() -> str:
    """Return what tells one start of the machine from another; empty where it is hidden."""
    with contextlib.suppress(OSError):
        return _BOOT.read_text().strip()
    with contextlib.suppress(OSError, RuntimeError):
        return f"{psutil.boot_time():.0f}"
    return ""


def host_digest() -> str:
    """Return four hexadecimal digits that differ where process ids are not the same ones."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(os.stat(_NAMESPACE).st_ino)
    boot = _running_kernel()
    told = "\n".join((socket.gethostname(), boot, namespace))
    return hashlib.blake2b(told.encode(errors="replace"), digest_size=2).hexdigest()
