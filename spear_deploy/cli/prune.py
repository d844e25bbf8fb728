"""The command `prune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command, command_line
from spear_deploy.cli.inputs import load_net, state_bits
from spear_deploy.cli.options import (
    as_json,
    bits,
    chip,
    data_options_with_range,
    device,
    learning_rate,
    levers,
    method,
    network_options,
    overrides,
    quiet,
    seed,
    times,
    workers,
)
from spear_deploy.cli.output import display, emit, leave
from spear_deploy.util.printable import write_note

EPISODES = "[default: 24 of evolution, 1 of recipe, 8 of rl, else 60]"
"""Defaults of `pruning.search.settings`, repeated here so that `--help` does not import the search."""


@click.command(cls=Command, short_help="Make it smaller, until it fits the chip or meets a budget.")
@click.argument("net", shell_complete=completion.complete_nets)
@chip
@click.option(
    "--data", required=True, metavar="DATA", shell_complete=completion.complete_data, help="Training, validation and test data."
)
@click.option("--synops", metavar="X|X%", help="SynOps per inference, or a share of the network's.")
@click.option("--energy-uj", metavar="X|X%", help="Energy of an inference in µJ.")
@click.option("--latency-ms", metavar="X|X%", help="Time of an inference in ms.")
@click.option("--step-load", metavar="X|X%", help="Work of the busiest core in a step; 1 fills the chip's step.")
@click.option("--cores", metavar="N|X%", help="Cores.")
@click.option("--memory", metavar="N|X%", help="Words of synapse memory, all cores together.")
@click.option("--parameters", metavar="N|X%", help="Parameters: weights, biases, batch norm.")
@click.option(
    "--budgets",
    metavar="X%,X%,...",
    help="Several SynOps budgets in one search, a network for each; a budget given alone may get another network.",
)
@method
@levers
@bits
@click.option("--episodes", type=click.IntRange(min=1), help=f"Number of plans to evaluate; uniform has one.  {EPISODES}")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of the first fine-tuning.  [default: 40]")
@learning_rate
@click.option("--out", required=True, metavar="DIR", help="Folder for pruned.snn, search.json, plan.json and a page.")
@overrides
@workers
@device
@seed
@network_options
@data_options_with_range
@quiet
@times
@as_json
def prune(
    net: str, chip: str, data: str, out: str, budgets: str | None, method: str | None, episodes: int | None, epochs: int | None,
    overrides: dict[str, str], seed: int, quiet: bool, as_json: bool, synops: str | None, energy_uj: str | None,
    latency_ms: str | None, step_load: str | None, cores: str | None, memory: str | None, parameters: str | None,
    levers: str | None, bits: str | None, learning_rate: float | None, workers: Any, device: str | None,
    steps: int | str | None, encoding: str | None, **source: Any,
) -> None:  # fmt: skip
    """Prune a network until, fine-tuned, it meets its budgets; without a budget, until it fits the chip.

    All methods remove channels; `recipe` also removes weights, where the profile of the chip says that zeros save something. `rl`
    chooses bits by layer with the widths, where memory or cores are exceeded and `--levers channels,bits` names them.

    Several budgets hold together. Measurements are kept in checkpoint.json: after an interruption the same command continues
    from them, and fine-tunes on behind the last epoch, kept in learning-*.npz.

    Example: spear-deploy prune digits --chip loihi2 --data digits --synops 35% --out pruned
    """
    from spear_deploy.network.labels import label_layers
    from spear_deploy.pipeline.inputs import merge_options
    from spear_deploy.pipeline.prune import RESULTS, list_front_results, prune_front
    from spear_deploy.pipeline.prune import prune as run_prune
    from spear_deploy.pruning.settings import PruneSettings
    from spear_deploy.util.folder_lock import require_kept

    if budgets is not None and synops is not None:
        raise click.UsageError("--budgets and --synops do not go together; give one of them")
    options = {
        "synops": synops, "energy_uj": energy_uj, "latency_ms": latency_ms, "step_load": step_load, "cores": cores,
        "memory": memory, "parameters": parameters, "method": method, "levers": levers, "episodes": episodes, "epochs": epochs,
        "learning_rate": learning_rate, "seed": seed, "workers": workers, "device": device,
    }  # fmt: skip
    require_kept(out, RESULTS if budgets is None else list_front_results(budgets.split(",")), net, data)
    graph = state_bits(load_net(net, data, **source), bits, chip, overrides)
    coding = {"steps": steps, "encoding": encoding}
    settings = merge_options(PruneSettings(), options, "prune")
    goes_on = f"`{command_line()}` goes on from its checkpoint.json"
    try:
        with display(as_json, quiet) as progress:
            shared = {
                "out": out, "settings": settings, "overrides": overrides, "command": command_line(), "progress": progress,
                **coding,
            }  # fmt: skip
            if budgets is None:
                facts = run_prune(graph, chip, data, **shared)
            else:
                facts = prune_front(graph, chip, data, [part.strip() for part in budgets.split(",")], **shared)
    except KeyboardInterrupt:
        kept = any(Path(out).glob("checkpoint*.json"))
        raise KeyboardInterrupt(f"what was measured is in '{out}', and {goes_on}" if kept else "") from None
    emit(facts, as_json=as_json, out=None, show=lambda c: _show(c, facts, label_layers(graph), out))
    if any(row["interrupted"] for row in facts.get("front", [facts])):
        raise KeyboardInterrupt(f"the best plan so far is in '{out}', and {goes_on}")
    leave("does_not_fit" if any(row["verdict"] == "does_not_fit" for row in facts.get("front", [facts])) else "fits")


def _show(console: Any, facts: Mapping[str, Any], labels: Mapping[str, str], folder: str) -> None:
    """Print the results of one network or of several in a folder, with layers under the labels of `label_layers`."""
    from spear_deploy.cli.tables import list_files, show_aims, show_levers, write_bits, write_width
    from spear_deploy.network.labels import add_kinds
    from spear_deploy.util.number_format import of_limit, plural

    rows = facts.get("front", [facts])
    for row in rows:
        accuracy, synops = row["accuracy"], row["synops"]
        budget, tested = synops["budget"], plural(row["samples"]["test"], "sample")
        quantised = accuracy["quantised"]
        fixed = "no integers of this chip are known" if quantised is None else f"{quantised:.2%} as integers"
        is_unlimited = row["cores_limit"] is None
        cores = plural(row["cores_used"], "core") if is_unlimited else f"{of_limit(row['cores_used'], row['cores_limit'])} cores"
        share = f", {synops['achieved'] / budget:.1%} of the budget of {budget:,.0f}" if budget else ""
        console.print(
            f"accuracy {accuracy['dense']:.2%} → {accuracy['pruned']:.2%} ({fixed}), SynOps "
            f"{synops['dense']:,.0f} → {synops['achieved']:,.0f}{share}, on the test split of {tested}; "
            f"{cores}, {row['verdict'].replace('_', ' ')}",
            highlight=False,
        )
        steps = row["steps"]
        if steps["deployed"] != steps["trained"]:
            console.print(f"time steps: {steps['trained']} → {steps['deployed']}", highlight=False)
        widths = ", ".join(write_width(labels.get(name, name), *pair) for name, pair in row["widths"].items())
        console.print(f"widths: {widths}", highlight=False)
        if row["weight_bits"]["layers"]:
            console.print(f"bits of a weight: {write_bits(row['weight_bits'], labels)}", highlight=False)
        show_aims(console, row["budgets"])
        show_levers(console, row["levers"], "the test split")
        for note in row["notes"]:
            console.print(write_note(add_kinds(note, labels)), highlight=False, markup=False)
        console.print(list_files(row["files"].values(), folder), highlight=False)
    if "front" in facts:
        console.print(f"front: {facts['files']['front']}, {facts['files']['report']}", highlight=False)
    for reason in rows[0]["not_prunable"]:
        console.print(f"left whole: {add_kinds(reason, labels)}", highlight=False, markup=False)
