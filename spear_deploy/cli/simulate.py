"""The command `simulate`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.options import (
    SOON_S,
    Command,
    as_json,
    console,
    display,
    emit,
    leave,
    load_net,
    network_options,
    override_chip,
    overrides,
    quiet,
)

BACKENDS = ("fast", "lava", "lava-fast", "norse")


def parse_record(text: str) -> list[str]:
    """Return the comma-separated quantities to record.

    Raises:
        BadParameter: one is neither spikes, v nor u.
    """
    wanted = [what.strip() for what in text.split(",") if what.strip()]
    if not set(wanted) <= {"spikes", "v", "u"}:
        raise click.BadParameter(f"'{text}': expected some of spikes, v, u, separated by commas", param_hint="--record")
    return wanted


@click.command(cls=Command, short_help="Run on our simulator, Lava or Norse; record, explain.")
@click.argument("net", shell_complete=completion.complete_nets)
@click.option("--input", "input_file", metavar="FILE", help="An .npz with spikes or current, (T, B, *input); y (B,) are labels.")
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
@click.option("--record", default="spikes", show_default=True, metavar="WHAT", help="Comma-separated: spikes, v, u.")
@click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), help="Time limit of a Lava run in seconds.")
@click.option("--out", metavar="FILE", help="File of the recording (.npz); required without --explain.")
@overrides
@network_options
@quiet
@as_json
def simulate(
    net: str,
    input_file: str | None,
    backend: str,
    chip: str | None,
    explain: bool,
    data: str | None,
    samples: int | None,
    record: str,
    timeout_s: float | None,
    out: str | None,
    overrides: dict[str, str],
    quiet: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Run a network and record it in the network's own time, with findings on saturation, silence and rounding.

    A run on Lava is repeated on the simulator; where spikes differ, that is an error (exit 1).

    Example: spear-deploy simulate demo/quantised.snn --input in.npz --backend lava --record spikes,v --out run.npz

    Example: spear-deploy simulate digits --chip loihi2 --explain --data digits
    """
    from spear_deploy.pipeline import api
    from spear_deploy.pipeline.backends import LAVA_BACKENDS, prove_on_simulator
    from spear_deploy.report.tables import list_lava_failures
    from spear_deploy.simulator.recordings import read_input, read_labels, write_recording

    wanted = parse_record(record)
    _check_options(input_file, chip, explain, data, samples, out)
    graph, target = load_net(net, input_file or data, **source), override_chip(chip, overrides)
    facts: dict[str, Any] = {}
    findings: list[Any] = []
    failures: list[str] = []
    explanation = None
    if input_file is not None:
        x, kind = read_input(input_file, graph)
        side = api.BackendChoice(net=net, graph=graph, backend=backend, chip=target)  # type: ignore[arg-type]
        if out is not None or not explain:
            lowered, lowered_x = side.lower(x, kind)
            with display(as_json, quiet, SOON_S) as progress:
                on_lava = backend in LAVA_BACKENDS
                kept = (*wanted, *(("spikes",) if on_lava and "spikes" not in wanted else ()))
                run = side.run(lowered, lowered_x, kind, kept, timeout_s, progress)
            facts, findings = api.summarize_run(lowered, run)
            if on_lava:
                facts["lava"] = prove_on_simulator(lowered, lowered_x, kind, run)
                failures = list_lava_failures(facts["lava"])
                run = run if "spikes" in wanted else replace(run, spikes={})
            if out is not None:
                write_recording(out, run, lowered_x)
        facts = {"out": out, "backend": backend, "chip": chip, **facts}
    if explain:
        with display(as_json, quiet) as progress:
            if data is not None:
                explanation = api.explain(graph, target, api.data(data, graph), samples=samples, progress=progress)
            else:
                labels = read_labels(str(input_file), x.shape[1])
                explanation = api.explain(graph, target, x, kind=kind, labels=labels, progress=progress)
        facts |= {"chip": chip, "explain": explanation.to_json()}
        findings = [*explanation.findings, *(finding for finding in findings if finding not in explanation.findings)]
    if overrides:
        facts["overrides"] = overrides
    facts["findings"] = [finding.to_json() for finding in findings]
    facts["failures"] = failures
    emit(facts, as_json=as_json, out=None, show=lambda c: console().show_simulation(c, facts, explanation))
    leave("", failures)


def _check_options(
    input_file: str | None, chip: str | None, explain: bool, data: str | None, samples: int | None, out: str | None
) -> None:
    if explain and chip is None:
        raise click.UsageError("--explain needs --chip, the chip whose integers are to be explained")
    if data is not None and not explain:
        raise click.UsageError("--data goes with --explain; a recording takes --input")
    if samples is not None and data is None:
        raise click.UsageError("--samples goes with --data")
    if input_file is None and data is None:
        raise click.UsageError("Missing option '--input'; with --explain, --data is enough")
    if out is None and not explain:
        raise click.UsageError("Missing option '--out'")
    if out is not None and input_file is None:
        raise click.UsageError("--out needs --input, whose recording it writes")
