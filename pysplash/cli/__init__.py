"""The command line: one module a command group.

Nothing else prints, configures logging or ends a process.
"""

from .commands import main

__all__ = ["main"]
