"""How do results and progress look in a terminal? Tables on stdout, progress on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from spear_deploy.budget import BudgetReport
    from spear_deploy.comparison import LayerDifference
    from spear_deploy.pipeline import Deployment
    from spear_deploy.verbs import Count

STATUS_STYLE = {"ok": "green", "tight": "yellow", "over": "bold red", "unchecked": "cyan"}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> Table:
    """Return a table; the columns in `numbers` are right-aligned, the last column takes the line breaks."""
    made = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        made.add_column(column, justify="right" if index in numbers else "left", overflow="fold", no_wrap=not last)
    for row in rows:
        made.add_row(*(number(cell) if isinstance(cell, float) else str(cell) for cell in row))
    return made


def number(value: float | None) -> str:
    """Write a number as a person reads it.

    >>> number(12345.678), number(0.01234), number(None)
    ('12,346', '0.0123', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def show_profiles(console: Console, profiles: Iterable[Mapping[str, Any]]) -> None:
    """List the profiles."""
    rows = [(p["name"], p.get("title", ""), p.get("cores", "–"), p.get("chips", "")) for p in profiles]
    console.print(table("Chips", ("name", "chip", "cores", "boards"), rows, numbers=(2,)))


def show_profile(console: Console, title: str, leaves: Iterable[Any]) -> None:
    """Show every number of a profile with its source."""
    rows = [(leaf.key, _shown(leaf.value), leaf.unit or "", leaf.evidence, leaf.source or "") for leaf in leaves]
    console.print(table(title, ("key", "value", "unit", "evidence", "source"), rows, numbers=(1,)))


def _shown(value: Any) -> str:
    return "not published" if value is None else str(value)


def show_check(console: Console, report: BudgetReport) -> None:
    """Show the verdict first, then what is over, then every resource."""
    console.print(report.headline, style="bold", highlight=False)
    made = Table(show_edge=False, pad_edge=False)
    for name in ("resource", "where", "used", "limit", "%", "status", "remedy"):
        right = name in ("used", "limit", "%")
        made.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name != "remedy")
    for row in report.rows:
        share = f"{100 * row.used / row.limit:.0f}" if row.used is not None and row.limit else "–"
        status = f"[{STATUS_STYLE.get(row.status, '')}]{row.status}[/]"
        used = f"{number(row.used)}{' ' + row.unit if row.unit else ''}"
        made.add_row(row.resource, row.where, used, number(row.limit), share, status, row.remedy or "")
    console.print(made)
    for item in report.unsupported:
        console.print(f"[bold red]unsupported[/] layer '{item.layer}': {item.what}; {item.why}", highlight=False)


def show_count(console: Console, found: Count) -> None:
    """Show SynOps and rates by layer."""
    names = list(dict.fromkeys([*found.synops_per_layer, *found.rates]))
    rows = [(name, found.synops_per_layer.get(name, 0.0), _rate(found.rates.get(name))) for name in names]
    rows.append(("total", found.synops_total, ""))
    console.print(
        table(f"SynOps per inference ({found.samples} samples, {found.steps} steps)", ("layer", "SynOps", "rate"), rows, (1, 2))
    )
    if found.macs_first_layer:
        console.print(f"first layer, analogue input: {number(found.macs_first_layer)} MACs")
    if found.rules:
        console.print(table("The same run by other rules", ("rule", "SynOps"), list(found.rules.items()), (1,)))


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def show_compare(console: Console, layers: Iterable[LayerDifference]) -> None:
    """Show the differences by layer."""
    rows = [
        (layer.layer, layer.what, layer.mismatches, layer.compared, "none" if layer.first is None else _place(layer.first))
        for layer in layers
    ]
    console.print(table("Differences", ("layer", "compared", "different", "of", "first"), rows, (2, 3)))


def _place(first: Mapping[str, Any]) -> str:
    return f"step {first['step']}, sample {first['sample']}, neuron {tuple(first['neuron'])}"


