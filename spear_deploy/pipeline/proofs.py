"""Do Norse, our simulator and Lava spike alike? Every spike of every layer compared, and one sample kept to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy import comparison, simulator, verbs
from spear_deploy.data import Split
from spear_deploy.errors import DataError
from spear_deploy.files import written_aside
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array
from spear_deploy.simulator import ChipRun
from spear_deploy.training import decide

SIDES = ("norse", "fixed", "lava")
"""Floating point by Norse's cells, integers on our simulator, the same integers on Lava."""


def run_on_norse(graph: SNNGraph, split: Split) -> dict[str, Any]:
    """Run samples through Norse's own cells and on our simulator, and compare every spike of every layer.

    Both sum in float32, in different orders: where a membrane meets its threshold to the last bit, they may decide
    differently. Such ties are what `spike_mismatches` counts.
    """
    from spear_deploy.norse_backend import run_on_norse as run

    x = np.moveaxis(split.x, 0, 1)
    ours = simulator.simulate(graph, x, kind=split.kind, record=("spikes",))
    theirs = run(graph, x.astype(np.float32), kind=split.kind, record=("spikes",))
    found = [comparison.compare_arrays(name, spikes, theirs.spikes[name]) for name, spikes in ours.spikes.items()]
    return {
        "samples": len(split),
        "spike_mismatches": sum(layer.mismatches for layer in found),
        "spikes_compared": sum(layer.compared for layer in found),
    }


def run_on_lava(integer: SNNGraph, split: Split, samples: int | None = None) -> dict[str, Any]:
    """Run samples as Lava processes and on our simulator, and compare every spike of every layer.

    Returns:
        {samples, accuracy, spike_mismatches, value_mismatches, spikes_compared, first_difference}.

    Raises:
        DataError: there is no sample.
        BackendError: Lava failed.
    """
    return against_lava(integer, split, samples)[0]


def against_lava(integer: SNNGraph, split: Split, samples: int | None = None) -> tuple[dict[str, Any], ChipRun, ChipRun]:
    """Return what `run_on_lava` returns, our run and Lava's."""
    part = split if samples is None else split.head(samples)
    if not len(part):
        raise DataError("there is no test sample to run on Lava; give at least one")
    x = np.moveaxis(part.x, 0, 1)
    ours = simulator.simulate(integer, x, kind=part.kind, record=("spikes",))
    theirs = verbs.simulate(integer, x, kind=part.kind, backend="lava", record=("spikes",))
    found = comparison.compare_runs(ours, theirs, [(name, name) for name in ours.spikes])
    first = next((layer.to_json() for layer in found if layer.mismatches), None)
    facts = {
        "samples": len(part),
        "accuracy": float(np.mean(decide(theirs.output) == part.y)),
        "spike_mismatches": sum(layer.mismatches for layer in found if layer.what == "spikes"),
        "value_mismatches": sum(layer.mismatches for layer in found if layer.what == "value"),
        "spikes_compared": sum(layer.compared for layer in found if layer.what == "spikes"),
        "first_difference": first,
    }
    return facts, ours, theirs


def without_lava(integer: SNNGraph, split: Split) -> tuple[dict[str, Any], ChipRun]:
    """Return what `against_lava` returns, but for a Lava run that there is not."""
    nothing = {"accuracy": None, "spike_mismatches": None, "value_mismatches": None, "first_difference": None}
    ours = simulator.simulate(integer, np.moveaxis(split.x, 0, 1), kind=split.kind, record=("spikes",))
    return {"samples": 0, "spikes_compared": 0, **nothing}, ours


def write_raster(path: Path, sample: int, floating: SNNGraph, split: Split, ours: ChipRun, theirs: ChipRun | None) -> None:
    """Write the spikes of one sample: `<layer>.<side>` (T, *shape) of each layer that the networks have in common, `sample`, `y`.

    Args:
        path: the `.npz`.
        sample: its index in the split.
        floating: the network that the integers were made of; runs here by Norse's cells.
        split: in the form that `floating` takes.
        ours, theirs: integers on our simulator and on Lava (None: they did not run there), spikes recorded, the first samples
            of the split.
    """
    from spear_deploy.norse_backend import run_on_norse as run

    x = np.moveaxis(split.take(np.array([sample])).x, 0, 1).astype(np.float32)
    norse = run(floating, x, kind=split.kind, record=("spikes",))
    arrays: dict[str, Array] = {"sample": np.array(sample), "y": np.array(split.y[sample])}
    for name, spikes in ours.spikes.items():
        if name in norse.spikes and norse.spikes[name][:, 0].size == spikes[:, sample].size:
            sides = [norse.spikes[name][:, 0], spikes[:, sample]]
            sides += [] if theirs is None else [theirs.spikes[name][:, sample]]
            arrays |= {f"{name}.{side}": kept for side, kept in zip(SIDES, sides, strict=False)}
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **arrays)
