"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

#: width of a table in characters where the output is no terminal
WIDTH = 160


def print_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table, as wide as the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)


def printable(cell: str) -> str:
    """Return *cell* without control characters: its text is from other programs."""
    return "".join(c if c.isprintable() else "?" for c in cell)
