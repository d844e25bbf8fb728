"""The command `prune`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli.options import Command, as_json, chip, display, emit, load_net, network_options, quiet, seed


@click.command(cls=Command)
@click.argument("net")
@chip
@click.option("--data", required=True, metavar="DATA", help="What to train, choose and test on.")
@click.option(
    "--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference, or a share of the network's."
)
@click.option("--method", default="spear", show_default=True, help="The searcher.")
@click.option("--out", required=True, metavar="DIR", help="Folder for pruned.snn, search.json and plan.json.")
@seed
@network_options
@quiet
@as_json
def prune(
    net: str, chip: str, data: str, synops: str, method: str, out: str, seed: int, quiet: bool, as_json: bool, **source: Any
) -> None:
    """Search the widths of the layers so that the fine-tuned network meets the budget.

    Example: spear-deploy prune demo/dense.snn --chip loihi2 --data digits --synops 35% --out pruned
    """
    from spear_deploy import pipeline

    graph = load_net(net, data, **source)
    with display(as_json, quiet) as progress:
        facts = pipeline.prune(graph, chip, data, synops=synops, method=method, out=out, seed=seed, progress=progress)
    emit(facts, as_json=as_json, out=None, show=lambda c: c.print_json(data=facts))
