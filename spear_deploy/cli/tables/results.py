"""Tables of results: certificates, deployments, pruning and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from spear_deploy.cli.tables.grid import list_files, make_table
from spear_deploy.interchange.formats import CERTIFICATE
from spear_deploy.network.labels import add_kinds, label_layers
from spear_deploy.pruning.budgets import format_amount, resource_name
from spear_deploy.util.number_format import UNKNOWN, number, of_limit
from spear_deploy.util.printable import write_note

if TYPE_CHECKING:
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.pipeline.deployment import Deployment


ROUNDED_NOTE = (
    "weights and thresholds rounded as on the chip, potentials in floating point; the chip's integers, which keep the budget, "
    "may spike more or less often"
)
"""What the row of a network that learnt with the chip's rounding counts."""


def show_certificate(console: Console, path: str, certificate: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """Print a line for each fact of an exported file and its proof; layers under the labels of `label_layers`."""
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
        known = {**first, "layer": labels.get(first["layer"], first["layer"])} if "layer" in first else first
        console.print(f"first difference: {escape(', '.join(f'{key} {value}' for key, value in known.items()))}", highlight=False)
    if certificate.get("vendor"):
        whose = "PyNN" if certificate["format"] == "pynn" else "chip's own tool"
        for key, value in certificate["vendor"].items():
            if value is not None and not isinstance(value, (list, dict)):
                console.print(f"{key.replace('_', ' ')}, {whose}: {value}", highlight=False, markup=False)
    for kind in ("approximations", "assumptions", "not_compared"):
        for note in certificate[kind]:
            console.print(f"{kind.replace('_', ' ').removesuffix('s')}: {add_kinds(note, labels)}", highlight=False, markup=False)
    if certificate.get("after_import"):
        console.print("after the import, with the network as net, run:", highlight=False)
        for line in certificate["after_import"]:
            console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"certificate: {escape(str(Path(path).parent / CERTIFICATE))}", highlight=False)


def show_deployment(console: Console, result: Deployment, folder: str) -> None:
    """Print the verdict, and accuracy, spikes, SynOps, cores and energy of a deployment in a folder."""
    from spear_deploy.report.tables import describe_floating_point  # reads the checker

    facts = result.to_json()
    accuracy, synops, steps, lava = facts["accuracy"], facts["synops"], facts["steps"], facts["lava"]
    labels = label_layers(result.network) if result.network is not None else {}
    widths = [write_width(labels.get(name, name), *pair) for name, pair in facts["widths"].items()]
    reached = _share(synops["achieved"], synops["budget"], 1)
    console.print(result.headline, style="bold red" if result.failures else "bold", highlight=False)
    floating = describe_floating_point(facts)
    rows: list[Sequence[Any]] = [
        ("accuracy, dense", f"{accuracy['dense']:.2%}", floating or "test split"),
        ("accuracy, pruned", f"{accuracy['pruned']:.2%}", floating or "fine-tuned, floating point, test split"),
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
        ("cores", of_limit(facts["cores_used"], facts["cores_limit"]), _describe_peak(result.report, labels)),
        _describe_operations(facts),
        ("energy", *_describe_energy(facts["energy"])),
        ("time", *_describe_time(facts, result.report)),
        ("widths", ", ".join(widths), "channels before and after"),
        *(
            [("bits of a weight", write_bits(facts["weight_bits"], labels), "default and here")]
            if facts["weight_bits"]["layers"]
            else []
        ),
    ]
    console.print(make_table("", ("what", "value", "note"), rows, (1,)))
    show_aims(console, facts["budgets"])
    show_levers(console, facts["levers"], "validation")
    for note in facts["notes"]:
        console.print(write_note(add_kinds(note, labels)), highlight=False, markup=False)
    console.print(list_files(facts["files"].values(), folder), highlight=False)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in facts["seconds"].items())
    console.print(f"time: {sum(facts['seconds'].values()):.0f} s ({spent})", highlight=False)


