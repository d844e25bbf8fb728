"""The command `check`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli.options import (
    Command,
    activity_or_file,
    as_json,
    chip,
    console,
    emit,
    leave,
    load_net,
    network_options,
    overrides,
)


@click.command(cls=Command)
@click.argument("net")
@chip
@click.option("--chips", type=click.IntRange(min=1), default=1, show_default=True, help="How many chips there are.")
@click.option("--synops", type=click.FloatRange(min=0, min_open=True), help="Limit on SynOps per inference.")
@click.option(
    "--activity",
    callback=activity_or_file,
    metavar="FILE|RATE",
    help="A recording or input (.npz), or spikes per neuron, step.",
)
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@overrides
@as_json
def check(
    net: str, chip: str, chips: int, synops: float | None, activity: Any, out: str | None,
    overrides: dict[str, float], as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Does the network fit the chip? Every resource, used and limit, and what to do about each overrun.

    Example: spear-deploy check demo/quantised.snn --chip loihi2
    """
    from spear_deploy import verbs

    report = verbs.check(load_net(net, **source), chip, chips=chips, synops=synops, activity=activity, overrides=overrides)
    emit(report.to_json(), as_json=as_json, out=out, show=lambda c: console().show_check(c, report))
    leave(report.verdict)
