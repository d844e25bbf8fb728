"""The command `count`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command, refuse_unused
from spear_deploy.cli.inputs import load_net
from spear_deploy.cli.options import SOON_S, as_json, data_options, device, network_options, quiet, seed, times
from spear_deploy.cli.output import console, display, emit


@click.command(cls=Command, short_help="SynOps, layer by layer.")
@click.argument("net", shell_complete=completion.complete_nets)
@click.option("--data", metavar="DATA", shell_complete=completion.complete_data, help="Count over all samples of a dataset.")
@click.option("--input", "input_file", metavar="FILE", help="Count over an input file (.npz with spikes or current).")
@click.option(
    "--rules", type=click.Choice(["ours", "all"]), default="ours", show_default=True, help="Also count by other tools' rules."
)
@click.option(
    "--chip",
    metavar="NAME|FILE",
    shell_complete=completion.complete_chips,
    help="Also count the operations that this chip works on: some skip weights of zero, some do not.",
)
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@data_options
@seed
@quiet
@device
@times
@as_json
def count(
    net: str,
    data: str | None,
    input_file: str | None,
    rules: str,
    chip: str | None,
    steps: int | None,
    encoding: str | None,
    seed: int,
    device: str | None,
    out: str | None,
    quiet: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Count SynOps: one spike over one existing synapse, per inference, mean over samples.

    Example: spear-deploy count digits --data digits --rules all
    """
    from spear_deploy.network.labels import label_layers
    from spear_deploy.pipeline import api
    from spear_deploy.simulator.recordings import read_input

    if (data is None) == (input_file is None):
        raise click.UsageError("give either --data or --input")
    if data is None:
        refuse_unused("goes with --data; an input file has its own spikes", "steps", "encoding", "seed")
    device = "cpu" if device is None else device
    graph = load_net(net, input_file or data, **source)
    with display(as_json, quiet, SOON_S) as progress:
        if input_file is not None:
            x, kind = read_input(input_file, graph)
            result = api.count(graph, x, kind=kind, rules=rules == "all", chip=chip, device=device, progress=progress)
        else:
            dataset = api.data(str(data), graph, steps=steps, encoding=encoding, seed=seed)
            result = api.count(graph, dataset, rules=rules == "all", chip=chip, device=device, progress=progress)
    labels = label_layers(graph)
    emit(result.to_json(), graph=graph, as_json=as_json, out=out, show=lambda c: console().show_count(c, result, labels, chip))