def write_bits(bits: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return the bits of the layers that have others than the chip's default.

    >>> write_bits({"default": 8, "layers": {"fc1": 4, "3": 2}}, {"3": "3 Dense 10"})
    'fc1 8→4, 3 Dense 10: 8→2'
    """
    return ", ".join(write_width(labels.get(name, name), bits["default"], width) for name, width in bits["layers"].items())


def write_width(label: str, before: int, after: int) -> str:
    """Return a change of a layer's width, apart from a label that ends in a number.

    >>> write_width("conv1", 16, 8), write_width("10 Dense 512", 512, 300)
    ('conv1 16→8', '10 Dense 512: 512→300')
    """
    return f"{label}{':' * label[-1:].isdigit() * (' ' in label)} {before}→{after}"


def show_aims(console: Console, budgets: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the aim of each budget while pruning, the samples that it was measured on, and its use on the test split if known."""
    for name, row in budgets.items():
        budget, aim, used = (_format_use(name, row[which]) for which in ("budget", "aim", "used"))
        split = row.get("measured_on", "validation")
        line = f"{resource_name(name)} while pruning, on {split}: {used}; aim at most {aim}, budget {budget}"
        if "test" in row:
            limit, tested = (_format_use(name, row["test"][which]) for which in ("budget", "used"))
            line += f"; on the test split {tested} of {limit}{'' if row['test']['met'] else ', above the budget'}"
        console.print(line, highlight=False)


def _format_use(resource: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return format_amount(resource, value) if resource in ("energy_j", "latency_s", "step_load") else f"{value:,.0f}"


def show_levers(console: Console, stages: Sequence[Mapping[str, Any]], split: str) -> None:
    """Print SynOps and accuracy on a split after each lever of pruning; nothing where none was used."""
    rows = [(stage["lever"], stage["synops"], f"{stage['accuracy']:.2%}", stage["batches"] or "") for stage in stages]
    if rows:
        title, columns = f"After each step of pruning, in floating point, on {split}", ("after", "SynOps", "accuracy", "batches")
        console.print(make_table(title, columns, rows, numbers=(1, 2, 3)), highlight=False)
        if any(stage["lever"] == "bits" for stage in stages):
            console.print(f"bits: {ROUNDED_NOTE}", highlight=False)


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


def _describe_peak(report: BudgetReport, labels: Mapping[str, str]) -> str:
    from spear_deploy.budget.core_rows import CHIP

    memory = [row for row in report.rows if row.resource == "synapse_memory" and row.used is not None and row.limit]
    worst = max(memory, key=lambda row: row.used / row.limit, default=None)  # type: ignore[operator]
    if worst is None:
        return ""
    share = 100 * worst.used / worst.limit  # type: ignore[operator]
    if worst.where == CHIP:  # a memory that all cores of a chip share
        return f"synapse memory {share:.0f} % on the fullest chip"
    place = " + ".join(labels.get(name, name) for name in worst.layers)
    return f"synapse memory {share:.0f} % on the fullest core ({place})"


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


def show_times(times: Any, labels: Mapping[str, str]) -> None:
    """Print on stderr where the time went: a row a stage, and one for each layer of it, under the labels of `label_layers`."""
    facts = times.to_json()
    rows: list[tuple[str, str, str, str]] = []
    for stage in facts["stages"]:
        rows.append((stage["stage"], f"{stage['seconds']:.3f}", f"{stage['share']:.0%}", f"{stage['calls']:,}"))
        for name, seconds in stage["layers"].items():
            rows.append((f"  {labels.get(name, name)}", f"{seconds:.3f}", f"{seconds / facts['seconds']:.0%}", ""))
    names = ("stage and layer", "seconds", "share", "calls")
    Console(stderr=True).print(make_table(f"{facts['seconds']:.2f} s in all", names, rows, numbers=(1, 2, 3)), highlight=False)
