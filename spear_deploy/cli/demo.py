"""The command `demo`."""

from __future__ import annotations

import click

from spear_deploy.cli.options import Command, as_json, display, emit, leave, quiet, seed


@click.command(cls=Command)
@click.option("--chip", default="loihi2", show_default=True, metavar="NAME|FILE", help="A profile by name or file.")
@click.option("--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference.")
@click.option("--out", default="demo", show_default=True, metavar="DIR", help="Folder for the files.")
@seed
@quiet
@as_json
def demo(chip: str, synops: str, out: str, seed: int, quiet: bool, as_json: bool) -> None:
    """Train on scikit-learn's digits, then deploy: the whole path in one command.

    Example: spear-deploy demo --out demo
    """
    from spear_deploy import console, pipeline

    with display(as_json, quiet) as progress:
        result = pipeline.demo(chip=chip, out=out, seed=seed, synops=synops, progress=progress)
    emit(result.to_json(), as_json=as_json, out=None, show=lambda c: console.show_deployment(c, result))
    leave(result.report.verdict)
