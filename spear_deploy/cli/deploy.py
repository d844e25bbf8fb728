"""The command `deploy`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli.options import Command, as_json, chip, display, emit, leave, load_net, network_options, quiet, seed


@click.command(cls=Command)
@click.argument("net")
@chip
@click.option("--data", required=True, metavar="DATA", help="What to train, choose and test on.")
@click.option(
    "--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference, or a share of the network's."
)
@click.option("--method", default="spear", show_default=True, help="The searcher.")
@click.option("--lava-samples", type=click.IntRange(min=1), help="Test samples to run on Lava; all unless given.")
@click.option("--out", required=True, metavar="DIR", help="Folder for the files.")
@seed
@network_options
@quiet
@as_json
def deploy(
    net: str, chip: str, data: str, synops: str, method: str, lava_samples: int | None, out: str,
    seed: int, quiet: bool, as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Prune, quantise, prove on Lava, check and export: everything, in one command.

    Example: spear-deploy deploy mymodels:conv_net --chip loihi2 --data digits --synops 50% --out build
    """
    from spear_deploy import console, pipeline

    graph = load_net(net, data, **source)
    with display(as_json, quiet) as progress:
        result = pipeline.deploy(
            graph, chip, data, out=out, synops=synops, method=method, seed=seed, lava_samples=lava_samples, progress=progress
        )
    emit(result.to_json(), as_json=as_json, out=None, show=lambda c: console.show_deployment(c, result))
    leave(result.report.verdict)
