"""Bits by layer: a width of its own for each layer's weights, in integers, memory and files."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError, QuantizationError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.netx.weights import count_kept_bits
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, LI, LIF, Conv2d, Dense, Flatten, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.layer_bits import LAYER_BITS, read_layer_bits, state_layer_bits
from spear_deploy.pipeline.inputs import quantize_for_chip
from spear_deploy.placement.weight_bits import list_bits, signed_bits, stored_bits
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.quantize import quantize
from spear_deploy.quantize.network import list_layer_widths
from spear_deploy.quantize.rounding import find_learnt_scales, read_rounding, stands_for
from tests.support.akida_networks import network as akida_network
from tests.support.reference import random_spikes


def perceptron(seed: int = 0, sizes: tuple[int, ...] = (12, 20, 16, 4)) -> SNNGraph:
    rng = np.random.default_rng(seed)
    layers = [
        Layer(
            name=f"fc{number}", synapse=Dense(weight=rng.normal(0, 0.5, (after, before)).astype(np.float32)),
            neuron=LI(tau_s=4e-3) if after == sizes[-1] else LIF(tau_s=3e-3, reset="subtract"),
        )
        for number, (before, after) in enumerate(pairwise(sizes), 1)
    ]  # fmt: skip
    return chain(layers, input_shape=(sizes[0],))


def looped(seed: int = 0) -> SNNGraph:
    """Two sets of weights that drive the same neurons."""
    rng = np.random.default_rng(seed)
    layers = (
        Layer(name="into", synapse=Dense(weight=rng.normal(0, 0.5, (10, 6)))),
        Layer(name="loop", synapse=Dense(weight=rng.normal(0, 0.2, (10, 10)))),
        Layer(name="hidden", neuron=LIF(tau_s=3e-3)),
        Layer(name="out", synapse=Dense(weight=rng.normal(0, 0.5, (3, 10))), neuron=LI(tau_s=3e-3)),
    )
    edges = (
        Edge(source=INPUT, target="into"), Edge(source="hidden", target="loop", delay=1), Edge(source="into", target="hidden"),
        Edge(source="loop", target="hidden"), Edge(source="hidden", target="out"),
    )  # fmt: skip
    return SNNGraph(layers=layers, edges=edges, input_shape=(6,), output="out")


def convolution(seed: int = 0) -> SNNGraph:
    rng = np.random.default_rng(seed)
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(0, 0.5, (24, 2, 3, 3)), padding=(1, 1)), neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=rng.normal(0, 0.1, (3, 24 * 36))), neuron=IF()),
    ]
    return chain(layers, input_shape=(2, 6, 6))


def weights(graph: SNNGraph) -> dict[str, Any]:
    return {layer.name: layer.synapse.weight for layer in graph.layers if hasattr(layer.synapse, "weight")}  # type: ignore[union-attr]


def same(a: SNNGraph, b: SNNGraph) -> bool:
    stored = [
        (layer.name, getattr(layer.synapse, "weight", None), layer.neuron and repr(vars(layer.neuron))) for graph in (a, b)
        for layer in graph.layers
    ]  # fmt: skip
    half = len(stored) // 2
    return all(
        x[0] == y[0] and x[2] == y[2] and np.array_equal(x[1], y[1]) for x, y in zip(stored[:half], stored[half:], strict=True)
    )


GRAPHS = {"dense": perceptron, "loop": looped, "conv": convolution}


@pytest.mark.parametrize("on_data", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_width_in_every_layer_is_the_width_of_the_network(name, bits, on_data):
    """A width by layer that is that of all layers gives the integers of that width, with and without data."""
    graph = GRAPHS[name]()
    x = random_spikes(graph, 1) if on_data else None
    by_layer = quantize(graph, layer_bits=dict.fromkeys(weights(graph), bits), calibration=x)
    assert same(by_layer, quantize(graph, weight_bits=bits, calibration=x))


@pytest.mark.parametrize("on_data", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", GRAPHS)
def test_each_layer_holds_multiples_of_the_step_of_its_own_width(name, seed, on_data):
    graph, rng = GRAPHS[name](seed), np.random.default_rng(seed)
    bits = {layer: int(rng.choice([2, 3, 4, 5, 6, 8])) for layer in weights(graph)}
    x = random_spikes(graph, seed) if on_data else None
    integer = quantize(graph, layer_bits=bits, calibration=x)
    for layer, weight in weights(integer).items():
        step = 2 ** (9 - bits[layer])
        assert not (weight % step).any() and np.abs(weight).max() <= step * (2 ** (bits[layer] - 1) - 1)
        assert max(list_bits(weight), signed_bits(weight)) <= bits[layer]
        kept = count_kept_bits(np.unique(weight))
        assert kept <= bits[layer] or weight.ndim > 2  # what lava-dl keeps of the dense layers of a netx file
    assert read_layer_bits(integer) == bits
    measured = stored_bits(integer, load_profile("loihi2"))
    assert all(measured[layer] <= bits[layer] for layer in bits)


def test_layers_that_are_not_named_keep_their_integers():
    """Scales of a layer depend on its own weights alone without data, so that others do not change."""
    graph = perceptron()
    whole, narrow = quantize(graph), quantize(graph, layer_bits={"fc2": 3})
    assert [np.array_equal(a, b) for a, b in zip(weights(whole).values(), weights(narrow).values(), strict=True)] == [
        True, False, True,
    ]  # fmt: skip
    assert narrow.metadata["quantization"]["layer_bits"] == {"fc2": 3}
    assert "layer_bits" not in whole.metadata["quantization"] and LAYER_BITS not in whole.metadata


@pytest.mark.parametrize("graph", [looped(), convolution(), perceptron()], ids=["loop", "conv", "dense"])
def test_a_network_that_learnt_with_its_widths_quantises_to_the_integers_it_learnt_with(graph):
    bits = dict(zip(weights(graph), (3, 8, 4), strict=False))
    stating = state_layer_bits(graph, bits)
    integer = quantize(stating)
    learnt = read_rounding(stating, integer).graph
    assert find_learnt_scales(learnt, "loihi", 8, {name: n for name, n in bits.items() if n < 8})
    assert not find_learnt_scales(learnt, "loihi", 8) and stands_for(learnt, integer)
    assert same(quantize(learnt), integer)


def test_akida_rounds_each_layer_to_its_own_width():
    graph = akida_network(0)
    names = list(weights(graph))
    integer = quantize(graph, format="akida", layer_bits={names[0]: 2})
    largest = {name: np.abs(weight).max() for name, weight in weights(integer).items()}
    assert largest[names[0]] == 1 and all(1 < largest[name] <= 7 for name in names[1:])
    profile = load_profile("akd1000")
    costs = [build_chip_costs(state_layer_bits(graph, {names[0]: n}), profile) for n in (4, 2)]
    assert stored_bits(integer, profile)[names[0]] == 2 and stored_bits(graph, profile)[names[0]] == 4
    words = [sum(part.memory_words for part in each.place(tuple(g.channels for g in each.groups))[0].slices) for each in costs]
    assert words[1] < words[0]
    learnt = read_rounding(integer, quantize(state_layer_bits(graph, {names[0]: 2}), format="akida"))
    assert learnt.grids[names[0], "weight"].high == 1


@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
@pytest.mark.parametrize("name", GRAPHS)
def test_memory_is_that_of_the_widths_by_a_sum_over_lists(name, chip):
    """Words by the placement of floats that state widths, of their integers, and by the formulas of the chips on one core."""
    graph, profile = GRAPHS[name](), override_facts(load_profile(chip), {"core.synapse_memory": 10**7})
    bits = {layer: n for layer, n in zip(weights(graph), (4, 8, 3), strict=False)}
    stating = state_layer_bits(graph, bits)

    def words(network: SNNGraph) -> dict[str, int]:
        costs = build_chip_costs(network, profile)
        placement, _ = costs.place(tuple(group.channels for group in costs.groups))
        return {part.layer: part.memory_words for part in placement.slices}

    if name == "dense":

        def block(n: int, width: int) -> int:
            header, index = (10, 12) if chip == "loihi2" else (10, 0)
            return -(-(n * (width + index) + header) // 64)

        sizes = {"fc1": (12, 20), "fc2": (20, 16), "fc3": (16, 4)}
        expected = {layer: inputs * block(outputs, bits[layer]) for layer, (inputs, outputs) in sizes.items()}
        assert {layer: n for layer, n in words(stating).items() if layer in expected} == expected
    before, stated, integer = (sum(words(each).values()) for each in (graph, stating, quantize(stating)))
    assert integer <= stated < before


def test_a_width_that_a_chip_lacks_is_stored_in_the_next_one_it_has():
    graph = state_layer_bits(perceptron(), {"fc1": 7, "fc2": 3})
    assert stored_bits(graph, load_profile("loihi2")) == {"fc1": 8, "fc2": 3, "fc3": 8}
    assert stored_bits(graph, load_profile("speck2f")) == {"fc1": 8, "fc2": 8, "fc3": 8}
    integer = quantize_for_chip(graph, "loihi2")
    assert read_layer_bits(integer) == {"fc1": 8, "fc2": 3}
    xylo = quantize_for_chip(graph, "xylo_audio2")
    assert LAYER_BITS not in xylo.metadata and same(xylo, quantize_for_chip(perceptron(), "xylo_audio2"))
    report = check(graph, load_profile("loihi2"))
    used = {row.where: row.used for row in report.rows if row.resource == "weight_bits"}
    assert used == {"fc1": 8, "fc2": 3, "fc3": 8}


def test_files_keep_the_widths(tmp_path):
    graph = state_layer_bits(perceptron(), {"fc2": 4})
    for network in (graph, quantize(graph)):
        write_snn(network, tmp_path / "a.snn")
        assert read_layer_bits(read_snn(tmp_path / "a.snn")) == {"fc2": 4}


@pytest.mark.parametrize(
    ("stated", "match"),
    [
        ({"fc2": 1}, "metadata 'layer_bits', layer 'fc2': 1 given, expected a whole number of bits from 2 to 32; correct the"),
        ({"fc2": "4"}, "metadata 'layer_bits', layer 'fc2': '4' given, expected a whole number"),
        ({"fc2": True}, "metadata 'layer_bits', layer 'fc2': True given"),
        ([4], "metadata 'layer_bits': list given, expected bits by layer; remove the key"),
    ],
)
def test_damaged_widths_are_refused_by_name(stated, match):
    graph = perceptron()
    damaged = replace(graph, metadata={LAYER_BITS: stated})
    for read in (read_layer_bits, quantize, lambda network: check(network, load_profile("loihi2"))):
        with pytest.raises(GraphError, match=match):
            read(damaged)


def test_wrong_widths_are_refused_by_layer():
    graph = perceptron()
    with pytest.raises(GraphError, match="bits: there is no layer 'fc9' with weights.*expected some of fc1, fc2, fc3"):
        quantize(graph, layer_bits={"fc9": 4})
    with pytest.raises(QuantizationError, match=r"layer 'fc1': weights of 9 bits, expected 2\.\.8; correct layer_bits"):
        quantize(graph, layer_bits={"fc1": 9})
    with pytest.raises(QuantizationError, match="layer_bits: all layers of the format xylo have weights of one width, those of"):
        quantize(graph, format="xylo", layer_bits={"fc1": 4})


def test_widths_of_layers_that_are_gone_are_left_out():
    graph = replace(perceptron(), metadata={LAYER_BITS: {"fc2": 4, "gone": 3}})
    assert read_layer_bits(graph) == {"fc2": 4} and LAYER_BITS not in state_layer_bits(graph, {}).metadata


def test_widths_of_a_layer_are_those_of_chips_whose_layers_may_differ():
    loihi = load_profile("loihi2")
    assert list_layer_widths(loihi) == (2, 3, 4, 5, 6, 8)  # 1 bit has no integers
    assert list_layer_widths(override_facts(loihi, {"weights.default_bits": 4})) == (2, 3, 4)
    assert list_layer_widths(override_facts(loihi, {"weights.bits_by_layer": False})) == ()
    for name in ("speck2f", "xylo_audio3", "truenorth", "spinnaker1", "reckon", "generic45nm"):
        assert list_layer_widths(load_profile(name)) == ()
        unknown = override_facts(load_profile(name), {"weights.bits_by_layer": True})
        assert (list_layer_widths(unknown) == ()) == (name == "generic45nm"), name


def test_integers_list_the_layers_that_have_fewer_bits_than_the_others():
    integers = quantize(perceptron(), layer_bits={"fc1": 8, "fc2": 4})
    assert integers.metadata["quantization"]["layer_bits"] == {"fc2": 4}
    assert read_layer_bits(integers) == {"fc1": 8, "fc2": 4}
