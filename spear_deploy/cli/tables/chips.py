"""Tables of chips: verdicts, ranking, profiles and findings in netx files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spear_deploy.cli.tables.grid import make_table
from spear_deploy.network.labels import add_kinds
from spear_deploy.util.number_format import UNKNOWN, format_fact, of_limit, percent, unit_noun

if TYPE_CHECKING:
    from spear_deploy.budget.chip_ranking import Ranked
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.interchange.netx.lint import LintFinding

MIN_PROFILE_WIDTH = 100
"""Characters of a terminal that has a column for the sources of a profile."""
VERDICT_STYLE = {"fits": "green", "unchecked": "cyan", "does_not_fit": "bold red"}


def show_check(console: Console, report: BudgetReport) -> None:
    """Print the verdict, a line for each layer, and what to change."""
    console.print(report)


def show_rank(console: Console, ranking: Iterable[Ranked]) -> None:
    """Print the chips, the best first, each with what is missing and what would mend it, or else its scarcest resource."""
    rows, ranking = [], list(ranking)
    names = Counter(ranked.profile for ranked in ranking)
    for ranked in ranking:
        report = ranked.report
        name = ranked.profile if names[ranked.profile] == 1 else escape(ranked.chip)
        verdict = f"[{VERDICT_STYLE[report.verdict]}]{report.verdict.replace('_', ' ')}[/]"
        shown = 1 if ranked.reach else 2
        more = f"; {len(ranked.missing) - shown} more" if len(ranked.missing) > shown else ""
        remark = "; ".join(ranked.missing[:shown]) + more
        if ranked.reach:
            remark += "\n→ " + ranked.reach.removeprefix("within reach: ")
        if not remark and ranked.share is not None:
            remark = f"{percent(ranked.share)} {ranked.scarcest}"
        bounds = report.energy.interval
        energy = UNKNOWN if bounds is None else f"{bounds.write('J')}\n{bounds.evidence}"
        remark = escape(add_kinds(remark, report.labels))
        rows.append((name, verdict, of_limit(report.cores_used, report.cores_limit), energy, remark))
    columns = ("chip", "verdict", "cores", "energy/\ninference", "missing → remedy, or scarcest")
    if any(row[3] != UNKNOWN for row in rows):
        table = make_table("", columns, rows, numbers=(3,))
    else:  # without an activity: room for the reasons
        table = make_table("", (*columns[:3], columns[4]), [(*row[:3], row[4]) for row in rows])
    console.print(table, highlight=False)


def show_lint(console: Console, findings: Sequence[LintFinding]) -> None:
    """Print what in a netx file breaks lava-dl's loader."""
    if not findings:
        console.print("lava-dl loads this file", style="green", highlight=False)
        return
    for finding in findings:
        console.print(f"{finding.layer}: {finding.what}", style="bold red" if finding.breaks else "yellow", highlight=False)
        console.print(f"  {finding.why}; {finding.repair}", highlight=False)
        remark = "`export --to netx` repairs it" if finding.repaired_by_export else "`export --to netx` does not repair it"
        console.print(f"  {remark}", style="dim", highlight=False)


def show_profiles(console: Console, profiles: Iterable[Mapping[str, Any]]) -> None:
    """Print a row for each profile."""
    grid = _make_wrapping_table(("name", "chip", "cores", "boards and their chips"), whole=(0, 2), numbers=(2,))
    for p in profiles:
        boards = ", ".join(f"{board} ({chips})" for board, chips in p["boards"].items())
        grid.add_row("\n".join([p["name"], *p.get("variants", ())]), p["title"], _format_value(p["cores"]), boards)
    console.print(grid)


def show_profile(console: Console, meta: Any, leaves: Sequence[Any]) -> None:
    """Print every number of a profile with its source, then the keys without a published number."""
    console.print(f"{meta.title}, {meta.domain}", style="bold", highlight=False)
    if meta.operating_point:
        console.print(f"operating point: {meta.operating_point}", highlight=False)
    narrow = console.width < MIN_PROFILE_WIDTH
    heads = ("key", "value; evidence: source") if narrow else ("key", "value", "evidence: source")
    grid = _make_wrapping_table(heads, whole=(0,), numbers=())
    for leaf in leaves:
        if leaf.value is not None:
            cells = (_format_value(leaf.value) + _write_unit(leaf), f"{leaf.evidence}: {leaf.source}")
            grid.add_row(leaf.key, *(["\n".join(cells)] if narrow else cells))
    console.print(grid)
    missing = [leaf.key for leaf in leaves if leaf.value is None and not leaf.key.startswith("core_groups.")]
    console.print(f"not published, or no part of this chip: {', '.join(missing) or 'nothing'}", highlight=False)


def _make_wrapping_table(columns: Sequence[str], whole: Sequence[int], numbers: Sequence[int]) -> Table:
    """Return a table whose columns wrap if necessary, except those in `whole`."""
    grid = Table(show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        right = "right" if index in numbers else "left"
        grid.add_column(column, no_wrap=index in whole, overflow="fold", justify=right)  # type: ignore[arg-type]
    return grid


def _write_unit(leaf: Any) -> str:
    """Return the unit of a fact behind a space; nothing for a flag, a word, words, or a value that the key names."""
    values = leaf.value if isinstance(leaf.value, (list, tuple)) else [leaf.value]
    if leaf.unit in ("flag", leaf.key.rsplit(".", 1)[-1]) or any(isinstance(value, str) for value in values):
        return ""
    return f" {unit_noun(leaf.unit, leaf.value if isinstance(leaf.value, (int, float)) else None)}"


def _format_value(value: Any) -> str:
    """Write a value as in a profile file, with separators of thousands."""
    if isinstance(value, bool):
        return str(value).lower()
    return UNKNOWN if value is None else format_fact(value)
