"""Needs of boxes at their places: of a map whose neurons stand in a row, beside dense weights onto the same neurons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, Flatten, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.placement.core_needs import Core, count_union
from spear_deploy.placement.place import place
from spear_deploy.placement.populations import find_populations
from tests.support.chips import matrix_onto, small_chip


def row_of_a_map(conv: Conv1d | Conv2d, shape: tuple[int, ...], dense_inputs: int = 4) -> SNNGraph:
    """A layer that reads a map through a convolution that is flattened, and some neurons through dense weights."""
    positions = [
        (n + 2 * pad - dilation * (k - 1) - 1) // stride + 1
        for n, k, pad, dilation, stride in zip(
            shape[1:], conv.weight.shape[2:], conv.padding, conv.dilation, conv.stride, strict=True
        )
    ]
    neurons = len(conv.weight) * int(np.prod(positions))
    layers = (
        Layer(name="map", neuron=IF()),
        Layer(name="mapflat", synapse=Flatten()),
        Layer(name="few", synapse=Dense(weight=np.ones((dense_inputs, int(np.prod(shape))))), neuron=IF()),
        Layer(name="conv", synapse=conv),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="dense", synapse=Dense(weight=np.ones((neurons, dense_inputs)))),
        Layer(name="row", neuron=IF()),
    )
    pairs = (INPUT, "map"), ("map", "mapflat"), ("mapflat", "few"), ("map", "conv"), ("conv", "flat"), ("few", "dense")
    edges = tuple(Edge(source=source, target=target) for source, target in (*pairs, ("flat", "row"), ("dense", "row")))
    return SNNGraph(layers=layers, edges=edges, input_shape=shape, output="row")


def draw_row(rng: np.random.Generator) -> SNNGraph:
    groups, channels, rank = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
    size = tuple(map(int, rng.integers(2, 4, rank)))
    weight = rng.uniform(0.5, 1, (groups * int(rng.integers(1, 3)), channels, *size))
    if rng.random() < 0.5:
        weight[rng.random(weight.shape) < 0.4] = 0
        weight.flat[0] = 1.0
    kind: Any = Conv1d if rank == 1 else Conv2d
    draw = [tuple(map(int, rng.integers(*ends, rank))) for ends in ((1, 3), (0, 2), (1, 3))]
    conv = kind(weight=weight, groups=groups, stride=draw[0], padding=draw[1], dilation=draw[2])
    length = 40 if rank == 1 else 12
    return row_of_a_map(conv, (groups * channels, *[length] * rank), dense_inputs=int(rng.integers(1, 5)))


def chip(rng: np.random.Generator, base: str) -> Any:
    values: dict[str, Any] = {"core__neurons": int(rng.integers(8, 60))}
    if base in ("truenorth", "odin", "brainscales2"):
        values["core__axons_in"] = int(rng.integers(20, 120))
    if base == "catalyst_n1":
        values["core__synapse_memory"] = int(rng.integers(100, 1000))
    return small_chip(base, **values)


@pytest.mark.parametrize("base", ["truenorth", "odin", "brainscales2", "spinnaker1", "catalyst_n1"])
@pytest.mark.parametrize("seed", range(12))
def test_neurons_of_a_map_in_a_row_need_what_their_places_read(base: str, seed: int) -> None:
    """Those at the border of the map read less: the needs of the first of equal pieces are not those of all."""
    rng = np.random.default_rng(seed)
    net, profile = draw_row(rng), chip(rng, base)
    placement, few = place(net, profile), len(net["few"].synapse.weight)
    exists = matrix_onto(net, "map", "flat")
    weight = net["conv"].synapse.weight
    stored = matrix_onto(net.with_layers({"conv": _fill(net)}), "map", "flat") if (weight == 0).any() else exists
    for part in placement.slices_of("row"):
        here = slice(*part.box[0])
        is_crossbar = base in ("truenorth", "odin", "brainscales2")
        axons = few + int((exists if is_crossbar else stored)[here].any(axis=0).sum())
        words = {"spinnaker1": 3 * axons + stored[here].sum(), "catalyst_n1": exists[here].sum()}
        words = {name: int(n + part.neurons * few) for name, n in words.items()}
        assert part.axons_in == axons and part.memory_words == words.get(base, axons * part.neurons)
        limits = profile.core_limits(None)
        one = max(few + int(row.sum()) for row in exists)
        if is_crossbar:
            assert part.axons_in <= max(limits["axons_in"].max_value or 0, one)


def _fill(net: SNNGraph) -> Layer:
    layer: Any = net["conv"]
    values = {**vars(layer.synapse), "weight": np.ones_like(layer.synapse.weight)}
    return Layer(name="conv", synapse=type(layer.synapse)(**values))


def test_a_core_without_room_for_neurons_in_the_middle_of_a_map_is_cut_further() -> None:
    """The first five of 12 rows of a map read six rows of the map in front, five in the middle read seven."""
    net = row_of_a_map(Conv2d(weight=np.ones((1, 4, 3, 3)), padding=(1, 1)), (4, 12, 12))
    placement, reads = place(net, load_profile("truenorth")), matrix_onto(net, "map", "flat")
    rows = [int(reads[slice(*part.box[0])].any(axis=0).sum()) + 4 for part in placement.slices_of("row")]
    assert [part.axons_in for part in placement.slices_of("row")] == rows and max(rows) <= 256
    over = [row.where for row in check(net, load_profile("truenorth"), remedies=False).over if row.resource == "axons_in"]
    assert over == ["few"]  # which reads all 576


def test_pieces_of_a_row_with_as_many_sources_share_those_alone_that_both_read() -> None:
    net = row_of_a_map(Conv1d(weight=np.ones((1, 1, 3))), (1, 22))
    row = next(p for p in find_populations(net) if p.name == "row")
    conv = next(p for p in row.projections if p.kind == "conv")
    core = Core(load_profile("truenorth"), {})
    sets = [core.find_axon_set(conv, (piece,)) for piece in ((0, 5), (5, 10), (10, 15))]
    assert [axons.count for axons in sets] == [7, 7, 7]
    assert count_union(sets[:2]) == 12 and count_union(sets[::2]) == 14 and count_union([sets[0], sets[0]]) == 7


def test_groups_that_a_share_in_the_middle_reads_more_of_are_measured() -> None:
    """Seven groups of 10 channels to 3: of shares of 5 the first reads two groups, the second three."""
    net = row_of_a_map(Conv1d(weight=np.ones((21, 10, 1)), groups=7), (70, 1))
    placement = place(net, small_chip("truenorth", core__axons_in=25, core__neurons=5))
    parts = placement.slices_of("row")
    assert [part.box for part in parts] == [((n, min(n + 4, 21)),) for n in range(0, 21, 4)]
    assert [part.axons_in for part in parts] == [24] * 5 + [14]