def show_deployment(console: Console, result: Deployment) -> None:
    """Show the verdict that a person understands."""
    facts = result.to_json()
    accuracy, synops, lava = facts["accuracy"], facts["synops"], facts["lava"]
    console.print(result.report.headline, style="bold", highlight=False)
    rows: list[Sequence[Any]] = [
        ("accuracy, dense", f"{accuracy['dense']:.2%}", "test split"),
        ("accuracy, pruned", f"{accuracy['pruned']:.2%}", "fine-tuned, floating point"),
        ("accuracy, quantised", f"{accuracy['quantised']:.2%}", f"integers of {facts['chip']}"),
        ("accuracy, on Lava", f"{accuracy['lava']:.2%}", f"{lava['samples']} test samples as Lava processes"),
        ("spikes, Lava against ours", f"{lava['spike_mismatches']} differ", f"of {lava['spikes_compared']:,} compared"),
        (
            "spikes, Norse against ours",
            f"{facts['norse']['spike_mismatches']} differ",
            f"of {facts['norse']['spikes_compared']:,} compared",
        ),
        ("SynOps, dense", number(synops["dense"]), "per inference, test split"),
        ("SynOps, budget", number(synops["budget"]), f"{synops['budget'] / synops['dense']:.0%} of dense"),
        ("SynOps, achieved", number(synops["achieved"]), f"{synops['achieved'] / synops['budget']:.1%} of the budget"),
        ("cores", f"{facts['cores_used']} of {facts['cores_limit']}", _peak(result.report)),
        ("energy", *_energy(facts["energy"])),
        ("widths", ", ".join(f"{name} {a}→{b}" for name, (a, b) in facts["widths"].items()), "channels before and after"),
    ]
    console.print(table("", ("what", "value", "note"), rows, (1,)))
    for note in facts["notes"]:
        console.print(f"note: {note}", highlight=False)
    console.print("files: " + ", ".join(facts["files"].values()), highlight=False)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in facts["seconds"].items())
    console.print(f"time: {sum(facts['seconds'].values()):.0f} s ({spent})", highlight=False)


def _peak(report: BudgetReport) -> str:
    memory = [row for row in report.rows if row.resource == "synapse_memory" and row.used is not None and row.limit]
    worst = max(memory, key=lambda row: row.used / row.limit, default=None)  # type: ignore[operator]
    if worst is None:
        return ""
    return f"synapse memory {100 * worst.used / worst.limit:.0f} % on the fullest core ({worst.where})"  # type: ignore[operator]


def _energy(energy: Mapping[str, Any]) -> tuple[str, str]:
    if energy["total"] is not None:
        return f"{number(energy['total'] * 1e6)} µJ", "per inference"
    return "not known", "not published: " + ", ".join(energy["missing"])


class Display(AbstractContextManager["Display"]):
    """Progress on stderr: a live bar in a terminal, one line a stage elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True)
        self.quiet = quiet
        self.stage = ""
        self.begin = time.monotonic()
        self.bars: Any = None

    def __enter__(self) -> Display:
        if not self.quiet and self.console.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.bars.start()
            self.task = self.bars.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """Take one piece of progress: `stage`, `done`, `of`, and numbers worth showing."""
        if self.quiet:
            return
        stage = str(facts.get("stage", self.stage))
        done, of = facts.get("done", 0), facts.get("of", 0)
        if self.bars is not None:
            extra = "  ".join(
                f"{k} {facts[k]:.4g}" for k in ("accuracy", "synops", "best", "reward") if isinstance(facts.get(k), float)
            )
            self.bars.update(self.task, description=f"{stage}  {extra}", completed=done, total=of or None)
        elif stage != self.stage:
            self.console.print(f"[{time.monotonic() - self.begin:6.1f} s] {stage}", highlight=False, markup=False)
        self.stage = stage
