"""Plain data of cores and layers for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spear_deploy.budget.core_rows import RESOURCES, measure_core_use
from spear_deploy.budget.core_work import CoreWork
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import WEIGHTED
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.place import CoreSlice, Placement
from spear_deploy.training.evaluation import Evaluation


def describe_cores(placement: Placement, profile: HardwareProfile, work: CoreWork | None = None) -> dict[str, Any]:
    """Return chips, kinds of cores with their limits, and every core in use.

    Args:
        placement: of the network.
        profile: the chip.
        work: of the cores in a step; it is left out where cores serve several passes.

    Returns:
        `cores_per_chip` (None: not published, or no limit), `chips` there are, `passes`; `mesh` {columns, rows,
        cores_per_tile} or None; `layers` names; `kinds` [{name, count, limits {resource: number, "unlimited" or None}}], one
        without a name where all cores are alike; `units` by resource; `cores` [{pass, chip, place, kind, parts [[layer,
        box]], amounts}]: `place` is the number of the core on its chip, None if the chip has too few cores; layers and
        kinds as indices; `amounts` in the order of `resources`, None where a number is not known. With work, each core has
        `work` {synops, updates, messages_in, memory_reads} of a step, and `fullest` is the index of the core with most.
    """
    if placement.runs > 1 or placement.more_cores:
        work = None
    names = list(placement.layers)
    together: dict[tuple[int, int], list[CoreSlice]] = {}
    for part in placement.slices:
        together.setdefault((part.run, part.core), []).append(part)
    first = _first_cores(placement)
    number = {name: index for index, name in enumerate(names)}
    resources = [key for _, key in RESOURCES]
    cores = [
        {
            "pass": run,
            "chip": parts[0].chip,
            "place": parts[0].slot if parts[0].group is not None else parts[0].core - first[run, parts[0].chip],
            "kind": parts[0].group or 0,
            "parts": [[number[part.layer], [list(along) for along in part.box]] for part in parts],
            "amounts": [use.amounts[key] for key in resources],
            **({} if work is None else {"work": work.of_core(parts[0].core)}),
        }
        for ((run, _), parts), use in zip(together.items(), measure_core_use(placement), strict=True)
    ]
    return {
        "profile": profile.name,
        "title": profile.meta.title,
        "chips": placement.chips,
        "cores_per_chip": profile.chip.usable_cores.max_value,
        "passes": placement.runs,
        "mesh": _mesh(profile),
        "layers": names,
        "kinds": _kinds(profile),
        "resources": resources,
        "units": {key: profile.core_limits()[key].unit for key in resources},
        "memory_of": profile.synapse_memory.scope.value or "core",
        "fullest": None if work is None else [core for _, core in together].index(work.fullest),
        "work": None if work is None else work.sentence,
        "cores": cores,
    }


def _first_cores(placement: Placement) -> Mapping[tuple[int, int], int]:
    """Return the lowest core of each chip, by pass and chip."""
    lowest: dict[tuple[int, int], int] = {}
    for part in placement.slices:
        key = (part.run, part.chip)
        lowest[key] = min(part.core, lowest.get(key, part.core))
    return lowest


def _mesh(profile: HardwareProfile) -> dict[str, int] | None:
    shape = profile.topology
    sizes = {name: getattr(shape, name).max_value for name in ("mesh_columns", "mesh_rows", "cores_per_tile")}
    if None in sizes.values():
        return None
    return {name.removeprefix("mesh_"): size for name, size in sizes.items()}


def _kinds(profile: HardwareProfile) -> list[dict[str, Any]]:
    def limits(group: int | None) -> dict[str, Any]:
        return {key: leaf.value for key, leaf in profile.core_limits(group).items()}

    if not profile.core_groups:
        return [{"name": "", "count": profile.chip.usable_cores.max_value, "limits": limits(None)}]
    return [
        {"name": group.name, "count": group.count.max_value, "limits": limits(index)}
        for index, group in enumerate(profile.core_groups)
    ]


def describe_layers(graph: SNNGraph, evaluation: Evaluation) -> dict[str, Any]:
    """Return shape, weights, SynOps, spikes and rate of each layer of an evaluated network.

    Returns:
        {accuracy, synops, macs, steps, samples, input {name, shape, neurons, spikes, rate}, layers [{name, synapse, neuron,
        shape, neurons, weights, synops, spikes, rate}]}: `synops` and `spikes` per inference, mean over samples; `rate` in
        spikes per neuron and step; `weights` counts those that are not zero; None where a layer has none.
    """
    counts = evaluation.counts
    rates = counts.rates()

    def active(name: str) -> dict[str, Any]:
        shape = graph.shape_of(name)
        sent = counts.sent.get(name)
        total = None if sent is None else float(sent.sum()) / counts.samples
        neurons = int(np.prod(shape))
        rate = rates.get(name) if name != INPUT or total is None else total / (neurons * counts.steps)
        return {"name": name, "shape": list(shape), "neurons": neurons, "spikes": total, "rate": rate}

    def row(layer: Any) -> dict[str, Any]:
        weighted = isinstance(layer.synapse, WEIGHTED)
        return {
            **active(layer.name),
            "synapse": None if layer.synapse is None else type(layer.synapse).__name__,
            "neuron": None if layer.neuron is None else type(layer.neuron).__name__,
            "weights": int(np.count_nonzero(layer.synapse.weight)) if weighted else None,
            "synops": evaluation.synops.per_layer.get(layer.name),
        }

    return {
        "accuracy": evaluation.accuracy,
        "synops": evaluation.synops.total,
        "macs": evaluation.synops.macs_first_layer,
        "steps": counts.steps,
        "samples": counts.samples,
        "input_kind": counts.input_kind,
        "input": active(INPUT),
        "layers": [row(layer) for layer in graph.layers],
    }
