"""How do results look in a terminal? As tables, on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spear_deploy.util.number_format import number

if TYPE_CHECKING:
    from spear_deploy.budget.chip_ranking import Ranked
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.interchange.netx.lint import LintFinding
    from spear_deploy.pipeline.api import Count
    from spear_deploy.pipeline.deployment import Deployment
    from spear_deploy.quantize.explain.attribution import Explanation
    from spear_deploy.simulator.spike_comparison import LayerDifference

VERDICT_STYLE = {"fits": "green", "unchecked": "cyan", "does_not_fit": "bold red"}
LEAST_WIDTH = 24
"""Columns of a terminal that the last column of a table keeps."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> Group:
    """Return a title and a table; the columns in `numbers` are right-aligned, the last column takes the line breaks.

    In a terminal too narrow for the columns, all of them break their lines; none vanishes.
    """
    made = Table(show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        least = min(len(column), LEAST_WIDTH) if last else None
        made.add_column(column, justify="right" if index in numbers else "left", overflow="fold", min_width=least)
    for row in rows:
        made.add_row(*(number(cell) if isinstance(cell, float) else str(cell) for cell in row))
    return Group(*([Text(title, style="bold")] if title else []), made)


def show_lint(console: Console, findings: Sequence[LintFinding]) -> None:
    """Show what lava-dl's loader does not take of a netx file."""
    if not findings:
        console.print("lava-dl loads what is written", style="green", highlight=False)
        return
    for finding in findings:
        console.print(f"{finding.layer}: {finding.what}", style="bold red" if finding.breaks else "yellow", highlight=False)
        console.print(f"  {finding.why}; {finding.repair}", highlight=False)
        done = "`export --to netx` repairs it" if finding.repaired_by_export else "`export --to netx` does not repair it"
        console.print(f"  {done}", style="dim", highlight=False)


def show_profiles(console: Console, profiles: Iterable[Mapping[str, Any]]) -> None:
    """List the profiles."""
    made = _wrapped(("name", "chip", "cores", "boards and their chips"), whole=(0, 2), numbers=(2,))
    for p in profiles:
        boards = ", ".join(f"{board} {chips}" for board, chips in p["boards"].items())
        made.add_row(p["name"], p["title"], _value(p["cores"]), boards)
    console.print(made)


def show_profile(console: Console, meta: Any, leaves: Sequence[Any]) -> None:
    """Show every number of a profile with its source; what is not published at the end."""
    console.print(f"{meta.title}, {meta.domain}", style="bold", highlight=False)
    if meta.operating_point:
        console.print(f"operating point: {meta.operating_point}", highlight=False)
    made = _wrapped(("key", "value", "evidence and source"), whole=(0,), numbers=())
    for leaf in leaves:
        if leaf.value is not None:
            unit = "" if leaf.unit in ("flag", leaf.key.rsplit(".", 1)[-1]) or isinstance(leaf.value, str) else f" {leaf.unit}"
            made.add_row(leaf.key, f"{_value(leaf.value)}{unit}", f"{leaf.evidence}: {leaf.source}")
    console.print(made)
    missing = [leaf.key for leaf in leaves if leaf.value is None and not leaf.key.startswith("core_groups.")]
    console.print(f"not published, or no part of this chip: {', '.join(missing) or 'nothing'}", highlight=False)


def _wrapped(columns: Sequence[str], whole: Sequence[int], numbers: Sequence[int]) -> Table:
    """Return a table whose columns break their lines where they have to, but those in `whole`."""
    made = Table(show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        right = "right" if index in numbers else "left"
        made.add_column(column, no_wrap=index in whole, overflow="fold", justify=right)  # type: ignore[arg-type]
    return made


def _value(value: Any) -> str:
    """Write a value as a profile file does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def show_check(console: Console, report: BudgetReport) -> None:
    """Show the verdict, a line per layer, and what to change."""
    console.print(report)


def show_rank(console: Console, found: Iterable[Ranked]) -> None:
    """Show the chips, the best first, and for each what stands in the way, or what is scarce where nothing does."""
    rows = []
    for ranked in found:
        report = ranked.report
        verdict = f"[{VERDICT_STYLE[report.verdict]}]{report.verdict.replace('_', ' ')}[/]"
        limit = "?" if report.cores_limit is None else report.cores_limit
        more = f"; {len(ranked.missing) - 2} more" if len(ranked.missing) > 2 else ""
        said = escape("; ".join(ranked.missing[:2]) + more)
        if not said and ranked.share is not None:
            said = f"{100 * ranked.share:.0f} % {escape(ranked.scarcest)}"
        energy = "" if report.energy.total is None else f"{number(report.energy.total * 1e6)}"
        rows.append((ranked.profile, verdict, f"{report.cores_used} of {limit}", energy, said))
    columns = ("chip", "verdict", "cores", "µJ", "what is missing, or scarcest")
    console.print(table("", columns, rows, numbers=(3,)), highlight=False)


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


def show_simulation(console: Console, facts: Mapping[str, Any], explanation: Explanation | None) -> None:
    """Show the run, what each step of the lowering cost, and what a person should know."""
    if "spikes" in facts:
        rows = [
            (
                name,
                count,
                _rate(facts["rates"].get(name)),
                ", ".join(f"{k} {v}" for k, v in facts["overflows"].get(name, {}).items()),
            )
            for name, count in facts["spikes"].items()
        ]
        title = f"Run of {facts['samples']} samples, {facts['steps']} steps ({facts['backend']})"
        console.print(table(title, ("layer", "spikes", "rate", "overflows"), rows, (1, 2)))
    if explanation is not None:
        _show_explanation(console, explanation)
    for found in facts["findings"]:
        console.print(f"finding: {found['text']}", highlight=False, markup=False)
    if facts.get("out"):
        console.print(f"written: {facts['out']}", highlight=False)


def _show_explanation(console: Console, found: Explanation) -> None:
    from spear_deploy.quantize.explain.attribution import ORDER_NOTE
    from spear_deploy.quantize.explain.first_difference import TIME_CONSTANT_STEPS

    columns = ("step", "accuracy", "change", "agree", "error", "spikes", "distance")
    rows: list[Sequence[Any]] = []
    for cost in found.costs:
        accuracy = "–" if cost.accuracy is None else f"{cost.accuracy:.1%}"
        change = "–" if cost.accuracy_change is None else f"{100 * cost.accuracy_change:+.1f}"
        differ = sum(layer.differ for layer in cost.layers.values())
        far = sum(layer.van_rossum for layer in cost.layers.values())
        error = "–" if cost.output_error is None else f"{cost.output_error:.1%}"
        rows.append((cost.step, accuracy, change, f"{cost.agreement:.1%}", error, differ, number(far)))
    title = f"What each step of the lowering cost ({found.samples} samples, {found.steps} steps)"
    console.print(table(title, columns, rows, (1, 2, 3, 4, 5, 6)))
    console.print(
        f"change in points; agree: decisions as of the trained network; error: of the output, RMS; spikes that differ and "
        f"van Rossum distance (time constant {TIME_CONSTANT_STEPS:.0f} steps) against the step before. "
        f"{ORDER_NOTE[0].upper()}{ORDER_NOTE[1:]}.",
        highlight=False,
    )
    names = list(found.costs[-1].layers)
    changed = [cost for cost in found.costs if any(layer.differ for layer in cost.layers.values())]
    if changed:
        by_layer = [
            (cost.step, *(cost.layers[name].differ if name in cost.layers else "–" for name in names)) for cost in changed
        ]
        by_layer.append(("in all", *(found.costs[-1].since_start[name].differ for name in names)))
        console.print(table("Spikes that differ, by layer", ("step", *names), by_layer, tuple(range(1, len(names) + 1))))
    if found.rounding:
        shown = ("scale", "weight_error", "weights_zeroed", "threshold_integer", "threshold_error")
        cells = [(name, *(_cell(getattr(n, key)) for key in shown)) for name, n in found.rounding.items()]
        titles = ("layer", "scale", "weight error", "weights to 0", "threshold", "threshold error")
        console.print(table("Numbers on the chip", titles, cells, (1, 2, 3, 4, 5)))
    for cost in changed:
        first = min(cost.first.values(), key=lambda one: (one.step, names.index(one.layer)))
        console.print(f"{cost.step} ({cost.what}): {first.why}", highlight=False, markup=False)


def _cell(value: Any) -> str:
    return "–" if value is None else number(value) if isinstance(value, float) else str(value)


def show_compare(console: Console, layers: Sequence[LayerDifference]) -> None:
    """Show the differences by layer, and the shift under which they would vanish."""
    rows = [
        (
            layer.layer,
            layer.what,
            layer.mismatches,
            layer.compared,
            "–" if layer.largest is None else number(layer.largest),
            "none" if layer.first is None else _place(layer.first),
        )
        for layer in layers
    ]
    console.print(table("Differences", ("layer", "compared", "different", "of", "largest", "first"), rows, (2, 3, 4)))
    for layer in layers:
        if layer.shift is not None:
            when = f"{abs(layer.shift)} step{'s' if abs(layer.shift) > 1 else ''} {'later' if layer.shift > 0 else 'earlier'}"
            console.print(f"layer '{layer.layer}': the second spikes {when}; under that shift nothing differs", highlight=False)


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
        *_on_lava(accuracy["lava"], lava),
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


def _on_lava(accuracy: float | None, lava: Mapping[str, Any]) -> list[Sequence[Any]]:
    if accuracy is None:
        return [("accuracy, on Lava", "not run", "Lava has no models of this chip's integers")]
    return [
        ("accuracy, on Lava", f"{accuracy:.2%}", f"{lava['samples']} test samples as Lava processes"),
        ("spikes, Lava against ours", f"{lava['spike_mismatches']} differ", f"of {lava['spikes_compared']:,} compared"),
    ]


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
