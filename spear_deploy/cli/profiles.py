"""The command `profiles`."""

from __future__ import annotations

import click

from spear_deploy.cli.options import Command, as_json, console, emit


@click.command(cls=Command)
@click.argument("chip", required=False)
@as_json
def profiles(chip: str | None, as_json: bool) -> None:
    """List the chips, or show every number of one with its source.

    Example: spear-deploy profiles loihi2
    """
    from spear_deploy import profile

    if chip is None:
        summaries = profile.summaries()
        emit({"profiles": summaries}, as_json=as_json, out=None, show=lambda c: console().show_profiles(c, summaries))
        return
    found = profile.load_profile(chip)
    leaves = profile.describe(found)
    value = {"name": found.name, "numbers": [vars(leaf) for leaf in leaves]}
    emit(value, as_json=as_json, out=None, show=lambda c: console().show_profile(c, found.meta.title, leaves))
