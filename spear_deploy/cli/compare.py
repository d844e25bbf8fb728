"""The command `compare`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli.options import Command, as_json, console, emit, network_options


@click.command(cls=Command)
@click.argument("a")
@click.argument("b")
@click.option("--input", "input_file", required=True, metavar="FILE", help="An .npz with spikes or current, (T, B, *input).")
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@as_json
def compare(a: str, b: str, input_file: str, out: str | None, as_json: bool, **source: Any) -> None:
    """Run two networks on the same input; name the first spike that differs in each layer.

    Example: spear-deploy compare demo/pruned.snn demo/nir/network.nir --input in.npz
    """
    from spear_deploy import verbs
    from spear_deploy.recordings import read_input

    one, other = verbs.load_both(a, b, like=input_file, **source)
    x, kind = read_input(input_file, one)
    layers = verbs.compare(one, other, x, kind=kind)
    value = {"layers": [layer.to_json() for layer in layers], "mismatches": sum(layer.mismatches for layer in layers)}
    emit(value, as_json=as_json, out=out, show=lambda c: console().show_compare(c, layers))
