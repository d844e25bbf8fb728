"""Grid of a table in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from spear_deploy.util.number_format import number

MIN_WIDTH = 16
"""Characters that the last column of a table keeps at least."""


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> Group:
    """Return a title and a table; columns in `numbers` are right-aligned, the last column wraps.

    In a terminal too narrow for the columns all of them wrap, and none is dropped.
    """
    grid = Table(show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        width = min(len(column), MIN_WIDTH) if last else None
        grid.add_column(column, justify="right" if index in numbers else "left", overflow="fold", min_width=width)
    for row in rows:
        grid.add_row(*(_write(cell) for cell in row))
    return Group(*([Text(title, style="bold")] if title else []), grid)


def _write(cell: Any) -> str:
    return number(cell) if isinstance(cell, (int, float)) and not isinstance(cell, bool) else str(cell)


def list_files(files: Iterable[str], folder: str) -> str:
    """Return a line of the files that were written, and their folder.

    >>> list_files(["pruned.snn", "nir/network.nir"], "out/")
    'files in out: pruned.snn, nir/network.nir'
    """
    return f"files in {folder.rstrip('/') or '/'}: {', '.join(files)}"
