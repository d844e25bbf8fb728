"""The command `deploy`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli import completion as complete
from spear_deploy.cli.options import (  # fmt: skip
    Command,
    as_json,
    chip,
    command_line,
    display,
    emit,
    fresh,
    leave,
    load_net,
    method,
    network_options,
    overrides,
    quiet,
    seed,
    tell_resumed,
)


@click.command(cls=Command, short_help="The whole path on your network.")
@click.argument("net", shell_complete=complete.nets)
@chip
@click.option("--data", required=True, metavar="DATA", shell_complete=complete.data, help="What to train, choose and test on.")
@click.option(
    "--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference, or a share of the network's."
)
@method
@click.option("--lava-samples", type=click.IntRange(min=1), help="Test samples to run on Lava; all unless given.")
@click.option("--out", required=True, metavar="DIR", help="Folder for the files.")
@seed
@overrides
@network_options
@fresh
@quiet
@as_json
def deploy(
    net: str, chip: str, data: str, synops: str, method: str | None, lava_samples: int | None, out: str,
    seed: int, overrides: dict[str, str], fresh: bool, quiet: bool, as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Prune, quantise, prove on Lava, check, export and report: everything, in one command.

    A run that was stopped goes on where it was: stages that DIR holds with the same inputs are not done again.

    Example: spear-deploy deploy mymodels:conv_net --chip loihi2 --data digits --synops 50% --out build
    """
    from spear_deploy.cli import tables as console
    from spear_deploy.pipeline.deploy import deploy as run_deploy

    graph = load_net(net, data, **source)
    with display(as_json, quiet) as progress:
        result = run_deploy(
            graph, chip, data, out=out, synops=synops, method=method, seed=seed, lava_samples=lava_samples, overrides=overrides,
            fresh=fresh, command=command_line(), progress=progress,
        )  # fmt: skip
    tell_resumed(result)
    emit(result.to_json(), as_json=as_json, out=None, show=lambda c: console.show_deployment(c, result))
    leave(result.report.verdict)
