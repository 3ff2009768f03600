"""Standard output as it is: a terminal of few characters, a full disk, a pipe nobody reads."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys


def replace_what_cannot_be_shown() -> None:
    """Have standard output show ``?`` for characters that its encoding does not have."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def flush() -> None:
    """Write out what is buffered; raise OSError if nobody takes it."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def is_of_writing(error: OSError) -> bool:
    """Return whether *error* means that output is not taken: no reader, or no room on the disk."""
    return error.errno in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def abandon() -> None:
    """Send what is left of standard output nowhere, or Python would try once more at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
