"""Tables of results for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spear_deploy.interchange.formats import CERTIFICATE
from spear_deploy.network.labels import label_layers
from spear_deploy.pruning.budgets import format_amount, resource_name
from spear_deploy.util.number_format import UNKNOWN, number, percent

if TYPE_CHECKING:
    from spear_deploy.budget.chip_ranking import Ranked
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.interchange.netx.lint import LintFinding
    from spear_deploy.pipeline.api import Count
    from spear_deploy.pipeline.deployment import Deployment
    from spear_deploy.quantize.explain.attribution import Explanation
    from spear_deploy.simulator.spike_comparison import LayerDifference

VERDICT_STYLE = {"fits": "green", "unchecked": "cyan", "does_not_fit": "bold red"}
MIN_WIDTH = 20
"""Characters that the last column of a table keeps at least."""


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> Group:
    """Return a title and a table; columns in `numbers` are right-aligned, the last column wraps.

    In a terminal too narrow for the columns all of them wrap, and none is dropped.
    """
    grid = Table(show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        width = min(len(column), MIN_WIDTH) if last else None
        grid.add_column(column, justify="right" if index in numbers else "left", overflow="fold", min_width=width)
    for row in rows:
        grid.add_row(*(number(cell) if isinstance(cell, float) else str(cell) for cell in row))
    return Group(*([Text(title, style="bold")] if title else []), grid)


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
        boards = ", ".join(f"{board} {chips}" for board, chips in p["boards"].items())
        grid.add_row("\n".join([p["name"], *p.get("variants", ())]), p["title"], _format_value(p["cores"]), boards)
    console.print(grid)


def show_profile(console: Console, meta: Any, leaves: Sequence[Any]) -> None:
    """Print every number of a profile with its source, then the keys without a published number."""
    console.print(f"{meta.title}, {meta.domain}", style="bold", highlight=False)
    if meta.operating_point:
        console.print(f"operating point: {meta.operating_point}", highlight=False)
    grid = _make_wrapping_table(("key", "value", "evidence and source"), whole=(0,), numbers=())
    for leaf in leaves:
        if leaf.value is not None:
            unit = "" if leaf.unit in ("flag", leaf.key.rsplit(".", 1)[-1]) or isinstance(leaf.value, str) else f" {leaf.unit}"
            grid.add_row(leaf.key, f"{_format_value(leaf.value)}{unit}", f"{leaf.evidence}: {leaf.source}")
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


def _format_value(value: Any) -> str:
    """Write a value as in a profile file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def show_check(console: Console, report: BudgetReport) -> None:
    """Print the verdict, a line for each layer, and what to change."""
    console.print(report)


def show_rank(console: Console, ranking: Iterable[Ranked]) -> None:
    """Print the chips, the best first, each with what is missing and what would mend it, or else its scarcest resource."""
    rows = []
    for ranked in ranking:
        report = ranked.report
        verdict = f"[{VERDICT_STYLE[report.verdict]}]{report.verdict.replace('_', ' ')}[/]"
        limit = "?" if report.cores_limit is None else report.cores_limit
        shown = 1 if ranked.reach else 2
        more = f"; {len(ranked.missing) - shown} more" if len(ranked.missing) > shown else ""
        remark = escape("; ".join(ranked.missing[:shown]) + more)
        if ranked.reach:
            remark += "\n→ " + escape(ranked.reach.removeprefix("within reach: "))
        if not remark and ranked.share is not None:
            remark = f"{percent(ranked.share)} {escape(ranked.scarcest)}"
        bounds = report.energy.interval
        energy = UNKNOWN if bounds is None else f"{bounds.write('J')}\n{bounds.evidence}"
        rows.append((ranked.profile, verdict, f"{report.cores_used} of {limit}", energy, remark))
    columns = ("chip", "verdict", "cores", "energy", "missing → remedy, or scarcest")
    console.print(make_table("", columns, rows, numbers=(3,)), highlight=False)


def show_count(console: Console, count: Count, labels: Mapping[str, str]) -> None:
    """Print SynOps and rates by layer, under the labels of `label_layers`."""
    names = list(dict.fromkeys([*count.synops_per_layer, *count.rates]))
    synops, rates = count.synops_per_layer, count.rates
    rows = [(labels.get(name, name), synops.get(name, 0.0), _format_rate(rates.get(name))) for name in names]
    rows.append(("total", count.synops_total, ""))
    console.print(
        make_table(
            f"SynOps per inference ({count.samples} samples, {count.steps} steps)", ("layer", "SynOps", "rate"), rows, (1, 2)
        )
    )
    console.print(f"neuron updates: {number(count.neuron_ops)}")
    if count.chip_synops is not None:
        console.print(f"SynOps that the chip works on, zero weights included if it skips none: {number(count.chip_synops)}")
    if count.macs_first_layer:
        console.print(f"first layer, analogue input: {number(count.macs_first_layer)} MACs")
    if count.rules:
        console.print(make_table("The same run by other tools' rules", ("rule", "SynOps"), list(count.rules.items()), (1,)))


