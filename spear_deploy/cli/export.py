"""The command `export`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli.options import ERROR, Command, as_json, emit, load_net, network_options, seed


@click.command(cls=Command)
@click.argument("net")
@click.option("--to", required=True, type=click.Choice(["nir", "netx", "onnx"]), help="The format.")
@click.option("--input", "input_file", metavar="FILE", help="Input of the proof; random spikes unless given.")
@click.option("--chip", default="loihi2", show_default=True, metavar="NAME|FILE", help="Whose integers netx holds.")
@click.option("--force", is_flag=True, help="Exit 0 even if the read-back differs.")
@click.option("--out", required=True, metavar="FILE", help="The file; certificate.json is written beside it.")
@seed
@network_options
@as_json
def export(
    net: str, to: str, input_file: str | None, chip: str, force: bool, out: str, seed: int, as_json: bool, **source: Any
) -> None:
    """Write a network for other tools, read it back, run both, and certify what is equal.

    Example: spear-deploy export demo/quantised.snn --to netx --out network.net
    """
    from spear_deploy import verbs
    from spear_deploy.recordings import read_input

    graph = load_net(net, input_file, **source)
    x, kind = (None, "spikes") if input_file is None else read_input(input_file, graph)
    certificate = verbs.export(graph, out, to=to, x=x, kind=kind, chip=chip, seed=seed)  # type: ignore[arg-type]
    emit(certificate, as_json=as_json, out=None, show=lambda c: c.print_json(data=certificate))
    if certificate["mismatches"] and not force:
        click.echo(f"error: file '{out}': read back it spikes differently, see certificate.json; --force accepts that", err=True)
        raise SystemExit(ERROR)
