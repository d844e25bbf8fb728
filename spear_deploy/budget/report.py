"""How does a person read a budget report? The verdict first, then each layer in a line, then what to do about what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from spear_deploy.budget.core_rows import TOGETHER, BudgetRow, Status
from spear_deploy.budget.energy import Energy
from spear_deploy.budget.latency import Latency
from spear_deploy.budget.unsupported import Unsupported
from spear_deploy.placement.place import Placement
from spear_deploy.util.html_table import COLOURS, html_table
from spear_deploy.util.number_format import plural, with_prefix

if TYPE_CHECKING:
    from spear_deploy.budget.core_rows import BudgetRow
    from spear_deploy.budget.unsupported import Unsupported


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
    places: dict[str, list[BudgetRow]] = {}
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
        for part in report.placement.slices_of(name):
            of.setdefault((part.run, part.core), set()).add(name)
    together = sum(layers == set(names) for layers in of.values()) if len(names) > 1 else len(of)
    return f"{together:,}" if together else ""


def _shares(rows: Sequence[BudgetRow], shown: Sequence[tuple[str, str]]) -> list[str]:
    by_name = {row.resource: row for row in rows}
    return [_share(by_name[name]) if name in by_name else "" for name, _ in shown]


def _share(row: BudgetRow) -> str:
    return "?" if row.share is None else f"{100 * row.share:,.0f} %"


def _other(rows: Sequence[BudgetRow], shown: Sequence[tuple[str, str]]) -> str:
    rest = [row for row in rows if row.resource not in [name for name, _ in shown] and row.share is not None]
    rest = [row for row in rest if row.status == "over" or row.resource not in STRUCTURE]
    if not rest:
        return ""
    fullest = max(rest, key=lambda row: row.share or 0.0)
    return f"{_said(fullest)} {_share(fullest)}"


def _status(rows: Sequence[BudgetRow]) -> str:
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


def _said(row: BudgetRow) -> str:
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


# FOLDED from spear_deploy/budget/report.py
# How does a notebook show a budget report? The verdict, every resource with used and limit, and what to do about an overrun.

ORDER = ("over", "tight", "unchecked", "ok")
TITLE = {"fits": "#1a7f37", "does_not_fit": COLOURS["over"], "unchecked": COLOURS["unchecked"]}
HTML_COLUMNS = ("layer", "resource", "used", "limit", "share", "status", "what to do")


def html(report: BudgetReport) -> str:
    """Return the report as HTML: the rows with the most urgent status first, each status in the order of the network."""
    rows = [(row.status, _cells(row)) for status in ORDER for row in report.rows if row.status == status]
    missing = [f"not on this chip: layer '{one.layer}': {one.what}; {one.why}" for one in report.unsupported]
    return html_table(
        report.headline, HTML_COLUMNS, list(_shortened(rows)), numbers=(2, 3, 4), colour=TITLE[report.verdict],
        notes=[*missing, *report.notes],
    )  # fmt: skip


def _cells(row: BudgetRow) -> tuple[str, ...]:
    share = "" if row.share is None else f"{100 * row.share:,.0f} %"
    said = row.remedy or row.detail
    unit = "" if row.unit in ("thing", row.resource) else f" {row.unit}"
    return (
        row.where, row.resource.replace("_", " "), number(row.used), f"{number(row.limit)}{unit}", share, row.status,
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


Verdict: TypeAlias = Literal["fits", "does_not_fit", "unchecked"]


THING = "thing"
"""Unit of the rows that count what the chip does not have: those stand in `unsupported` as well."""


@dataclass(frozen=True, kw_only=True)
class BudgetReport:
    """The answer to "does it fit", with everything it rests on.

    Attributes:
        cores_used, cores_limit: as the chip's own tool packs, of the pass that takes most; the limit is None where there is
            none or none is published.
        passes: how often the chip is filled, or None if it has to hold the network as a whole.
        bound: number of cores that no packing goes below.
        synops: per inference, mean over samples; None without activity.
        energy, latency: of an inference.
        placement, tightest: as the vendor packs, and in as few cores as the limits allow.
        notes: what was assumed.
    """

    profile: str
    verdict: Verdict
    cores_used: int
    cores_limit: int | None
    rows: tuple[BudgetRow, ...]
    synops: float | None
    energy: Energy
    latency: Latency
    unsupported: tuple[Unsupported, ...]
    placement: Placement
    fewest_cores: Placement
    passes: int | None = None
    bound: int = 0
    notes: tuple[str, ...] = ()

    @property
    def latency_s(self) -> float | None:
        """Seconds of an inference, or None."""
        return self.latency.seconds

    @property
    def over(self) -> tuple[BudgetRow, ...]:
        """Rows beyond their limit; what the chip does not have at all is in `unsupported`."""
        return tuple(row for row in self.rows if row.status == "over" and row.unit != THING)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, under the keys of `check --json`."""
        return {
            "profile": self.profile,
            "verdict": self.verdict,
            "cores_used": self.cores_used,
            "cores_limit": self.cores_limit,
            "rows": [row.to_json() for row in self.rows],
            "synops": self.synops,
            "energy": self.energy.to_json(),
            "latency_s": self.latency_s,
            "unsupported": [finding.to_json() for finding in self.unsupported],
            "passes": self.passes,
            "chips_used": self.placement.chips_used,
            "packing": {
                "vendor": self.placement.cores_in_all,
                "fewest": self.fewest_cores.cores_in_all,
                "lower_bound": self.bound,
            },
        }

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        return headline(self)

    def __str__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html(self)
