"""The command `rank`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli import completion as complete
from spear_deploy.cli.options import (
    DOES_NOT_FIT,
    Command,
    activity,
    as_given,
    as_json,
    console,
    emit,
    load_net,
    network_options,
    overrides,
    suggest,
)


@click.command(cls=Command, short_help="Which chip could run the network?")
@click.argument("net", shell_complete=complete.nets)
@click.option(
    "--chip",
    "chips",
    multiple=True,
    metavar="NAME|FILE",
    shell_complete=complete.chips,
    help="Only these; may be repeated.  [default: all profiles]",
)
@activity
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@overrides
@as_json
def rank(
    net: str, chips: tuple[str, ...], activity: Any, out: str | None, overrides: dict[str, str], as_json: bool, **source: Any
) -> None:
    """Which chip could run the network? The verdict of every profile, the best first.

    Exits 3 if it fits none, and none is unchecked.

    Example: spear-deploy rank digits --activity 0.1
    """
    from spear_deploy.pipeline import api

    found = api.rank(load_net(net, **source), chips or None, activity=activity, overrides=overrides)
    value = {"chips": [ranked.to_json() for ranked in found]}
    emit(value, as_json=as_json, out=out, show=lambda c: console().show_rank(c, found))
    real = next((ranked for ranked in found if ranked.report.cores_limit is not None), None)
    if real is not None:
        said = f"spear-deploy check {as_given(net, source)} --chip {real.profile}"
        suggest(f"{said} (each limit, and what to change)", as_json=as_json)
    if all(ranked.verdict == "does_not_fit" for ranked in found):
        raise SystemExit(DOES_NOT_FIT)
