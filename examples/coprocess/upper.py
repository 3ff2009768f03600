"""The same worker in Python, with nothing of PySplash: it could be any language."""

from __future__ import annotations

import struct
import sys

while len(head := sys.stdin.buffer.read(4)) == 4:
    (length,) = struct.unpack("!I", head)
    data = sys.stdin.buffer.read(length)
    sys.stdout.buffer.write(head + data.upper())
    sys.stdout.buffer.flush()
