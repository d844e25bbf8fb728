"""HTML tables for notebooks, with inline style.

Plain HTML without script, readable on a light and a dark background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from spear_deploy.util.printable import escape_hidden

CELL = "padding:2px 10px;text-align:{};white-space:{};border:none;border-bottom:1px solid rgba(128,128,128,.35)"
COLOURS = {"ok": "", "tight": "#b8860b", "over": "#d1242f", "unchecked": "#3b82c4", "bold": ""}
"""By status of a row; readable on white and on black."""


def html_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[Any]]],
    *,
    numbers: Sequence[int] = (),
    colour: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Return a title, a table and notes as one piece of HTML; all text is escaped.

    Args:
        title: above the table, bold.
        columns: heads.
        rows: (status, cells); the status, a key of `COLOURS`, colours the row's text.
        numbers: columns that are right-aligned.
        colour: of the title.
        notes: lines below.

    >>> html_table("SynOps", ("layer", "SynOps"), [("ok", ("fc<1>", 12))], numbers=(1,)).count("fc&lt;1&gt;")
    1
    """
    style = [CELL.format("right" if index in numbers else "left", "nowrap") for index in range(len(columns) - 1)]
    style.append(CELL.format("right" if len(columns) - 1 in numbers else "left", "normal"))
    head = "".join(f'<th scope="col" style="{css}">{_escape(name)}</th>' for css, name in zip(style, columns, strict=True))
    body = "".join(
        f"<tr{_colour(COLOURS[status])}>"
        + "".join(f'<td style="{css}">{_escape(cell)}</td>' for css, cell in zip(style, cells, strict=True))
        + "</tr>"
        for status, cells in rows
    )
    lines = "".join(f'<div style="opacity:.75">{_escape(note)}</div>' for note in notes)
    return (
        f"<div><div><strong{_colour(colour)}>{_escape(title)}</strong></div>"
        f'<table style="border-collapse:collapse;margin:.5em 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"{lines}</div>"
    )


def _escape(text: Any) -> str:
    return escape(escape_hidden(str(text), keep="\n\t"))


def _colour(colour: str) -> str:
    return f' style="color:{colour}"' if colour else ""
