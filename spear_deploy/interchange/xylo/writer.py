"""Writing the integer arrays of a Xylo network.

An `.npz`, and JSON with the same numbers and where each layer lies."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from spear_deploy.interchange.xylo.arrays import XyloArrays, build_arrays
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.files import write_arrays

ROCKPOOL_MODULES = {
    "xylo_audio2": "rockpool.devices.xylo.syns61201",
    "xylo_audio3": "rockpool.devices.xylo.syns65302",
    "xylo_imu": "rockpool.devices.xylo.syns63300",
}
"""By profile, the module whose `config_from_specification` takes the arrays."""
ALL_READ = ("xylo_audio2",)
"""Chips whose outputs can read every hidden neuron."""


def write_xylo(graph: SNNGraph, path: str | os.PathLike[str], *, chip: str = "xylo_audio2") -> list[str]:
    """Write a network for a Xylo chip, whole or not at all.

    Args:
        graph: integers of the Xylo family.
        path: the `.npz`; it holds the arrays and `description`, what they mean, as JSON.
        chip: profile of the chip.

    Returns:
        What acts otherwise than in the network, one sentence each.

    Raises:
        UnsupportedError: what the chip's arrays cannot hold, by layer.
        FileError: the place is not writable.
    """
    built = build_arrays(graph, all_read=chip in ALL_READ)
    description = np.array(json.dumps(_describe(graph, built, chip), allow_nan=False))
    write_arrays(path, {**built.arrays, "description": description})
    return list(_list_notes(graph, built))


def _describe(graph: SNNGraph, built: XyloArrays, chip: str) -> dict[str, Any]:
    return {
        "format": "xylo",
        "version": 1,
        "chip": chip,
        "loader": f"{ROCKPOOL_MODULES.get(chip, 'rockpool.devices.xylo')}.config_from_specification",
        "dt_s": graph.dt_s,
        "input_shape": list(graph.input_shape),
        "output": built.output,
        "readout": built.readout,
        "hidden": {name: ids.tolist() for name, ids in built.hidden.items()},
        "offsets": dict(built.offsets),
        "quantization": {
            name: value
            for name, value in graph.metadata.get("quantization", {}).items()
            if name in ("scale", "offset", "input_scale")
        },
    }


def _list_notes(graph: SNNGraph, built: XyloArrays) -> list[str]:
    later = {name: offset for name, offset in built.offsets.items() if offset}
    notes = []
    if later:
        steps = ", ".join(f"'{name}' {offset}" for name, offset in later.items())
        notes.append(
            f"every connection between neurons takes a step on the chip: layers act later than in the network, in steps: {steps}"
        )
    neurons: dict[str, Any] = {name: graph[name].neuron for name in built.offsets}
    if any(neurons[name].bias.any() for name in later):
        for name, offset in built.offsets.items():
            if (early := neurons[name].early_steps) != offset:
                notes.append(
                    f"biases act before the first input of '{name}': {offset} steps on the chip, {early} in the network; "
                    "quantise anew, that sets early_steps"
                )
    if built.readout:
        notes.append(f"'{built.output}' has no threshold: it gets the highest one, and its potential is read out")
    return notes
