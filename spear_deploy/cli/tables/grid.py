"""Grid of a table in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spear_deploy.util.number_format import number

MIN_WIDTH = 16
"""Characters that the last column of a table keeps at least, where it has as many."""
SEPARATOR = " │ "
"""What rich draws between two columns."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Rows below their columns; where the terminal is too narrow for the longest words, a paragraph for each row.

    Attributes:
        columns: heads.
        rows: cells as rich's markup.
        numbers: columns that are right-aligned.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table or the paragraphs."""
        widths = self._choose_widths(console, options)
        if widths is None:
            for row in self.rows:
                yield from self._describe(row)
            return
        table = Table(show_edge=False, pad_edge=False)
        for index, (column, width) in enumerate(zip(self.columns, widths, strict=True)):
            table.add_column(column, justify="right" if index in self.numbers else "left", overflow="fold", width=width)
        for row in self.rows:
            table.add_row(*row)
        yield table

    def _choose_widths(self, console: Console, options: ConsoleOptions) -> list[int] | None:
        """Return the widths of the columns, the widest narrowed first and none below its longest word; None without room.

        rich narrows columns below their words, and cuts off what then exceeds the terminal.
        """
        columns = zip(self.columns, *self.rows, strict=True)
        ranges = [[Measurement.get(console, options, Text.from_markup(cell)) for cell in column] for column in columns]
        widths = [max(cell.maximum for cell in column) for column in ranges]
        lowest = [max(cell.minimum for cell in column) for column in ranges]
        lowest[-1] = max(lowest[-1], min(widths[-1], MIN_WIDTH))
        excess = sum(widths) + len(SEPARATOR) * (len(widths) - 1) - options.max_width
        for _ in range(max(excess, 0)):
            room = [width if width > low else 0 for width, low in zip(widths, lowest, strict=True)]
            if not any(room):
                return None
            widths[room.index(max(room))] -= 1
        return widths

    def _describe(self, row: tuple[str, ...]) -> Iterable[RenderableType]:
        """Yield the first cell of a row, then all others behind the names of their columns."""
        name, *cells = (Text.from_markup(cell.replace("\n", " ")) for cell in row)
        name.stylize("bold")
        yield name
        heads = [column.replace("/\n", "/") for column in self.columns[1:]]
        shown = [Text.assemble((f"{head}: ", "dim"), cell) for head, cell in zip(heads, cells, strict=True) if cell.plain]
        yield Padding(Text("; ").join(shown), (0, 0, 0, 2))


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> Group:
    """Return a title and a table; columns in `numbers` are right-aligned, all wrap between words."""
    written = tuple(tuple(_write(cell) for cell in row) for row in rows)
    grid = Grid(columns=tuple(columns), rows=written, numbers=tuple(numbers))
    return Group(*([Text(title, style="bold")] if title else []), grid)


def _write(cell: Any) -> str:
    return number(cell) if isinstance(cell, (int, float)) and not isinstance(cell, bool) else str(cell)


def list_files(files: Iterable[str], folder: str) -> str:
    """Return a line of the files that were written, and their folder.

    >>> list_files(["pruned.snn", "nir/network.nir"], "out/")
    'files in out: pruned.snn, nir/network.nir'
    """
    return f"files in {folder.rstrip('/') or '/'}: {', '.join(files)}"
