"""The command `adapt`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command, command_line, refuse_unused
from spear_deploy.cli.inputs import load_net
from spear_deploy.cli.next_command import LEARNING, repeat_options
from spear_deploy.cli.options import (
    as_json,
    chip,
    data_options,
    device,
    network_options,
    overrides,
    quiet,
    readout,
    seed,
    workers,
)
from spear_deploy.cli.output import display, emit, leave, suggest
from spear_deploy.util.printable import write_note


@click.command(cls=Command, short_help="Replace what the chip lacks, and learn it again.")
@click.argument("net", shell_complete=completion.complete_nets)
@chip
@click.option(
    "--data", metavar="DATA", shell_complete=completion.complete_data,
    help="Training, validation and test data; without it only what needs no learning is replaced.",
)  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of fine-tuning at most.  [default: 24]")
@click.option("--keep-widths", is_flag=True, help="Never make layers narrower where the adapted network is too large.")
@readout
@click.option("--out", required=True, metavar="DIR", help="Folder for adapted.snn, integers.snn, adapt.json and adapt.html.")
@overrides
@workers
@device
@seed
@network_options
@data_options
@quiet
@as_json
def adapt(
    net: str, chip: str, data: str | None, epochs: int | None, keep_widths: bool, readout: str, out: str,
    overrides: dict[str, str], workers: Any, device: str | None, seed: int, steps: int | None, encoding: str | None, quiet: bool,
    as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Replace what the chip lacks: neuron models, resets, readouts, pools, convolutions, signs.

    Exact replacements change no spike. Others are learnt again on the data, and accuracy is measured after each. Exit code 3:
    something is left that the chip lacks, or the network does not fit.

    Example: spear-deploy adapt digits --chip speck2f --data digits --out adapted
    """
    from spear_deploy.network.labels import label_layers
    from spear_deploy.pipeline import api
    from spear_deploy.pipeline.adapt import adapt as run_adapt
    from spear_deploy.pipeline.adaptation.results import RESULTS
    from spear_deploy.training.learning_store import list_learning
    from spear_deploy.util.folder_lock import require_kept

    if data is None:
        refuse_unused("goes with --data, to learn from", "epochs", "keep_widths", "workers", "device", "steps", "encoding")
        steps = encoding = None  # of the project file
    require_kept(out, RESULTS, net, data)
    graph = load_net(net, data, **source)
    try:
        with display(as_json, quiet) as progress:
            facts = run_adapt(
                graph, chip, data, out=out, epochs=epochs, narrows=not keep_widths, readout=readout, seed=seed,
                overrides=overrides, workers=workers, device=device, steps=steps, encoding=encoding,
                command=command_line(), progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        sooner = "" if data is None else "; a smaller --epochs ends sooner"
        kept = f"nothing is kept; `{command_line()}` begins anew"
        if list_learning(Path(out)):
            kept = f"learning alone is kept; `{command_line()}` goes on from there"
        raise KeyboardInterrupt(f"files are written when all is learnt, so {kept}{sooner}") from None
    emit(facts, as_json=as_json, out=None, show=lambda c: _show(c, facts, label_layers(graph), out))
    if not facts["missing"]:
        words = api.repeat_chip(chip, overrides=overrides)
        learning = f"--data {shlex.quote(data or 'DATA')}{repeat_options('steps', *LEARNING)}"
        suggest(*_choose_next(facts, chip, words, learning, out.rstrip("/")), as_json=as_json)
    leave("does_not_fit" if facts["missing"] else facts["verdict"])


def _choose_next(facts: Mapping[str, Any], chip: str, words: str, learning: str, folder: str) -> tuple[str, str]:
    """Return the command after an adaptation in which nothing is missing, and its purpose: pruning, or the file for the chip.

    Args:
        facts: results of the adaptation.
        chip: name or file of the profile.
        words: the chip as after `--chip`.
        learning: options of a command that learns on the same data.
        folder: of the files.
    """
    from spear_deploy.pipeline import api

    if facts["verdict"] == "does_not_fit":
        network = shlex.quote(f"{folder}/{facts['files']['adapted']}")
        command = f"spear-deploy prune {network} --chip {words} {learning} --out pruned"
        return command, "make it smaller, until it fits"
    to, ending, kind = api.choose_format(chip)
    network = shlex.quote(f"{folder}/{facts['files'].get(kind, facts['files']['adapted'])}")
    return f"spear-deploy export {network} --to {to} --chip {words} --out chip/net{ending}", "the file to load"


def _show(console: Any, facts: Mapping[str, Any], labels: Mapping[str, str], folder: str) -> None:
    """Print what was replaced, accuracy after each step, what is missing, and the files; layers under their labels."""
    from spear_deploy.adaptation.replacement import explain_no_replacement, join_rows
    from spear_deploy.cli.tables import list_files, make_table
    from spear_deploy.cli.tables.adaptation import show_waterfall
    from spear_deploy.network.labels import add_kinds

    if facts["replaced"]:
        labelled = [{**row, "layer": labels.get(row["layer"], row["layer"])} for row in facts["replaced"]]
        rows = [
            (
                row["layer"],
                row["what"],
                f"{row['by']}; {row['bound']}" if row["bound"] else row["by"],
                row["kind"],
                row["neurons"] or "",
            )
            for row in join_rows(labelled)
        ]
        table = make_table("", ("layer", "had", "has now", "kind", "neurons"), rows, numbers=(4,))
        console.print(table, highlight=False, markup=False)
        console.print()
    elif not facts["missing"]:
        console.print(f"nothing is replaced: {explain_no_replacement(facts)}", highlight=False)
    if facts["waterfall"]:
        show_waterfall(console, facts["waterfall"], labels)
    accuracy = {name: value for name, value in facts["accuracy"].items() if value is not None}
    words = " → ".join(f"{value:.2%} {'as ' * (name == 'integers')}{name}" for name, value in accuracy.items())
    console.print(f"{f'accuracy {words}; ' if words else ''}{facts['headline']}", highlight=False, markup=False)
    for need in facts["missing"]:
        console.print(f"missing: {add_kinds(need, labels)}", highlight=False, markup=False)
    for note in facts["notes"]:
        console.print(write_note(add_kinds(note, labels)), highlight=False, markup=False)
    console.print(list_files(facts["files"].values(), folder), highlight=False)
