"""Rows of a check of random networks, recounted from single synapses and from the tables of weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from math import ceil, log2, prod
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import TOGETHER
from spear_deploy.hardware.profile import HardwareProfile, load_profile
from spear_deploy.network import CONVS, IF, WEIGHTED, Conv2d, Dense, Layer, Scale, SumPool, make_sparse
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.placement.place import Placement
from spear_deploy.quantize.shared_cells import ONE_CELL
from tests.support.chips import small_chip
from tests.support.single_synapses import Way, draw_graph, find_neurons, find_ways, list_ways

CHIPS = ("speck2f", "akd1000", "akd1500", "generic45nm", "spinnaker2", "xylo_imu", "brainscales2", "catalyst_n1")
COUNTED = (
    "neurons", "neuron_groups", "synapse_memory", "neuron_memory", "bias_memory", "destinations", "fan_out_cores", "fan_in",
    "fan_out", "fan_out_mean", "fan_out_remote", "input_channels", "output_channels", "input_reaches", "output_reads",
    "dense_layers", "dense_inputs", "input_map", "output_map", "channels", "delay",
)  # fmt: skip


def log2_up(n: int) -> int:
    return ceil(log2(n))


def change_layers(graph: SNNGraph, rng: np.random.Generator) -> SNNGraph:
    """Return the network with biases in some layers, and some dense weights kept as sparse ones."""
    layers = []
    for layer in graph.layers:
        if isinstance(layer.synapse, (Dense, *CONVS)) and rng.random() < 0.5:
            layer = replace(layer, synapse=replace(layer.synapse, bias=rng.normal(size=len(layer.synapse.weight))))
        if isinstance(layer.synapse, Dense) and rng.random() < 0.3:
            layer = replace(layer, synapse=replace(layer.synapse, weight=make_sparse(layer.synapse.weight)))
        layers.append(layer)
    return replace(graph, layers=tuple(layers))


def find_tables(graph: SNNGraph, name: str) -> dict[str, tuple[int, int, int | None]]:
    """Return the weights that a neuron layer holds, by layer: input channels, positions, outputs (None: one for each neuron)."""
    tables: dict[str, tuple[int, int, int | None]] = {}
    for _, _, layers in list_ways(graph, name):
        weighted = [layer for layer in layers if isinstance(layer.synapse, WEIGHTED)]
        layer = weighted[-1] if weighted else layers[-1]
        synapse, shape = layer.synapse, graph.input_shape_of(layer.name)
        if isinstance(synapse, CONVS):
            tables[layer.name] = synapse.weight.shape[1], prod(synapse.weight.shape[2:]), len(synapse.weight)
        elif isinstance(synapse, Dense):
            tables[layer.name] = shape[0], prod(shape[1:]), len(synapse.weight)
        else:
            is_even = not isinstance(synapse, Scale) or prod(shape[1:]) == 1
            tables[layer.name if weighted else name] = 1, 1, shape[0] if is_even else None
    return tables


def count_words(graph: SNNGraph, ways: list[Way], part: Any, here: np.ndarray, chip: HardwareProfile) -> int | None:
    memory = chip.synapse_memory
    exists = [way.exists[here] for way in ways]
    if memory.format.value is None:
        return None
    if chip.meta.family in ONE_CELL:
        exists = [*join_by_source(ways, [*exists]).values()]
    if memory.format.value == "word_per_weight":
        return sum(int(own.sum()) for own in exists)
    if memory.format.value == "crossbar":
        cells = [int(memory.cells_per_weight.value) if way.signed else 1 for way in ways]
        return len(here) * sum(int(own.any(axis=0).sum()) * n for own, n in zip(exists, cells, strict=True))
    total = 0
    for into, positions, outputs in find_tables(graph, part.layer).values():
        channels = part.box[0][1] - part.box[0][0]
        held = channels if outputs is not None else len(here)
        if memory.format.value == "pow2_kernel":
            total += into * 2 ** (log2_up(positions) + log2_up(held))
        else:
            bits = held * into * positions * int(chip.weights.default_bits.value or 0)
            total += ceil(bits / int(memory.word_bits.value or 0))
    return total


def join_by_source(ways: list[Way], marks: list[np.ndarray]) -> dict[str, np.ndarray]:
    joined: dict[str, np.ndarray] = {}
    for way, own in zip(ways, marks, strict=True):
        joined[way.source] = joined.get(way.source, False) | own
    return joined


def count_cores(
    graph: SNNGraph, placement: Placement, ways: Mapping[str, list[Way]], chip: HardwareProfile
) -> dict[tuple[str, str], int | None]:
    """Return what is used of the fullest core of the same layers."""
    is_speck = chip.synapse_memory.format.value == "pow2_kernel"
    cores: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for part in placement.slices:
        cores[part.run, part.core].append(part)
    used: dict[tuple[str, str], int | None] = {}
    for parts in cores.values():
        amounts: dict[str, int | None] = dict.fromkeys(("neurons", "synapse_memory", "neuron_memory", "bias_memory"), 0)
        amounts["neuron_groups"] = len({part.layer for part in parts})
        for part in parts:
            here = find_neurons(placement, part)
            sizes = [stop - start for start, stop in part.box]
            state = sizes[0] * prod(2 ** log2_up(n) for n in sizes[1:]) if is_speck else len(here)
            biased = any(
                getattr(layer.synapse, "bias", None) is not None
                for *_, layers in list_ways(graph, part.layer)
                for layer in layers
            )
            of_part = {
                "neurons": len(here),
                "synapse_memory": count_words(graph, ways[part.layer], part, here, chip),
                "neuron_memory": state,
                "bias_memory": sizes[0] if biased else 0,
            }
            for key, amount in of_part.items():
                before = amounts[key]
                amounts[key] = None if amount is None or before is None else before + amount
        where = TOGETHER.join(dict.fromkeys(part.layer for part in parts))
        for key, amount in amounts.items():
            used[key, where] = None if amount is None else max(used.get((key, where), 0) or 0, amount)
    return used


def count_connections(graph: SNNGraph, ways: Mapping[str, list[Way]], chip: HardwareProfile) -> dict[tuple[str, str], int]:
    """Return fan-in, fan-out, input, output and sizes of maps."""
    readout = any(group.role.value == "readout" for group in chip.core_groups)
    inner = [name for name in ways if not (readout and name == graph.output)]
    cells = chip.synapse_memory.cells_per_weight.max_value or 1
    used: dict[tuple[str, str], int] = {}
    fan_out = {name: np.zeros(prod(graph.shape_of(name)), int) for name in ways}
    read: set[tuple[str, int]] = set()
    reached = 0
    for name, own in ways.items():
        exists = [(way.source, way.exists, cells if way.signed else 1) for way in own]
        if chip.meta.family in ONE_CELL:
            exists = [(source, marks, 1) for source, marks in join_by_source(own, [way.exists for way in own]).items()]
        used["fan_in", name] = int(sum(marks.sum(axis=1) * n for _, marks, n in exists).max())
        for source, marks, _ in exists:
            if source != INPUT and name in inner:
                fan_out[source] += marks.sum(axis=0)
            if source != INPUT and source != graph.output and name == graph.output:
                read |= {(source, int(i)) for i in np.flatnonzero(marks.any(axis=0))}
        from_input = [marks.any(axis=1) for source, marks, _ in exists if source == INPUT]
        reached += int(np.any(from_input, axis=0).sum()) if from_input and name in inner else 0
        targets = {other for other, of_other in ways.items() if name in [way.source for way in of_other]}
        used["destinations", name] = used["fan_out_cores", name] = len(targets)
        is_async = chip.timing.mode.value == "async"
        used["delay", name] = max(0, *(way.delays[is_async] for way in own))
        used |= count_maps(graph, name)
    used |= {("fan_out", name): int(counts.max()) for name, counts in fan_out.items()}
    used["fan_out_mean", "chip"] = sum(int(counts.sum()) for counts in fan_out.values())
    used["destinations", INPUT] = sum(INPUT in [way.source for way in own] for own in ways.values())
    used["input_channels", INPUT] = prod(graph.input_shape)
    used["output_channels", graph.output] = prod(graph.shape_of(graph.output))
    used["input_reaches", INPUT], used["output_reads", graph.output] = reached, len(read)
    used["dense_layers", "chip"] = sum(any(is_dense(layers) for *_, layers in list_ways(graph, name)) for name in ways)
    return used


def is_dense(layers: tuple[Layer, ...]) -> bool:
    return any(isinstance(layer.synapse, Dense) for layer in layers)


def count_maps(graph: SNNGraph, name: str) -> dict[tuple[str, str], int]:
    """Return the largest sizes of the weights of a layer of neurons."""
    sizes: dict[tuple[str, str], int] = {}
    for _, _, layers in list_ways(graph, name):
        for layer in layers:
            before, after = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
            found: dict[str, int] = {}
            if isinstance(layer.synapse, Dense):
                found = {"dense_inputs": prod(before), "channels": max(before[0], after[0])}
            elif isinstance(layer.synapse, CONVS):
                found = {"input_map": max(before[1:]), "output_map": max(after[1:]), "channels": max(before[0], after[0])}
            for key, value in found.items():
                sizes[key, name] = max(sizes.get((key, name), 0), value)
    return sizes


def count_remote(graph: SNNGraph, placement: Placement, ways: Mapping[str, list[Way]]) -> dict[tuple[str, str], int]:
    """Return the synapses onto other cores than its own of the neuron of each layer that has most."""
    core_of = {name: np.zeros(prod(graph.shape_of(name)), int) for name in ways}
    for part in placement.slices:
        core_of[part.layer][find_neurons(placement, part)] = part.core
    remote = {name: np.zeros(len(cores), int) for name, cores in core_of.items()}
    for name, own in ways.items():
        for way in own:
            if way.source != INPUT:
                remote[way.source] += (way.exists & (core_of[name][:, None] != core_of[way.source])).sum(axis=0)
    return {("fan_out_remote", name): int(counts.max()) for name, counts in remote.items()}


@pytest.mark.parametrize("seed", range(8))
def test_rows_are_those_of_single_synapses(seed: int) -> None:
    rng = np.random.default_rng([seed, 11])
    graph = change_layers(draw_graph(rng), rng)
    ways = {layer.name: find_ways(graph, layer.name) for layer in graph.layers if layer.neuron is not None}
    for name in CHIPS:
        is_whole = name in ("speck2f", "xylo_imu", "generic45nm", "brainscales2")
        limits = {"core__neurons": int(rng.integers(2, 60)), "core__synapse_memory": int(rng.integers(30, 3000))}
        chip = load_profile(name) if is_whole else small_chip(name, **limits)
        report = check(graph, chip, remedies=False)
        if any(p.is_bound for population in report.placement.populations for p in (*population.projections, *population.merged)):
            continue  # zeros are not counted one by one
        used: dict[tuple[str, str], Any] = count_connections(graph, ways, chip) | count_cores(graph, report.placement, ways, chip)
        used |= count_remote(graph, report.placement, ways)
        if chip.meta.family in ONE_CELL and any(way.delays[0] for own in ways.values() for way in own):
            continue  # a chip without delays, which such a network does not fit
        for part in report.placement.slices:
            words = count_words(graph, ways[part.layer], part, find_neurons(report.placement, part), chip)
            assert part.memory_words == words, (name, part)
        rows = [row for row in report.rows if row.resource in COUNTED and row.status != "unchecked"]
        for row in rows:
            assert row.used == used[row.resource, row.where], (name, row)


@pytest.mark.parametrize(("name", "words"), [("speck2f", 8 * 2 ** (4 + 3)), ("akd1500", 8 * 72 // 2), ("generic45nm", 8 * 72)])
def test_a_table_of_weights_that_sources_of_two_depths_read_is_held_once(name: str, words: int) -> None:
    """3 x 3 from 8 to 8 channels behind a residual sum, whose skip has a step less to go."""
    layers = [
        Layer(name=key, synapse=Conv2d(weight=np.ones((8, 2 if key == "a" else 8, 3, 3)), padding=(1, 1)), neuron=IF())
        for key in "abc"
    ]
    edges = [Edge(source=s, target=t) for s, t in ((INPUT, "a"), ("a", "b"), ("a", "c"), ("b", "c"))]
    report = check(SNNGraph(layers=layers, edges=edges, input_shape=(2, 8, 8), output="c"), load_profile(name), remedies=False)
    assert [part.memory_words for part in report.placement.slices_of("c")] == [words]


def test_pools_side_by_side_in_front_of_one_convolution_lead_to_one_core() -> None:
    """3 pools of one layer, and a second layer: 2 cores, of which Speck's spikes may go to 2."""
    conv = Conv2d(weight=np.ones((2, 2, 1, 1)))
    layers = [Layer(name="a", synapse=conv, neuron=IF())]
    layers += [Layer(name=f"p{k}", synapse=SumPool(kernel_size=(2, 2))) for k in range(3)]
    layers += [Layer(name="b", synapse=conv, neuron=IF()), Layer(name="c", synapse=conv, neuron=IF())]
    edges = [Edge(source=INPUT, target="a"), Edge(source="a", target="c")]
    edges += [Edge(source=s, target=t) for k in range(3) for s, t in (("a", f"p{k}"), (f"p{k}", "b"))]
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2, 4, 4), output="b")
    rows = {(row.resource, row.where): row for row in check(graph, load_profile("speck2f"), remedies=False).rows}
    assert rows["fan_out_cores", "a"].used == 2 and rows["fan_out_cores", "a"].status == "ok"
