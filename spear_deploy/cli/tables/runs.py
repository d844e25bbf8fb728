"""Tables of runs: counts, recordings, explanations and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from spear_deploy.cli.tables.grid import make_table
from spear_deploy.network.labels import add_kinds
from spear_deploy.util.number_format import join_names, number, plural
from spear_deploy.util.printable import write_note

if TYPE_CHECKING:
    from spear_deploy.pipeline.api import Count
    from spear_deploy.quantize.explain.attribution import Explanation
    from spear_deploy.simulator.spike_comparison import LayerDifference


RULE_WORDS = {
    "exact": "every synapse with a weight other than 0",
    "all_weights": "every synapse, weights of 0 too",
    "kernel": "a whole kernel and all channels, beyond the border too",
    "mean_rate": "the layer's mean fan-out: mean rate × synapses",
}
"""What a spike costs by each counting rule of `simulator.synops`."""
BACKEND_WORDS = {
    "fast": "on our simulator",
    "lava": "as Lava processes",
    "lava-fast": "as one Lava process",
    "norse": "as Norse cells",
}


def show_count(console: Console, count: Count, labels: Mapping[str, str], chip: str | None = None) -> None:
    """Print SynOps and rates by layer, under the labels of `label_layers`, and those of a chip, if it is named."""
    names = list(dict.fromkeys([*count.synops_per_layer, *count.rates]))
    synops, rates = count.synops_per_layer, count.rates
    rows = [(labels.get(name, name), synops.get(name, 0.0), _format_rate(rates.get(name))) for name in names]
    rows.append(("total", count.synops_total, ""))
    console.print(
        make_table(
            f"SynOps per inference ({_write_size(count.samples, count.steps)}; rate: spikes per neuron and step)",
            ("layer", "SynOps", "rate"),
            rows,
            (1, 2),
        )
    )
    console.print(f"neuron updates per inference: {number(count.neuron_ops)}", highlight=False)
    if count.chip_synops is not None:
        what = "SynOps that the chip works on, zero weights included if it skips none"
        console.print(f"{what}: {number(count.chip_synops)}", highlight=False)
    elif chip is not None:
        console.print(
            f"SynOps that {chip} works on: not known, it is not published whether it skips weights of zero", highlight=False
        )
    if count.macs_first_layer:
        console.print(f"first layer, analogue input: {number(count.macs_first_layer)} MACs per inference", highlight=False)
    if count.rules:
        rows = [(rule.replace("_", " "), synops, RULE_WORDS[rule]) for rule, synops in count.rules.items()]
        console.print(make_table("The same run by other tools' rules", ("rule", "SynOps", "a spike counts"), rows, (1,)))


def _write_size(samples: int, steps: int) -> str:
    return f"{plural(samples, 'sample')}, {plural(steps, 'step')}"


def _write_step(step: str) -> str:
    """Return the name of a step to the integers in words."""
    return step.replace("_", " ")


def _format_rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def show_simulation(
    console: Console, facts: Mapping[str, Any], explanation: Explanation | None, labels: Mapping[str, str]
) -> None:
    """Print the run, the cost of each step to the integers, and the findings."""
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
        size, backend = _write_size(facts["samples"], facts["steps"]), BACKEND_WORDS.get(facts["backend"], facts["backend"])
        title = f"Run of {size} {backend} (rate: spikes per neuron and step)"
        console.print(make_table(title, ("layer", "spikes", "rate", "overflows"), rows, (1, 2)))
    if "adaptation" in facts:
        from spear_deploy.cli.tables.adaptation import show_waterfall

        title = f"What each step to the parts that {facts['adaptation']['chip']} has cost, from adapt.json"
        show_waterfall(console, facts["adaptation"]["waterfall"], labels, title)
    if explanation is not None:
        _show_explanation(console, explanation, labels)
    for note in facts.get("notes", ()):
        console.print(write_note(note), highlight=False, markup=False)
    for text in join_findings(facts["findings"]):
        console.print(f"finding: {add_kinds(text, labels)}", highlight=False, markup=False)
    if facts.get("out"):
        console.print(f"written: {facts['out']}", highlight=False)


def join_findings(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sentences of findings, one for all layers of which the same is said.

    >>> join_findings([{"layer": name, "text": f"layer '{name}': its bias acts early"} for name in ("a", "b")])
    ["layers 'a' and 'b', each: its bias acts early"]
    """
    layers: dict[str, list[str]] = {}
    for finding in findings:
        layers.setdefault(finding["text"].removeprefix(f"layer '{finding['layer']}': "), []).append(finding["layer"])
    quoted = {text: join_names([f"'{name}'" for name in names]) for text, names in layers.items()}
    return [
        f"layers {quoted[text]}, each: {text}" if len(names) > 1 else f"layer {quoted[text]}: {text}"
        for text, names in layers.items()
    ]


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
        rows.append((_write_step(cost.step), accuracy, change, f"{cost.agreement:.1%}", error, differ, number(far)))
    title = f"What each step to the chip's integers costs ({_write_size(explanation.samples, explanation.steps)})"
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
            (_write_step(cost.step), *(cost.layers[name].differ if name in cost.layers else "–" for name in names))
            for cost in changed
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
        sentence = add_kinds(f"{_write_step(cost.step)} ({cost.what}), first difference: {first.why}", labels)
        console.print(sentence, highlight=False, markup=False)


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
            when = f"{plural(abs(layer.shift), 'step')} {'later' if layer.shift > 0 else 'earlier'}"
            sentence = f"layer '{layer.layer}': the second spikes {when}; under that shift nothing differs"
            console.print(add_kinds(sentence, labels), highlight=False, markup=False)


def _format_place(first: Mapping[str, Any]) -> str:
    return f"step {first['step']}, sample {first['sample']}, neuron {tuple(first['neuron'])}"
