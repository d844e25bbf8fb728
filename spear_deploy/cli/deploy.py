"""The command `deploy`."""

from __future__ import annotations

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
    fresh,
    learning_rate,
    levers_of_deploy,
    method,
    network_options,
    overrides,
    quiet,
    readout,
    seed,
    times,
    workers,
)
from spear_deploy.cli.output import display, leave_deployment


@click.command(cls=Command, short_help="The whole path on your network.")
@click.argument("net", shell_complete=completion.complete_nets)
@chip
@click.option(
    "--data", required=True, metavar="DATA", shell_complete=completion.complete_data, help="Training, validation and test data."
)
@click.option(
    "--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference, or a share of the network's."
)
@method
@levers_of_deploy
@bits
@learning_rate
@readout
@click.option("--lava-samples", type=click.IntRange(min=1), help="Test samples to run on Lava.  [default: all]")
@click.option("--out", required=True, metavar="DIR", help="Folder for the files.")
@seed
@overrides
@workers
@device
@network_options
@data_options_with_range
@fresh
@quiet
@times
@as_json
def deploy(
    net: str, chip: str, data: str, synops: str, method: str | None, levers: str | None, bits: str | None,
    learning_rate: float | None, readout: str, lava_samples: int | None, out: str, seed: int, steps: int | str | None,
    encoding: str | None, overrides: dict[str, str], workers: Any, device: str | None, fresh: bool, quiet: bool, as_json: bool,
    **source: Any,
) -> None:  # fmt: skip
    """Prune, quantise, prove on Lava, check, export and report, in one command.

    A run that was stopped continues: stages that DIR holds for the same inputs are not repeated. Of pruning that was stopped
    the measurements of the search are kept, and fine-tuning goes on behind its last epoch.

    Example: spear-deploy deploy mymodels:conv_net --chip loihi2 --data digits --synops 50% --out build
    """
    from spear_deploy.pipeline.deploy import RESULTS
    from spear_deploy.pipeline.deploy import deploy as run_deploy
    from spear_deploy.util.folder_lock import require_kept

    require_kept(out, RESULTS, net, data)
    graph = state_bits(load_net(net, data, **source), bits, chip, overrides)
    with display(as_json, quiet) as progress:
        result = run_deploy(
            graph, chip, data, out=out, synops=synops, method=method, levers=levers, learning_rate=learning_rate, seed=seed,
            readout=readout, lava_samples=lava_samples, overrides=overrides, steps=steps, encoding=encoding, workers=workers,
            device=device, fresh=fresh, command=command_line(), progress=progress,
        )  # fmt: skip
    leave_deployment(result, out, as_json=as_json)
