"""The command `compare`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import DEFAULTS, Command, refuse_unused
from spear_deploy.cli.inputs import override_chip
from spear_deploy.cli.options import SOON_S, as_json, join_options, lava_timeout, network_options, overrides, quiet
from spear_deploy.cli.output import console, display, emit
from spear_deploy.cli.simulate import BACKENDS, ON_LAVA, parse_record

Function: TypeAlias = Callable[..., Any]


def _add_side_options(*names: str) -> Callable[[Function], Function]:
    """Return the options --backend-SIDE and --chip-SIDE of the two networks."""
    options: list[Callable[[Function], Function]] = []
    for side in names:
        which = "first" if side == "a" else "second"
        options += [
            click.option(
                f"--backend-{side}",
                type=click.Choice(BACKENDS),
                default="fast",
                show_default=True,
                help=f"Backend of the {which}: our simulator, Lava's processes, one Lava process, Norse's cells.",
            ),
            click.option(
                f"--chip-{side}",
                metavar="NAME|FILE",
                shell_complete=completion.complete_chips,
                help=f"Run the {which} as integers of this chip, not as stored.",
            ),
        ]
    return join_options(*options)


@click.command(cls=Command, short_help="The first spike that differs between two networks.")
@click.argument("a", shell_complete=completion.complete_nets)
@click.argument("b", shell_complete=completion.complete_nets)
@click.option("--input", "input_file", required=True, metavar="FILE", help="An .npz with spikes or current, (T, B, *input).")
@_add_side_options("a", "b")
@click.option(
    "--record", default="spikes", show_default=True, metavar="WHAT", help="Also compare states: comma-separated spikes, v, u."
)
@lava_timeout
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@overrides
@network_options
@quiet
@as_json
def compare(
    a: str,
    b: str,
    input_file: str,
    backend_a: str,
    backend_b: str,
    chip_a: str | None,
    chip_b: str | None,
    record: str,
    timeout_s: float | None,
    out: str | None,
    overrides: dict[str, str],
    quiet: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Run two networks on the same input, and report the first spike that differs in each layer.

    A and B are networks of any kind, or the same one twice: as stored or as a chip's integers, on our simulator, on Lava or
    in Norse. Differences are counted at equal steps. If a layer of one side is only shifted in time, the shift is reported.

    Example: spear-deploy compare demo/pruned.snn demo/nir/network.nir --input in.npz

    Example: spear-deploy compare demo/quantised.snn demo/netx/network.net --backend-b lava --record spikes,v --input in.npz
    """
    from spear_deploy.network.labels import label_layers
    from spear_deploy.pipeline import api
    from spear_deploy.pipeline.result import describe_comparison
    from spear_deploy.simulator.recordings import read_input

    if not (chip_a or chip_b):
        refuse_unused("needs --chip-a or --chip-b, whose profile it changes", "overrides")
    if not {backend_a, backend_b} & set(ON_LAVA):
        refuse_unused("goes with a run on Lava (--backend-a or --backend-b lava, lava-fast)", "timeout_s")
    states = tuple(what for what in parse_record(record) if what != "spikes")
    first, second = api.load_both(a, b, like=input_file, defaults=click.get_current_context().meta[DEFAULTS], **source)
    x, kind = read_input(input_file, first)
    sides = (
        api.BackendChoice(net=a, graph=first, backend=backend_a, chip=override_chip(chip_a, overrides if chip_a else {})),  # type: ignore[arg-type]
        api.BackendChoice(net=b, graph=second, backend=backend_b, chip=override_chip(chip_b, overrides if chip_b else {})),  # type: ignore[arg-type]
    )
    with display(as_json, quiet, SOON_S) as progress:
        layers = api.compare(*sides, x, kind=kind, states=states, timeout_s=timeout_s, progress=progress)  # type: ignore[arg-type]
    emit(
        describe_comparison(*sides, layers),
        graph=first,
        as_json=as_json,
        out=out,
        show=lambda c: console().show_compare(c, layers, label_layers(first)),
    )
