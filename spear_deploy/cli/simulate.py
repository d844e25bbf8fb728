"""The command `simulate`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli.options import Command, as_json, emit, load_net, network_options


@click.command(cls=Command)
@click.argument("net")
@click.option("--input", "input_file", required=True, metavar="FILE", help="An .npz with spikes or current, (T, B, *input).")
@click.option(
    "--backend", type=click.Choice(["fast", "lava"]), default="fast", show_default=True, help="Our simulator, or Lava processes."
)
@click.option("--chip", metavar="NAME|FILE", help="Run the integers of this chip instead of the network as stored.")
@click.option("--record", default="spikes", show_default=True, metavar="WHAT", help="Comma-separated: spikes, v, u.")
@click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), help="Longest time a Lava run may take.")
@click.option("--out", required=True, metavar="FILE", help="Where to write the recording (.npz).")
@network_options
@as_json
def simulate(
    net: str,
    input_file: str,
    backend: str,
    chip: str | None,
    record: str,
    timeout_s: float | None,
    out: str,
    as_json: bool,
    **source: Any,
) -> None:
    """Run a network and record it, aligned to the network's own time.

    Example: spear-deploy simulate demo/quantised.snn --input in.npz --backend lava --record spikes,v --out run.npz
    """
    from spear_deploy import verbs
    from spear_deploy.recordings import read_input, write_recording

    wanted = [what.strip() for what in record.split(",") if what.strip()]
    if not set(wanted) <= {"spikes", "v", "u"}:
        raise click.BadParameter(f"'{record}': expected some of spikes, v, u, separated by commas", param_hint="--record")
    graph = load_net(net, input_file, **source)
    x, kind = read_input(input_file, graph)
    run = verbs.simulate(graph, x, kind=kind, backend=backend, chip=chip, record=wanted, timeout_s=timeout_s)  # type: ignore[arg-type]
    write_recording(out, run, x)
    facts = {
        "out": out,
        "backend": backend,
        "steps": int(run.output.shape[0]),
        "samples": int(run.output.shape[1]),
        "spikes": {name: int(sent.sum()) for name, sent in run.counts.sent.items()},
        "overflows": run.overflows,
    }
    emit(facts, as_json=as_json, out=None, show=lambda c: c.print_json(data=facts))
