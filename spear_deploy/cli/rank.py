"""The command `rank`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command
from spear_deploy.cli.inputs import load_net
from spear_deploy.cli.next_command import repeat_net, repeat_options
from spear_deploy.cli.options import activity, as_json, network_options, overrides, workers
from spear_deploy.cli.output import DOES_NOT_FIT, console, emit, suggest


@click.command(cls=Command, short_help="Which chip could run the network?")
@click.argument("net", shell_complete=completion.complete_nets)
@click.option(
    "--chip",
    "chips",
    multiple=True,
    metavar="NAME|FILE",
    shell_complete=completion.complete_ranked,
    help="Only this chip; may be repeated; 'all' stands for all profiles that are included.  [default: all]",
)
@activity
@click.option(
    "--sort",
    type=click.Choice(["fit", "energy"]),
    default="fit",
    show_default=True,
    help="Best fit first, or least energy; chips whose intervals of energy overlap are tied.",
)
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@overrides
@workers
@as_json
def rank(
    net: str, chips: tuple[str, ...], activity: Any, sort: Any, out: str | None, overrides: dict[str, str], workers: Any,
    as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Check the network against every chip, and list the verdicts, the best first.

    Exits 3 if the network does not fit any of them; a chip with an unpublished limit counts as one that may fit.

    Example: spear-deploy rank digits --activity 0.1
    """
    from spear_deploy.pipeline import api
    from spear_deploy.pipeline.result import describe_ranking

    graph = load_net(net, **source)
    ranking = api.rank(graph, chips or None, activity=activity, overrides=overrides, sort=sort, workers=workers)
    emit(describe_ranking(ranking), graph=graph, as_json=as_json, out=out, show=lambda c: console().show_rank(c, ranking))
    best = next((ranked for ranked in ranking if ranked.report.cores_limit is not None), None)
    if best is not None:
        words = api.repeat_chip(best.chip, overrides=overrides)
        command = f"spear-deploy check {repeat_net(net)} --chip {words}{repeat_options('activity')}"
        suggest(command, "each limit, and what to change", as_json=as_json)
    if all(ranked.verdict == "does_not_fit" for ranked in ranking):
        raise SystemExit(DOES_NOT_FIT)
