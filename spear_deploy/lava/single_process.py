"""A whole network as one Lava process.

Lava moves one message at a time between operating-system processes, some 50 µs each, and a graph of N layers has 2N + 1 of
them. Here the network is one process: in each of Lava's steps its process model (`worker/processes/network`) advances all
layers by many steps of the network, for all samples at once, by the exact integer kernels of `simulator.stepper`. There is no
schedule: within the process a spike arrives in the step that the graph says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.formats import check_weights, to_lava_parameters
from spear_deploy.lava.linear_maps import is_analogue
from spear_deploy.lava.plan import MAX_DELAY, check_loihi_neurons
from spear_deploy.lava.program import Pass, Program
from spear_deploy.network import CONVS, WEIGHTED, Array, Layer
from spear_deploy.network.graph import Edge, SNNGraph
from spear_deploy.simulator import ChipRun, InputKind, Record, Simulation, SpikeCounts

STEPS_PER_LAVA_STEP = 128
"""Network steps in one of Lava's steps: the 0.1 ms of a Lava step are then about a microsecond for each."""
SECONDS_PER_PRODUCT = 1e-10
SECONDS_PER_NEURON = 3e-8


def lower_to_single_process(graph: SNNGraph, x: Array, *, kind: InputKind, record: frozenset[Record], prefix: str) -> Program:
    """Return the program of one process for a network on an input (T, B, *shape).

    Args:
        graph, x, kind: the network, its input and the kind of the input.
        record: of "spikes", "v", "u", those to record.
        prefix: of the names of arrays and files, so that programs can be joined.

    Raises:
        DataError: the input does not match, or what is recorded does not fit into memory.
        UnsupportedError: a parameter is outside Loihi's formats; names layer, value and range.
    """
    check_formats(graph)
    run = Simulation(graph, x, kind=kind, record=record, max_steps=STEPS_PER_LAVA_STEP)
    work = sum(_estimate_seconds(graph, layer) for layer in graph.layers) * run.steps * run.samples
    row: dict[str, Any] = {
        "name": "network",
        "kind": "network",
        "size": 0,
        "graph": f"{prefix}network.snn",
        "input": f"{prefix}input",
        "input_kind": kind,
        "record": sorted(record),
        "max_steps": STEPS_PER_LAVA_STEP,
        "prefix": prefix,
        "seconds_per_step": work / len(run),
    }
    single = Pass(steps=len(run), processes=(row,), connections=())
    return Program(passes=(single,), arrays={row["input"]: run.x}, networks={row["graph"]: graph})


def check_formats(graph: SNNGraph) -> None:
    """Refuse values that no chip of the family holds.

    Raises:
        UnsupportedError: names layer, value and range.
    """
    check_loihi_neurons(graph)
    for layer in graph.layers:
        if not is_analogue(graph, layer.name):
            check_weights(layer)
        if layer.neuron is not None:
            to_lava_parameters(layer, graph.shape_of(layer.name))
    for edge in graph.edges:
        if edge.delay > MAX_DELAY:
            raise UnsupportedError(
                f"edge '{edge.source}' -> '{edge.target}': a delay of {edge.delay} steps, a synapse holds {MAX_DELAY}; shorten it"
            )


def read_single_process(folder: Path, prefix: str, x: Array, kind: InputKind) -> ChipRun:
    """Read the files that the process wrote (see `worker/processes/network`) in a run on `x`."""
    written = json.loads((folder / f"{prefix}run.json").read_text(encoding="utf-8"))
    files: dict[str, dict[Any, Array]] = {what: {} for what in ("output", "spikes", "v", "u", "sent", "delivered")}
    for row in written["arrays"]:
        key = tuple(row["of"]) if row["what"] == "delivered" else row["of"]
        files[row["what"]][key] = np.load(folder / row["file"], allow_pickle=False)
    counts = SpikeCounts(
        sent=files["sent"],
        delivered={Edge(source=s, target=t, delay=d): count for (s, t, d), count in files["delivered"].items()},
        steps=x.shape[0],
        samples=x.shape[1],
        input_kind=kind,
    )
    kept = {what: files[what] for what in ("spikes", "v", "u")}
    return ChipRun(output=files["output"][""], **kept, counts=counts, overflows=written["overflows"])


def _estimate_seconds(graph: SNNGraph, layer: Layer) -> float:
    """Estimate the time of one step of one sample, in seconds."""
    products = layer.synapse.weight.size if isinstance(layer.synapse, WEIGHTED) else 0
    if isinstance(layer.synapse, CONVS):
        products *= int(np.prod(graph.shape_of(layer.name)[1:]))
    return SECONDS_PER_PRODUCT * products + SECONDS_PER_NEURON * int(np.prod(graph.shape_of(layer.name)))
