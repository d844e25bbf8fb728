"""Budget report: verdict, rows and placement, as data, text and HTML.

rich draws the report wherever it is read: in a terminal (`console.print(report)`), as plain text (`str(report)`) and as the
HTML of a notebook. Terminal and text have one line per layer, the notebook one row per resource.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from rich.console import ConsoleRenderable, Group
from rich.padding import Padding
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from spear_deploy.budget.balance import Balanced
from spear_deploy.budget.core_rows import THING, BudgetRow
from spear_deploy.budget.core_work import CoreWork
from spear_deploy.budget.energy import Energy
from spear_deploy.budget.intervals import weakest
from spear_deploy.budget.latency import Latency
from spear_deploy.budget.report_tables import (
    STATUS_STYLES,
    draw_layer_table,
    draw_resource_table,
    shorten_place,
    write_resource,
    write_share,
)
from spear_deploy.budget.unsupported import LATE_RESET, SEVERAL_SPIKES, Replaced, Unsupported
from spear_deploy.network.labels import add_kinds, name_layers
from spear_deploy.placement.place import Placement
from spear_deploy.util.console import PrintableConsole
from spear_deploy.util.number_format import join_names, plural, quantity, with_prefix

NO_NUMBER_OF_CORES = "number of cores not published"

Verdict: TypeAlias = Literal["fits", "does_not_fit", "unchecked"]

VERDICTS = {"fits": "FITS", "does_not_fit": "DOES NOT FIT", "unchecked": "UNCHECKED"}
VERDICT_STYLES = {"fits": "bold green", "does_not_fit": "bold red", "unchecked": "bold cyan"}
TEXT_WIDTH, HTML_WIDTH = 120, 150
"""Characters of a line of `str(report)` and of the notebook's HTML."""
MAX_NAMES = 4
"""Layers that are named in a sentence."""
HTML = '<pre style="line-height:1.35;overflow-x:auto;white-space:pre">{code}</pre>'
"""The notebook's own colours of text and background stay, so that the report is readable on light and dark."""
THEME = TerminalTheme(
    (255, 255, 255),
    (0, 0, 0),
    [(0, 0, 0), (209, 36, 47), (26, 127, 55), (184, 134, 11), (59, 130, 196), (150, 80, 160), (59, 130, 196), (128, 128, 128)],
)
"""Colours that are readable on white and on black."""


