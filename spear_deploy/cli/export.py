"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command
from spear_deploy.cli.inputs import load_net, override_chip, state_bits
from spear_deploy.cli.options import SOON_S, as_json, bits, network_options, overrides, quiet, seed
from spear_deploy.cli.output import console, display, emit, leave


@click.command(cls=Command, short_help="NIR, netx, ONNX, Xylo, Speck, PyNN; with a certificate.")
@click.argument("net", shell_complete=completion.complete_nets)
@click.option(
    "--to",
    required=True,
    type=click.Choice(["nir", "netx", "onnx", "xylo", "speck", "pynn", "akida"]),
    help="The format; pynn: a script for SpiNNaker; akida is refused with the reason.",
)
@click.option(
    "--for",
    "framework",
    type=click.Choice(["snntorch", "spikingjelly", "sinabs", "rockpool", "norse"]),
    help="NIR: as this framework's own importer reads it.  [default: NIR's equations]",
)
@click.option("--input", "input_file", metavar="FILE", help="Input of the proof.  [default: random spikes]")
@click.option(
    "--chip",
    metavar="NAME|FILE",
    shell_complete=completion.complete_chips,
    help="The chip of the file (netx, Xylo, Speck, PyNN); NIR: add its core assignment to the metadata.  "
    "[default: netx: loihi2, Xylo: xylo_audio2, Speck: speck2f, PyNN: spinnaker1, NIR: none]",
)
@bits
@click.option("--scan", is_flag=True, help="ONNX: one Scan over all steps, instead of one step with states in and out.")
@click.option(
    "--force", is_flag=True, help="Accept a read-back that differs, and for Xylo, Speck and PyNN a network that does not fit."
)
@click.option("--out", required=True, metavar="FILE", help="The file; certificate.json is written beside it.")
@seed
@overrides
@network_options
@quiet
@as_json
def export(
    net: str,
    to: str,
    framework: str | None,
    input_file: str | None,
    chip: str | None,
    bits: str | None,
    scan: bool,
    force: bool,
    out: str,
    seed: int,
    overrides: dict[str, str],
    quiet: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Write a network for other tools, read it back, run both, and certify that the spikes are equal.

    Example: spear-deploy export digits --to nir --out out/digits.nir
    """
    from spear_deploy.interchange.formats import BESIDE, CERTIFICATE, check_file_name
    from spear_deploy.network.labels import label_layers
    from spear_deploy.pipeline import api
    from spear_deploy.simulator.recordings import read_input
    from spear_deploy.util.folder_lock import require_kept

    target_file = Path(out)
    check_file_name(target_file, to)
    require_kept(target_file.parent, (CERTIFICATE, *(f"{target_file.stem}{end}" for end in BESIDE.get(to, ()))), net, input_file)
    if bits is not None and to != "netx":
        raise click.UsageError(f"--bits goes with --to netx, whose file has bits by layer; {to} has none")
    graph = state_bits(load_net(net, input_file, **source), bits, chip or "loihi2", overrides)
    x, kind = (None, "spikes") if input_file is None else read_input(input_file, graph)
    target = override_chip(chip, overrides)
    with display(as_json, quiet, SOON_S) as progress:
        options = {"seed": seed, "scan": scan, "force": force, "framework": framework}
        certificate = api.export(
            graph, out, to=to, x=x, kind=kind, chip=target, progress=progress, **options  # type: ignore[arg-type]
        )  # fmt: skip

    def show(screen: Any) -> None:
        console().show_certificate(screen, out, certificate, label_layers(graph))

    emit(certificate, graph=graph, as_json=as_json, out=None, show=show)
    mismatches = certificate["mismatches"] or (certificate.get("vendor") or {}).get("mismatches")
    if mismatches and not force:
        leave("", [f"file '{out}': spikes differ after reading it back, see certificate.json; --force accepts that"])
