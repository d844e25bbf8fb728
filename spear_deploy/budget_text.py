"""How does a person read a budget report? The verdict first, then what is missing, then every resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spear_deploy.energy import Energy

if TYPE_CHECKING:
    from spear_deploy.budget import BudgetReport, Row

VERDICTS = {"fits": "FITS", "does_not_fit": "DOES NOT FIT", "unchecked": "UNCHECKED"}


def headline(report: BudgetReport) -> str:
    """Return the verdict in one line."""
    parts = [_cores(report)]
    if report.unsupported:
        parts.append(f"{plural(len(report.unsupported), 'thing')} the chip does not have")
    if report.over:
        parts.append(f"{plural(len(report.over), 'limit')} exceeded")
    shares = [row.share for row in report.rows if row.resource == "synapse_memory" and row.share is not None]
    if shares:
        parts.append(f"synapse memory {100 * max(shares):.0f} % on the fullest core")
    if report.synops is not None:
        parts += [f"{report.synops:,.0f} SynOps", _energy(report.energy)]
    if report.latency_s is not None:
        parts.append(f"{with_prefix(report.latency_s, 's')} per inference")
    return f"{VERDICTS[report.verdict]} {report.profile}: {', '.join(parts)}"


def text(report: BudgetReport) -> str:
    """Return the whole report as plain text."""
    lines = [headline(report), ""]
    lines += [f"  not on this chip: layer '{u.layer}': {u.what}; {u.why}" for u in report.unsupported]
    lines += [f"  {line}" for line in _table(report.rows)]
    lines.append("")
    lines += [f"  {note}" for note in report.notes]
    if report.synops is not None:
        lines += [f"  energy: {line}" for line in _energy_lines(report.energy)]
        lines.append(f"  time: {report.latency.how or 'not known (' + ', '.join(report.latency.missing) + ')'}")
    return "\n".join(lines)


def with_prefix(value: float, unit: str) -> str:
    """Return a quantity with the prefix of its size.

    >>> with_prefix(1.66e-3, "J")
    '1.66 mJ'
    """
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def plural(n: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _cores(report: BudgetReport) -> str:
    if report.cores_limit is None:
        return f"{plural(report.cores_used, 'core')}, number of cores not published"
    return f"{report.cores_used} of {report.cores_limit} cores ({100 * report.cores_used / report.cores_limit:.0f} %)"


def _energy(energy: Energy) -> str:
    if energy.total is not None:
        return f"{with_prefix(energy.total, 'J')} per inference"
    return f"energy not known (no number for {', '.join(energy.missing)})"


def _energy_lines(energy: Energy) -> list[str]:
    lines = [f"{t.name} {with_prefix(t.joules, 'J')} ({t.how}; {t.evidence}, {t.source})" for t in energy.terms]
    if energy.missing:
        lines.append(f"no total; no number for {', '.join(energy.missing)}")
    return lines + [f"measured: {run}" for run in energy.measured]


def _table(rows: tuple[Row, ...]) -> list[str]:
    cells = [("resource", "where", "used", "limit", "%", "status", ""), *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(6)]
    lines = []
    for line in cells:
        left = [line[i].ljust(widths[i]) if i in (0, 1, 5) else line[i].rjust(widths[i]) for i in range(6)]
        lines.append("  ".join([*left, line[6]]).rstrip())
    return lines


def _cells(row: Row) -> tuple[str, str, str, str, str, str, str]:
    share = "" if row.share is None else f"{100 * row.share:.0f}"
    return (row.resource.replace("_", " "), row.where, _number(row.used), _number(row.limit), share, row.status, row.remedy)


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