@dataclass(frozen=True, kw_only=True)
class BudgetReport:
    """The verdict of a check, with everything it rests on.

    Attributes:
        profile: name of the chip.
        verdict: "does_not_fit" if a row is over its limit or something does not exist on the chip, "unchecked" if only a
            limit or an amount is not known, else "fits".
        cores_used, cores_limit: as the chip's tool packs, of the pass that takes most; the limit is None where there is
            none or none is published.
        rows: one per resource and place.
        synops: per inference, mean over samples; None without activity.
        chip_synops: those that the chip works on, zero weights included where it skips none; None where that is not published.
        neuron_ops: neuron updates of an inference, every neuron in every step; None where the steps are not known.
        energy, latency: of an inference.
        work: of each core in a step; None without activity.
        balanced: a packing with less work on the fullest core, where the chip allows one.
        unsupported: what the chip does not have.
        replaced: what the chip does in another way, with other spikes.
        placement, fewest_cores: as the chip's tool packs, and in as few cores as the limits allow.
        passes: how often the chip is filled, or None if it has to hold the network as a whole.
        bound: number of cores that no packing goes below.
        notes: assumptions and remarks.
        labels: of layers in tables (`label_layers`).
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
    chip_synops: float | None = None
    neuron_ops: int | None = None
    work: CoreWork | None = None
    balanced: Balanced | None = None
    replaced: tuple[Replaced, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
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

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        return f"{VERDICTS[self.verdict]} {_summarize(self)}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, under the keys of `check --json`."""
        bounds = self.latency.interval
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
                "balanced": None if self.balanced is None else self.balanced.to_json(),
            },
            "replaced": [entry.to_json() for entry in self.replaced],
            "chip_synops": self.chip_synops,
            "neuron_ops": self.neuron_ops,
            "latency_interval_s": None if bounds is None else bounds.ends(),
            "latency_evidence": None if bounds is None else bounds.evidence,
            "fullest_core": None if self.work is None else self.work.to_json(),
            "headline": self.headline,
            "notes": list(self.notes),
        }

    def to_text(self, width: int = TEXT_WIDTH) -> str:
        """Return the report as plain text with lines of at most `width` characters."""
        lines = _record(self, width).export_text().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def __rich__(self) -> ConsoleRenderable:
        sentences = _draw_lines(_group_lines(self), self.labels)
        return Group(
            _headline(self),
            "",
            Padding.indent(draw_layer_table(self.rows, self.labels, self.placement), 2),
            "",
            Padding.indent(sentences, 2),
        )

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        """Return the text too: its fields would fill pages."""
        return self.to_text()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the most urgent rows first, each status in the order of the network."""
        sentences = _draw_lines([_unsupported_lines(self), _note_lines(self)], self.labels)
        drawing = Group(_headline(self), "", draw_resource_table(self.rows, self.labels), "", sentences)
        return _record(drawing, HTML_WIDTH).export_html(theme=THEME, code_format=HTML, inline_styles=True)


def _record(drawing: Any, width: int) -> PrintableConsole:
    console = PrintableConsole(file=io.StringIO(), record=True, width=width, force_terminal=False, force_jupyter=False)
    console.print(drawing)
    return console


# ------------------------------------------------------------------------------------------------------------ headline


def _headline(report: BudgetReport) -> Text:
    return Text.assemble((VERDICTS[report.verdict], VERDICT_STYLES[report.verdict]), (f" {_summarize(report)}", "bold"))


def _summarize(report: BudgetReport) -> str:
    """Return chip, cores, violations, memory, SynOps, energy and latency in one line."""
    parts = [_cores(report)]
    if report.placement.chips > 1:
        parts.append(f"{report.placement.chips_used} of {report.placement.chips} chips")
    if report.unsupported:
        parts.append(f"{plural(len(report.unsupported), 'thing')} the chip does not have")
    late = [entry for entry in report.replaced if entry.what == LATE_RESET]
    several = [entry for entry in report.replaced if entry.what == SEVERAL_SPIKES]
    if late:
        parts.append(f"reset of {plural(len(late), 'layer')} one step earlier than trained")
    if several:
        parts.append(f"fewer spikes in a step of {plural(len(several), 'layer')} than trained")
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
    elif report.latency.interval is not None:
        parts.append(f"time {report.latency.interval.write('s')} ({report.latency.interval.evidence})")
    passes = f" IN {report.passes} PASSES" if (report.passes or 1) > 1 else ""
    return f"{report.profile}{passes}: {', '.join(parts)}"


def _cores(report: BudgetReport) -> str:
    if report.cores_limit is None:
        unpublished = any(row.resource == "cores" and row.status == "unchecked" for row in report.rows)
        return f"{plural(report.cores_used, 'core')}, {NO_NUMBER_OF_CORES if unpublished else 'no limit'}"
    return f"{report.cores_used:,} of {report.cores_limit:,} cores ({100 * report.cores_used / report.cores_limit:,.0f} %)"


def _energy(energy: Energy) -> str:
    if energy.total is not None:
        return f"{with_prefix(energy.total, 'J')} per inference"
    parts = {"dynamic": energy.dynamic, "static": energy.static}
    known = {name: part for name, part in parts.items() if part is not None}
    if known:
        evidence = weakest([part.evidence for part in known.values()])
        words = ", ".join(f"{part.write('J')} {name}" for name, part in known.items())
        return f"energy {words} ({evidence})"
    return f"energy not known (missing: {', '.join(energy.missing)})"


# ----------------------------------------------------------------------------------------------------------- sentences

Line: TypeAlias = tuple[str, str, str]
"""(label, style, sentence)."""


def _draw_lines(groups: Sequence[Sequence[Line]], labels: Mapping[str, str]) -> Table:
    """Return groups of sentences with what they are about in a column on the left, layers with their kinds (`add_kinds`)."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for index, lines in enumerate(group for group in groups if group):
        if index:
            grid.add_row()
        for label, style, sentence in lines:
            grid.add_row(Text(label), Text(add_kinds(sentence, labels)), style=style)
    return grid


def _group_lines(report: BudgetReport) -> list[list[Line]]:
    """Return what is over with its remedies, what is tight, unchecked and missing, and the notes."""
    over, tight, unchecked = _over_lines(report), _tight_lines(report), _unchecked_lines(report)
    return [list(over), list(tight), list(unchecked), _unsupported_lines(report), _note_lines(report)]


def _over_lines(report: BudgetReport) -> Iterator[Line]:
    for row in report.over:
        detail = f" ({row.detail})" if row.detail else ""
        yield (
            "over",
            STATUS_STYLES["over"],
            f"{write_resource(row)} of {row.place}: {quantity(row.used, row.unit)} of {quantity(row.limit, row.unit)}{detail}",
        )
        for remedy in row.remedy.split("; ") if row.remedy else ():
            yield "", "", f"→ {remedy}"


