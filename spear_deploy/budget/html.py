"""How does a notebook show a budget report? The verdict, every resource with used and limit, and what to do about an overrun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from spear_deploy.budget import text
from spear_deploy.notebook import COLOURS, html_table

if TYPE_CHECKING:
    from spear_deploy.budget.rows import Row
    from spear_deploy.budget.verdict import BudgetReport

ORDER = ("over", "tight", "unchecked", "ok")
TITLE = {"fits": "#1a7f37", "does_not_fit": COLOURS["over"], "unchecked": COLOURS["unchecked"]}
COLUMNS = ("layer", "resource", "used", "limit", "share", "status", "what to do")


def html(report: BudgetReport) -> str:
    """Return the report as HTML: the rows with the most urgent status first, each status in the order of the network."""
    rows = [(row.status, _cells(row)) for status in ORDER for row in report.rows if row.status == status]
    missing = [f"not on this chip: layer '{one.layer}': {one.what}; {one.why}" for one in report.unsupported]
    return html_table(
        report.headline, COLUMNS, list(_shortened(rows)), numbers=(2, 3, 4), colour=TITLE[report.verdict],
        notes=[*missing, *report.notes],
    )  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    share = "" if row.share is None else f"{100 * row.share:,.0f} %"
    said = row.remedy or row.detail
    unit = "" if row.unit in ("thing", row.resource) else f" {row.unit}"
    return (
        row.where, row.resource.replace("_", " "), text.number(row.used), f"{text.number(row.limit)}{unit}", share, row.status,
        said,
    )  # fmt: skip


def _shortened(rows: Sequence[tuple[str, Sequence[Any]]], most: int = 60) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the rows, at most `most` of those that are in order."""
    fine = 0
    for status, cells in rows:
        fine += status == "ok"
        if status != "ok" or fine <= most:
            yield status, cells
    if fine > most:
        yield "ok", ("…", f"{fine - most} more within their limits", "", "", "", "ok", "")
