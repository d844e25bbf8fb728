"""The command `simulate`."""

from __future__ import annotations

from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command, refuse_unused
from spear_deploy.cli.inputs import load_net, state_bits
from spear_deploy.cli.options import (
    SOON_S,
    as_json,
    bits,
    data_options,
    lava_timeout,
    network_options,
    overrides,
    quiet,
    seed,
    times,
)
from spear_deploy.cli.output import console, display, emit, leave, print_line

BACKENDS, ON_LAVA = ("fast", "lava", "lava-fast", "norse"), ("lava", "lava-fast")


def parse_record(text: str) -> list[str]:
    """Return the comma-separated quantities to record.

    Raises:
        BadParameter: there is none, or one is neither spikes, v nor u.
    """
    wanted = [what.strip() for what in text.split(",") if what.strip()]
    if not wanted or not set(wanted) <= {"spikes", "v", "u"}:
        raise click.BadParameter(f"'{text}': expected some of spikes, v, u, separated by commas", param_hint="--record")
    return wanted


@click.command(cls=Command, short_help="Run on our simulator, Lava or Norse; record, explain.")
@click.argument("net", shell_complete=completion.complete_nets)
@click.option(
    "--input", "input_file", metavar="FILE", help="An .npz with spikes or current, (T, B, *input); y (B,) or (B, T) are labels."
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="fast",
    show_default=True,
    help="Our simulator, Lava's processes, one Lava process for the whole network, or Norse's cells.",
)
@click.option(
    "--chip",
    metavar="NAME|FILE",
    shell_complete=completion.complete_chips,
    help="Run the integers of this chip instead of the network as stored.",
)
@click.option("--explain", is_flag=True, help="With --chip: measure what each step from the network to the integers costs.")
@click.option(
    "--data",
    metavar="DATA",
    shell_complete=completion.complete_data,
    help="With --explain: run on the test split of this data, with its labels.",
)
@click.option("--samples", type=click.IntRange(min=1), help="With --data: maximum number of samples.  [default: all]")
@bits
@click.option("--record", default="spikes", show_default=True, metavar="WHAT", help="Comma-separated: spikes, v, u.")
@lava_timeout
@click.option("--out", metavar="FILE", help="File of the recording (.npz); required without --explain.")
@overrides
@network_options
@data_options
@seed
@quiet
@times
@as_json
def simulate(
    net: str,
    input_file: str | None,
    backend: str,
    chip: str | None,
    explain: bool,
    data: str | None,
    samples: int | None,
    steps: int | None,
    encoding: str | None,
    seed: int,
    bits: str | None,
    record: str,
    timeout_s: float | None,
    out: str | None,
    overrides: dict[str, str],
    quiet: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Run a network and record its spikes, with findings on saturation, silence and rounding.

    All backends are recorded in the network's own time steps: steps that Lava's connections add are taken out.

    A run on Lava is repeated on the simulator; where spikes differ, that is an error (exit 1).

    Example: spear-deploy simulate demo/quantised.snn --input in.npz --backend lava --record spikes,v --out run.npz

    Example: spear-deploy simulate digits --chip loihi2 --explain --data digits
    """
    from spear_deploy.data.time_steps import deployed_steps
    from spear_deploy.network.labels import label_layers
    from spear_deploy.pipeline.simulation import SimulationSettings, simulate_file

    wanted = parse_record(record)
    _check_options(input_file, backend, chip, explain, data, out)
    graph = state_bits(load_net(net, input_file or data, **source), bits, chip, overrides)
    settings = SimulationSettings(
        input_file=input_file, backend=backend, chip=chip, overrides=overrides, explain=explain, data=data, samples=samples,  # type: ignore[arg-type]
        steps=steps, encoding=encoding, seed=seed, record=tuple(wanted), timeout_s=timeout_s, out=out,  # type: ignore[arg-type]
    )  # fmt: skip
    with display(as_json, quiet, 0.0 if explain else SOON_S) as progress:
        facts, explanation = simulate_file(net, graph, settings, progress)
    chosen = deployed_steps(graph)
    if chosen is not None and facts.get("steps") not in (None, chosen[0]):
        print_line(f"note: the network runs on {chosen[0]} time steps, the input has {facts['steps']}")
    labels = label_layers(graph)
    emit(facts, graph=graph, as_json=as_json, out=None, show=lambda c: console().show_simulation(c, facts, explanation, labels))
    leave("", facts["failures"])


def _check_options(
    input_file: str | None, backend: str, chip: str | None, explain: bool, data: str | None, out: str | None
) -> None:
    if explain and chip is None:
        raise click.UsageError("--explain needs --chip, the chip whose integers are to be explained")
    if data is not None and not explain:
        raise click.UsageError("--data goes with --explain; a recording takes --input")
    if data is None:
        refuse_unused("goes with --data", "samples", "steps", "encoding", "seed")
    if chip is None:
        refuse_unused("needs --chip, whose profile it changes", "overrides")
    if backend not in ON_LAVA:
        refuse_unused("goes with a run on Lava (--backend lava or lava-fast)", "timeout_s")
    if input_file is None and data is None:
        raise click.UsageError("Missing option '--input'; with --explain, --data is enough")
    if out is None and not explain:
        raise click.UsageError("Missing option '--out'")
    if out is not None and input_file is None:
        raise click.UsageError("--out needs --input, whose recording it writes")
