"""The command `compare`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import click

from spear_deploy.cli import completion as complete
from spear_deploy.cli.options import (
    SOON_S,
    Command,
    as_json,
    console,
    display,
    emit,
    known_better,
    network_options,
    overrides,
    quiet,
    together,
)
from spear_deploy.cli.simulate import BACKENDS, recordable

Function: TypeAlias = Callable[..., Any]


def _of_sides(*names: str) -> Callable[[Function], Function]:
    """Return options that one of the two networks has for itself."""
    options: list[Callable[[Function], Function]] = []
    for side in names:
        which = "first" if side == "a" else "second"
        options += [
            click.option(
                f"--backend-{side}",
                type=click.Choice(BACKENDS),
                default="fast",
                show_default=True,
                help=f"What runs the {which}: our simulator, Lava's processes, one Lava process, Norse's cells.",
            ),
            click.option(
                f"--chip-{side}",
                metavar="NAME|FILE",
                shell_complete=complete.chips,
                help=f"Run the {which} as integers of this chip, not as it is stored.",
            ),
        ]
    return together(*options)


@click.command(cls=Command, short_help="The first spike that differs between two networks.")
@click.argument("a", shell_complete=complete.nets)
@click.argument("b", shell_complete=complete.nets)
@click.option("--input", "input_file", required=True, metavar="FILE", help="An .npz with spikes or current, (T, B, *input).")
@_of_sides("a", "b")
@click.option(
    "--record", default="spikes", show_default=True, metavar="WHAT", help="Also compare states: comma-separated spikes, v, u."
)
@click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), help="Longest time a Lava run may take.")
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
    """Run two networks on the same input; name the first spike that differs in each layer.

    A and B are networks of any kind, or the same one twice: as stored or as a chip's integers, on our simulator, on Lava or
    in Norse. Differences are counted step against step; where one side is only later, by how many steps stands beside them.

    Example: spear-deploy compare demo/pruned.snn demo/nir/network.nir --input in.npz

    Example: spear-deploy compare demo/quantised.snn demo/netx/network.net --backend-b lava --record spikes,v --input in.npz
    """
    from spear_deploy.pipeline import api
    from spear_deploy.simulator.recordings import read_input

    states = tuple(what for what in recordable(record) if what != "spikes")
    one, other = api.load_both(a, b, like=input_file, **source)
    x, kind = read_input(input_file, one)
    sides = (
        api.BackendChoice(net=a, graph=one, backend=backend_a, chip=known_better(chip_a, overrides if chip_a else {})),  # type: ignore[arg-type]
        api.BackendChoice(net=b, graph=other, backend=backend_b, chip=known_better(chip_b, overrides if chip_b else {})),  # type: ignore[arg-type]
    )
    with display(as_json, quiet, SOON_S) as progress:
        how: dict[str, Any] = {"kind": kind, "states": states, "timeout_s": timeout_s}
        layers = api.compare(*sides, x, progress=progress, **how)
    spikes = [layer for layer in layers if layer.what not in ("v", "u")]
    value = {
        "layers": [layer.to_json() for layer in spikes],
        "states": [layer.to_json() for layer in layers if layer not in spikes],
        "mismatches": sum(layer.mismatches for layer in spikes),
        "a": {"net": a, "backend": backend_a, "chip": chip_a},
        "b": {"net": b, "backend": backend_b, "chip": chip_b},
    }
    emit(value, as_json=as_json, out=out, show=lambda c: console().show_compare(c, layers))
