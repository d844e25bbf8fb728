"""How does a person read a budget report? The verdict first, then each layer in a line, then what to do about what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, TypeAlias

from spear_deploy.budget.rows import TOGETHER, Row, Status
from spear_deploy.energy import Energy
from spear_deploy.words import plural, with_prefix

if TYPE_CHECKING:
    from spear_deploy.budget.support import Unsupported
    from spear_deploy.budget.verdict import BudgetReport

Line: TypeAlias = tuple[str, str]
"""(style: a status, "bold" or ""; text)."""

VERDICTS = {"fits": "FITS", "does_not_fit": "DOES NOT FIT", "unchecked": "UNCHECKED"}
COLUMNS = (
    ("neurons", "neurons"),
    ("synapse_memory", "syn mem"),
    ("axons_in", "axons in"),
    ("axons_out", "axons out"),
)
"""(resource, head of its column); of all others the fullest is named."""
WORST: tuple[Status, ...] = ("ok", "tight", "unchecked", "over")
STRUCTURE = ("weight_bits", "bias_bits", "neuron_groups", "destinations", "fan_out_cores")
"""Resources whose share says little while they are kept."""
WIDTH = 120
LONGEST_NAME = 24
HARD_SPACE = "\u00a0"


def headline(report: BudgetReport) -> str:
    """Return the verdict in one line."""
    parts = [_cores(report)]
    if report.placement.chips > 1:
        parts.append(f"{report.placement.chips_used} of {report.placement.chips} chips")
    if report.unsupported:
        parts.append(f"{plural(len(report.unsupported), 'thing')} the chip does not have")
    if report.over:
        parts.append(f"{plural(len(report.over), 'limit')} exceeded")
    shares = [row.share for row in report.rows if row.resource == "synapse_memory" and row.share is not None]
    if shares:
        place = "chip" if any(row.resource == "synapse_memory" and row.where == "chip" for row in report.rows) else "core"
        parts.append(f"synapse memory {100 * max(shares):.0f} % on the fullest {place}")
    if report.synops is not None:
        parts += [f"{report.synops:,.0f} SynOps", _energy(report.energy)]
    if report.latency_s is not None:
        parts.append(f"{with_prefix(report.latency_s, 's')} per inference")
    passes = f" IN {report.passes} PASSES" if (report.passes or 1) > 1 else ""
    return f"{VERDICTS[report.verdict]} {report.profile}{passes}: {', '.join(parts)}"


def text(report: BudgetReport, width: int = WIDTH) -> str:
    """Return the whole report as plain text."""
    return "\n".join(line for _, line in lines(report, width))


def lines(report: BudgetReport, width: int = WIDTH) -> Iterator[Line]:
    """Yield the lines of the report, none wider than `width`."""
    yield from _wrapped("bold", headline(report), "", width)
    yield ("", "")
    yield from _matrix(report, width)
    for status in ("over", "tight", "unchecked"):
        found = list(_flagged(report, status, width))
        if found:
            yield ("", "")
            yield from found
    if report.unsupported:
        yield ("", "")
        for what in _grouped(report.unsupported):
            yield from _wrapped("over", f"not on this chip: {what}", "  ", width)
    yield ("", "")
    for note in _notes(report):
        yield from _wrapped("", note, "  ", width)


# -------------------------------------------------------------------------------------------------------------- matrix


def _matrix(report: BudgetReport, width: int) -> Iterator[Line]:
    """Yield a line for each layer (or layers that share cores): its cores, and how full the fullest one is."""
    places: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.unit != "thing":
            places.setdefault(row.where, []).append(row)
    shown = [(name, head) for name, head in COLUMNS if any(row.resource == name for row in report.rows)]
    heads = ["layer", "cores", *(head for _, head in shown), "fullest other"]
    filled = [
        (_status(rows), [_name(where), _cores_of(report, where), *_shares(rows, shown), _other(rows, shown)])
        for where, rows in places.items()
    ]
    filled = [(status, line) for status, line in filled if any(line[1:])]
    cells = [line for _, line in filled]
    widths = [max(len(line[i]) for line in (heads, *cells)) for i in range(len(heads))]
    room = width - 2 - sum(widths[:-1]) - 2 * (len(widths) - 1)
    for k, line in enumerate((heads, *cells)):
        left = [line[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(line[1:-1], widths[1:-1], strict=True))]
        status = "bold" if k == 0 else filled[k - 1][0]
        yield (status, ("  " + "  ".join([*left, line[-1][: max(0, room)]])).rstrip())


def _name(where: str) -> str:
    """Return a place in the width of a column: of many layers the first, and how many more there are."""
    names = where.split(TOGETHER)
    if len(where) <= LONGEST_NAME:
        return where
    rest = f" + {len(names) - 1} more" if len(names) > 1 else ""
    room = LONGEST_NAME - len(rest)
    return (names[0] if len(names[0]) <= room else f"{names[0][: room - 1]}…") + rest


def _cores_of(report: BudgetReport, where: str) -> str:
    names = where.split(TOGETHER)
    if not set(names) & set(report.placement.layers):
        return ""
    of: dict[tuple[int, int], set[str]] = {}
    for name in names:
        for part in report.placement.of(name):
            of.setdefault((part.run, part.core), set()).add(name)
    together = sum(layers == set(names) for layers in of.values()) if len(names) > 1 else len(of)
    return f"{together:,}" if together else ""


def _shares(rows: Sequence[Row], shown: Sequence[tuple[str, str]]) -> list[str]:
    by_name = {row.resource: row for row in rows}
    return [_share(by_name[name]) if name in by_name else "" for name, _ in shown]


def _share(row: Row) -> str:
    return "?" if row.share is None else f"{100 * row.share:,.0f} %"


def _other(rows: Sequence[Row], shown: Sequence[tuple[str, str]]) -> str:
    rest = [row for row in rows if row.resource not in [name for name, _ in shown] and row.share is not None]
    rest = [row for row in rest if row.status == "over" or row.resource not in STRUCTURE]
    if not rest:
        return ""
    fullest = max(rest, key=lambda row: row.share or 0.0)
    return f"{_said(fullest)} {_share(fullest)}"


def _status(rows: Sequence[Row]) -> str:
    worst = max((row.status for row in rows), key=WORST.index)
    return "" if worst == "ok" else worst


# --------------------------------------------------------------------------------------------------------------- lists


def _flagged(report: BudgetReport, status: str, width: int) -> Iterator[Line]:
    """Yield what is over with what to do, or in few lines what is tight or unchecked."""
    rows = [row for row in report.rows if row.status == status and (row.unit != "thing" or status == "unchecked")]
    if status == "over":
        for row in rows:
            detail = f" ({row.detail})" if row.detail else ""
            said = f"over: {_said(row)} of {row.where}: {number(row.used)} of {number(row.limit)}{detail}"
            yield from _wrapped("over", said, "  ", width)
            for remedy in row.remedy.split("; ") if row.remedy else ():
                yield from _wrapped("", f"→ {remedy}", "      ", width)
    elif status == "tight" and rows:
        said = ", ".join(
            f"{_said(row)} of {_name(row.where)} {_share(row)}" for row in sorted(rows, key=lambda r: -(r.share or 0))
        )
        yield from _wrapped("tight", f"tight: {said}", "  ", width)
    else:
        together: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            why = (
                row.remedy
                or (row.detail if row.limit == 0 else "")
                or ("limit not published" if row.limit is None else "not known")
            )
            together.setdefault((_said(row), why), []).append(row.where)
        for (said, why), names in together.items():
            yield from _wrapped("unchecked", f"unchecked: {said} of {_listed(names)}: {why}", "  ", width)


def _grouped(findings: Sequence[Unsupported]) -> list[str]:
    """Say each thing once, with all the layers that have it."""
    together: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        together.setdefault((finding.what, finding.why), []).append(f"'{finding.layer}'")
    return [f"{'layer' if len(n) == 1 else 'layers'} {', '.join(n)}: {what}; {why}" for (what, why), n in together.items()]


def _listed(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(_name(name) for name in names))
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _notes(report: BudgetReport) -> list[str]:
    notes = list(report.notes)
    if report.synops is not None:
        notes += [f"energy: {line}" for line in _energy_lines(report.energy)]
        notes.append(f"time: {report.latency.how or 'not known (' + ', '.join(report.latency.missing) + ')'}")
    return notes


def _wrapped(style: str, line: str, indent: str, width: int) -> Iterator[Line]:
    further = indent + "    "
    joined = line.replace(" %", f"{HARD_SPACE}%")
    for part in wrap(joined, max(width, 40), initial_indent=indent, subsequent_indent=further, break_on_hyphens=False):
        yield (style, part.replace(HARD_SPACE, " "))


# -------------------------------------------------------------------------------------------------------------- values


def _cores(report: BudgetReport) -> str:
    if report.cores_limit is None:
        known = any(row.resource == "cores" and row.status == "unchecked" for row in report.rows)
        return f"{plural(report.cores_used, 'core')}, {'number of cores not published' if known else 'no limit'}"
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


def _said(row: Row) -> str:
    return row.resource.replace("_", " ")


def number(value: float | None) -> str:
    """Write an amount: whole if it is whole, a question mark if nobody knows it.

    >>> number(5120), number(174131.24), number(0.0123), number(None)
    ('5,120', '174,131.2', '0.0123', '?')
    """
    if value is None:
        return "?"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