def _format_rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def show_simulation(
    console: Console, facts: Mapping[str, Any], explanation: Explanation | None, labels: Mapping[str, str]
) -> None:
    """Print the run, the cost of each step of the lowering, and the findings."""
    if "spikes" in facts:
        rows = [
            (
                labels.get(name, name),
                count,
                _format_rate(facts["rates"].get(name)),
                ", ".join(f"{k} {v}" for k, v in facts["overflows"].get(name, {}).items()),
            )
            for name, count in facts["spikes"].items()
        ]
        title = f"Run of {facts['samples']} samples, {facts['steps']} steps ({facts['backend']})"
        console.print(make_table(title, ("layer", "spikes", "rate", "overflows"), rows, (1, 2)))
    if explanation is not None:
        _show_explanation(console, explanation, labels)
    for finding in facts["findings"]:
        console.print(f"finding: {finding['text']}", highlight=False, markup=False)
    if facts.get("out"):
        console.print(f"written: {facts['out']}", highlight=False)


def _show_explanation(console: Console, explanation: Explanation, labels: Mapping[str, str]) -> None:
    from spear_deploy.quantize.explain.attribution import ORDER_NOTE
    from spear_deploy.quantize.explain.first_difference import TIME_CONSTANT_STEPS

    columns = ("step", "accuracy", "change", "agree", "error", "spikes", "distance")
    rows: list[Sequence[Any]] = []
    for cost in explanation.costs:
        accuracy = "–" if cost.accuracy is None else f"{cost.accuracy:.1%}"
        change = "–" if cost.accuracy_change is None else f"{100 * cost.accuracy_change:+.1f}"
        differ = sum(layer.differ for layer in cost.layers.values())
        far = sum(layer.van_rossum for layer in cost.layers.values())
        error = "–" if cost.output_error is None else f"{cost.output_error:.1%}"
        rows.append((cost.step, accuracy, change, f"{cost.agreement:.1%}", error, differ, number(far)))
    title = f"What each step of the lowering cost ({explanation.samples} samples, {explanation.steps} steps)"
    console.print(make_table(title, columns, rows, (1, 2, 3, 4, 5, 6)))
    console.print(
        f"change in points; agree: same decision as the trained network; error: RMS of the output; spikes that differ and "
        f"van Rossum distance (time constant {TIME_CONSTANT_STEPS:.0f} steps) against the step before. "
        f"{ORDER_NOTE[0].upper()}{ORDER_NOTE[1:]}.",
        highlight=False,
    )
    names = list(explanation.costs[-1].layers)
    changed = [cost for cost in explanation.costs if any(layer.differ for layer in cost.layers.values())]
    if changed:
        by_layer = [
            (cost.step, *(cost.layers[name].differ if name in cost.layers else "–" for name in names)) for cost in changed
        ]
        by_layer.append(("in all", *(explanation.costs[-1].since_start[name].differ for name in names)))
        heads = ("step", *(labels.get(name, name) for name in names))
        console.print(make_table("Spikes that differ, by layer", heads, by_layer, tuple(range(1, len(heads)))))
    if explanation.rounding:
        keys = ("scale", "weight_error", "weights_zeroed", "threshold_integer", "threshold_error")
        cells = [
            (labels.get(name, name), *(_format_cell(getattr(n, key)) for key in keys)) for name, n in explanation.rounding.items()
        ]
        titles = ("layer", "scale", "weight error", "weights to 0", "threshold", "threshold error")
        console.print(make_table("Numbers on the chip", titles, cells, (1, 2, 3, 4, 5)))
    for cost in changed:
        first = min(cost.first.values(), key=lambda first: (first.step, names.index(first.layer)))
        console.print(f"{cost.step} ({cost.what}): {first.why}", highlight=False, markup=False)


def _format_cell(value: Any) -> str:
    return "–" if value is None else number(value) if isinstance(value, float) else str(value)