def _tight_lines(report: BudgetReport) -> Iterator[Line]:
    rows = [row for row in report.rows if row.status == "tight" and row.unit != THING]
    if rows:
        rows.sort(key=lambda row: -(row.share or 0))
        names = (f"{write_resource(row)} of {_short_place(row)} {write_share(row)}" for row in rows)
        yield "tight", STATUS_STYLES["tight"], ", ".join(names)


def _unchecked_lines(report: BudgetReport) -> Iterator[Line]:
    """Yield a line per resource and reason, with the layers that it concerns, and one for all limits that are not published.

    Where nothing is over the note `open` names these limits.
    """
    layers: dict[tuple[str, str], list[str]] = {}
    unpublished = []
    for row in report.rows:
        if row.status == "unchecked":
            reason = row.remedy or (row.detail if row.limit == 0 else "")
            if not reason and row.limit is None:
                unpublished.append(write_resource(row))
                continue
            layers.setdefault((write_resource(row), reason or "not known"), []).append(_short_place(row))
    if unpublished and not any(note.startswith("open: ") for note in report.notes):
        yield "unchecked", STATUS_STYLES["unchecked"], f"limits not published: {join_names(list(dict.fromkeys(unpublished)))}"
    for (resource, reason), places in layers.items():
        names = list(dict.fromkeys(places))
        more = f" and {len(names) - MAX_NAMES + 1} more" if len(names) > MAX_NAMES else ""
        named = ", ".join(names[: MAX_NAMES - 1] if more else names)
        yield "unchecked", STATUS_STYLES["unchecked"], f"{resource} of {named}{more}: {reason}"


def _unsupported_lines(report: BudgetReport) -> list[Line]:
    """Return a line per thing that the chip does not have, with all layers that need it."""
    layers: dict[tuple[str, str], list[str]] = {}
    for finding in report.unsupported:
        layers.setdefault((finding.what, finding.why), []).append(f"'{finding.layer}'")
    return [
        (
            "missing",
            STATUS_STYLES["over"],
            f"{'layer' if len(names) == 1 else 'layers'} {', '.join(names)}: {what}; {why}",
        )
        for (what, why), names in layers.items()
    ]


def _note_lines(report: BudgetReport) -> list[Line]:
    """Return the notes (`topic: sentence`), and how energy and time were computed."""
    notes = list(report.notes)
    if report.synops is not None:
        energy = report.energy
        notes += [f"energy: {t.name} {with_prefix(t.joules, 'J')} ({t.how}; {t.evidence}, {t.source})" for t in energy.terms]
        if report.chip_synops is not None and report.chip_synops > report.synops:
            notes.append(
                f"zeros: {report.profile} works on weights of zero too: {report.chip_synops:,.0f} SynOps, of which "
                f"{report.chip_synops - report.synops:,.0f} change nothing; pruning whole channels removes them"
            )
        if energy.effective_ops is not None:
            notes.append(f"energy: {energy.effective_ops.how} effective operations ({energy.effective_ops.source})")
        elif report.neuron_ops is not None:
            notes.append(f"energy: {report.neuron_ops:,} neuron updates")
        if energy.missing:
            keys = f"; {report.profile} has no value for {join_names(energy.unstated)}" if energy.unstated else ""
            notes.append(f"energy: no total; missing: {', '.join(energy.missing)}{keys}")
        if energy.total is None:
            parts = (("dynamic", energy.dynamic), ("static", energy.static))
            notes += [
                f"energy: {name} {part.write('J')} ({part.how}; {part.evidence}, {part.source})"
                for name, part in parts
                if part is not None
            ]
        notes += [f"energy: measured: {run}" for run in energy.measured]
        notes.append(f"time: {_time(report.latency)}")
    if report.work is not None:
        notes.append(f"work: {report.work.sentence}")
    return [(topic, "", sentence) for topic, _, sentence in (note.partition(": ") for note in notes)]


def _short_place(row: BudgetRow) -> str:
    """Return a place in few words for a sentence."""
    return shorten_place(row.where) if row.place == row.where else name_layers(row.layers, most=1)


def _time(latency: Latency) -> str:
    """Return the time of an inference in words: its sum, or its interval, or what is missing."""
    if latency.seconds is not None:
        return latency.how
    if latency.interval is not None:
        interval = latency.interval
        return f"{interval.write('s')} ({interval.how}; {interval.evidence}, {interval.source})"
    return f"not known ({', '.join(latency.missing)})"
