"""The command `demo`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command, command_line
from spear_deploy.cli.inputs import override_chip
from spear_deploy.cli.options import as_json, device, fresh, levers_without_steps, method, overrides, quiet, seed, workers
from spear_deploy.cli.output import display, leave_deployment


@click.command(cls=Command, short_help="The whole path on scikit-learn's digits.")
@click.option(
    "--chip",
    default="loihi2",
    show_default=True,
    metavar="NAME|FILE",
    shell_complete=completion.complete_chips,
    help="A profile by name or file.",
)
@click.option("--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference.")
@click.option("--out", default="demo", show_default=True, metavar="DIR", help="Folder for the files.")
@method
@levers_without_steps
@seed
@overrides
@workers
@device
@fresh
@quiet
@as_json
def demo(
    chip: str,
    synops: str,
    out: str,
    method: str | None,
    levers: str | None,
    seed: int,
    overrides: dict[str, str],
    workers: Any,
    device: str | None,
    fresh: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train on scikit-learn's digits, then deploy: the whole path in one command.

    Example: spear-deploy demo --out demo
    """
    from spear_deploy.pipeline.demo import demo as run_demo

    with display(as_json, quiet) as progress:
        result = run_demo(
            chip=override_chip(chip, overrides),
            out=out,
            seed=seed,
            synops=synops,
            method=method,
            levers=levers,
            workers=workers,
            device=device,
            fresh=fresh,
            command=command_line(),
            progress=progress,
        )
    leave_deployment(result, out, as_json=as_json)