def show_compare(console: Console, layers: Sequence[LayerDifference], labels: Mapping[str, str]) -> None:
    """Print the differences by layer, under the labels of `label_layers`, and a shift in time that explains them, if any."""
    rows = [
        (
            labels.get(layer.layer, layer.layer),
            layer.what,
            layer.mismatches,
            layer.compared,
            "–" if layer.largest is None else number(layer.largest),
            "none" if layer.first is None else _format_place(layer.first),
        )
        for layer in layers
    ]
    console.print(make_table("Differences", ("layer", "compared", "different", "of", "largest", "first"), rows, (2, 3, 4)))
    for layer in layers:
        if layer.shift is not None:
            when = f"{abs(layer.shift)} step{'s' if abs(layer.shift) > 1 else ''} {'later' if layer.shift > 0 else 'earlier'}"
            console.print(f"layer '{layer.layer}': the second spikes {when}; under that shift nothing differs", highlight=False)


def show_certificate(console: Console, path: str, certificate: Mapping[str, Any]) -> None:
    """Print a line for each fact of an exported file and its proof."""
    source = certificate["input"]
    what = "random " * (source["random_seed"] is not None) + source["kind"]
    differ, compared = certificate["mismatches"], len(certificate["layers"])
    verdict = f"[bold red]{differ:,} values differ[/]" if differ else "[green]0 values differ[/]"
    bound = f"; {certificate['ties']:,} ties within the bound" if certificate["ties"] else ""
    console.print(f"written: {escape(path)} ({certificate['bytes']:,} bytes)", highlight=False)
    console.print(f"read back by: {escape(certificate['reader'])}", highlight=False)
    console.print(
        f"proof: {verdict}{bound}, {compared} layers, {source['steps']} steps, {source['samples']} samples of {what}",
        highlight=False,
    )
    first = certificate["first_difference"]
    if first is not None:
        console.print(f"first difference: {escape(', '.join(f'{key} {value}' for key, value in first.items()))}", highlight=False)
    if certificate.get("vendor"):
        whose = "PyNN" if certificate["format"] == "pynn" else "chip's own tool"
        for key, value in certificate["vendor"].items():
            if not isinstance(value, (list, dict)):
                console.print(f"{key.replace('_', ' ')}, {whose}: {value}", highlight=False, markup=False)
    for kind in ("approximations", "assumptions", "not_compared"):
        for note in certificate[kind]:
            console.print(f"{kind.replace('_', ' ').removesuffix('s')}: {note}", highlight=False, markup=False)
    if certificate.get("after_import"):
        console.print("after the import, with the network as net, run:", highlight=False)
        for line in certificate["after_import"]:
            console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"certificate: {escape(str(Path(path).parent / CERTIFICATE))}", highlight=False)


def _format_place(first: Mapping[str, Any]) -> str:
    return f"step {first['step']}, sample {first['sample']}, neuron {tuple(first['neuron'])}"


def show_deployment(console: Console, result: Deployment) -> None:
    """Print the verdict, and accuracy, spikes, SynOps, cores and energy of a deployment."""
    facts = result.to_json()
    accuracy, synops, steps, lava = facts["accuracy"], facts["synops"], facts["steps"], facts["lava"]
    labels = label_layers(result.network) if result.network is not None else {}
    widths = [f"{labels.get(name, name)} {a}→{b}" for name, (a, b) in facts["widths"].items()]
    reached = _share(synops["achieved"], synops["budget"], 1)
    console.print(result.headline, style="bold red" if result.failures else "bold", highlight=False)
    rows: list[Sequence[Any]] = [
        ("accuracy, dense", f"{accuracy['dense']:.2%}", "test split"),
        ("accuracy, pruned", f"{accuracy['pruned']:.2%}", "fine-tuned, floating point, test split"),
        ("accuracy, quantised", f"{accuracy['quantised']:.2%}", f"integers of {facts['chip']}, test split"),
        *_list_lava_rows(accuracy["lava"], lava),
        (
            "spikes, Norse against ours",
            f"{facts['norse']['spike_mismatches']} differ",
            f"of {facts['norse']['spikes_compared']:,} compared",
        ),
        ("SynOps, dense", number(synops["dense"]), "per inference, test split"),
        ("SynOps, budget", number(synops["budget"]), f"{_share(synops['budget'], synops['dense'])} of dense, test split"),
        ("SynOps, achieved", number(synops["achieved"]), f"{reached} of the budget, test split"),
        *([("time steps", steps["deployed"], f"trained on {steps['trained']}")] if len(set(steps.values())) > 1 else []),
        ("cores", f"{facts['cores_used']} of {facts['cores_limit']}", _describe_peak(result.report)),
        _describe_operations(facts),
        ("energy", *_describe_energy(facts["energy"])),
        ("time", *_describe_time(facts, result.report)),
        ("widths", ", ".join(widths), "channels before and after"),
    ]
    console.print(make_table("", ("what", "value", "note"), rows, (1,)))
    show_aims(console, facts["budgets"])
    show_levers(console, facts["levers"], "validation")
    for note in facts["notes"]:
        console.print(f"note: {note}", highlight=False)
    console.print("files: " + ", ".join(facts["files"].values()), highlight=False)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in facts["seconds"].items())
    console.print(f"time: {sum(facts['seconds'].values()):.0f} s ({spent})", highlight=False)


