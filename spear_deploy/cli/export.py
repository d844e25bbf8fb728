"""The command `export`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli import completion as complete
from spear_deploy.cli.options import (
    ERROR,
    SOON_S,
    Command,
    as_json,
    display,
    emit,
    known_better,
    load_net,
    network_options,
    overrides,
    quiet,
    seed,
)


@click.command(cls=Command, short_help="NIR, netx or ONNX, with a certificate.")
@click.argument("net", shell_complete=complete.nets)
@click.option("--to", required=True, type=click.Choice(["nir", "netx", "onnx"]), help="The format.")
@click.option("--input", "input_file", metavar="FILE", help="Input of the proof; random spikes unless given.")
@click.option(
    "--chip",
    metavar="NAME|FILE",
    shell_complete=complete.chips,
    help="Whose integers netx holds, whose cores NIR's metadata tells.  [default: netx: loihi2, NIR: none]",
)
@click.option("--scan", is_flag=True, help="ONNX: one Scan over all steps, not one step with states in and out.")
@click.option("--force", is_flag=True, help="Exit 0 even if the read-back differs.")
@click.option("--out", required=True, metavar="FILE", help="The file; certificate.json is written beside it.")
@seed
@overrides
@network_options
@quiet
@as_json
def export(
    net: str,
    to: str,
    input_file: str | None,
    chip: str | None,
    scan: bool,
    force: bool,
    out: str,
    seed: int,
    overrides: dict[str, str],
    quiet: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Write a network for other tools, read it back, run both, and certify what is equal.

    Example: spear-deploy export digits --to nir --out out/digits.nir
    """
    from spear_deploy.pipeline import api
    from spear_deploy.simulator.recordings import read_input

    graph = load_net(net, input_file, **source)
    x, kind = (None, "spikes") if input_file is None else read_input(input_file, graph)
    target = known_better(chip, overrides)
    with display(as_json, quiet, SOON_S) as progress:
        how: dict[str, Any] = {"to": to, "x": x, "kind": kind, "chip": target, "seed": seed, "scan": scan}
        certificate = api.export(graph, out, progress=progress, **how)
    emit(certificate, as_json=as_json, out=None, show=lambda c: c.print_json(data=certificate))
    if certificate["mismatches"] and not force:
        click.echo(f"error: file '{out}': read back it spikes differently, see certificate.json; --force accepts that", err=True)
        raise SystemExit(ERROR)