def show_aims(console: Console, budgets: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the aim of each budget while pruning, and the samples that it was measured on."""
    for name, row in budgets.items():
        budget, aim, used = (_format_use(name, row[which]) for which in ("budget", "aim", "used"))
        console.print(
            f"{resource_name(name)} while pruning, on {row.get('measured_on', 'validation')}: {used}, aim {aim}, budget {budget}",
            highlight=False,
        )


def _format_use(resource: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if resource == "synops" else format_amount(resource, value)


def show_levers(console: Console, stages: Sequence[Mapping[str, Any]], split: str) -> None:
    """Print SynOps and accuracy on a split after each lever of pruning; nothing where none was used."""
    rows = [(stage["lever"], stage["synops"], f"{stage['accuracy']:.2%}", stage["batches"] or "") for stage in stages]
    if rows:
        title, columns = f"after each step, on {split}", ("after", "SynOps", "accuracy", "batches")
        console.print(make_table(title, columns, rows, numbers=(1, 2, 3)), highlight=False)


def _list_lava_rows(accuracy: float | None, lava: Mapping[str, Any]) -> list[Sequence[Any]]:
    if accuracy is None:
        return [("accuracy, on Lava", "not run", "Lava has no models of this chip's integers")]
    return [
        ("accuracy, on Lava", f"{accuracy:.2%}", f"{lava['samples']} test samples as Lava processes"),
        ("spikes, Lava against ours", _count_differing(lava["spike_mismatches"]), f"of {lava['spikes_compared']:,} compared"),
    ]


def _share(part: float, whole: float, digits: int = 0) -> str:
    """Return a share in per cent, or a dash of nothing: a layer on analogue input takes no SynOps."""
    return f"{part / whole:.{digits}%}" if whole else UNKNOWN


def _count_differing(mismatches: int) -> str:
    return f"[bold red]{mismatches:,} differ[/]" if mismatches else "0 differ"


def _describe_peak(report: BudgetReport) -> str:
    memory = [row for row in report.rows if row.resource == "synapse_memory" and row.used is not None and row.limit]
    worst = max(memory, key=lambda row: row.used / row.limit, default=None)  # type: ignore[operator]
    if worst is None:
        return ""
    return f"synapse memory {100 * worst.used / worst.limit:.0f} % on the fullest core ({worst.where})"  # type: ignore[operator]


def _describe_operations(facts: Mapping[str, Any]) -> Sequence[Any]:
    """Return the row of the operations in one number, as the chip's maker weights them, or of the neuron updates."""
    effective = facts["energy"]["effective_ops"]
    if effective is None:
        return "neuron updates", number(facts["neuron_ops"]), "per inference, every neuron in every step"
    updates = f"{number(effective['neuron_op_synops'])} · {number(effective['neuron_ops'])} neuron updates"
    return "effective operations", number(effective["total"]), f"SynOps + {updates}"


def _describe_energy(energy: Mapping[str, Any]) -> tuple[str, str]:
    from spear_deploy.budget.intervals import describe_energy

    words, evidence = describe_energy(energy)
    if not words:
        return "not known", "not published: " + ", ".join(energy["missing"])
    if energy["total"] is not None:
        return words, f"per inference, {evidence}"
    first, _, rest = words.partition(", ")
    value, _, name = first.rpartition(" ")
    return value, f"{name}{f'; {rest}' if rest else ''}; {evidence}"


def _describe_time(facts: Mapping[str, Any], report: BudgetReport) -> tuple[str, str]:
    from spear_deploy.budget.intervals import describe_time

    words, evidence = describe_time(facts)
    if not words:
        return "not known", "not published: " + ", ".join(report.latency.missing)
    return words, f"per inference, {evidence}"


def show_times(times: Any) -> None:
    """Print on stderr where the time went: a row a stage, and one for each layer of it."""
    facts = times.to_json()
    rows: list[tuple[str, str, str, str]] = []
    for stage in facts["stages"]:
        rows.append((stage["stage"], f"{stage['seconds']:.3f}", f"{stage['share']:.0%}", f"{stage['calls']:,}"))
        for name, seconds in stage["layers"].items():
            rows.append((f"  {name}", f"{seconds:.3f}", f"{seconds / facts['seconds']:.0%}", ""))
    names = ("stage and layer", "seconds", "share", "calls")
    Console(stderr=True).print(make_table(f"{facts['seconds']:.2f} s in all", names, rows, numbers=(1, 2, 3)), highlight=False)
