"""Weights that the PyNN script lists and weights of SpiNNaker's integers: the same synapses, rounded alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.interchange.pynn.document import build_document
from spear_deploy.network import LIF, AvgPool, Conv1d, Conv2d, CubaLIF, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.spike_paths import find_spike_paths
from spear_deploy.quantize import quantize
from spear_deploy.quantize.explain.stages import build_stages
from spear_deploy.simulator import simulate
from spear_deploy.simulator.sign_sums import pack_signs, split_signs
from spear_deploy.simulator.synapse_math import apply_synapse, make_weigher
from tests.support.seeds import seeds


def random_network(seed: int) -> SNNGraph:
    """A convolution and a pool in both orders, often with overlapping windows, some padded, into neurons and a dense layer."""
    rng = np.random.default_rng(seed)
    dims = int(rng.integers(1, 3))
    size = (2, *(int(n) for n in rng.integers(22, 25, dims)))
    neuron: Any = LIF(tau_s=0.01, r=3.0) if seed % 2 else CubaLIF(tau_mem_s=0.01, tau_syn_s=0.004, w_in=3.0)

    def conv(channels: int, inputs: int) -> Any:
        groups = int(rng.choice([1, channels])) if channels == inputs else 1
        kernel = rng.integers(1, 4, dims)
        weight = rng.normal(size=(channels, inputs // groups, *kernel)).astype(np.float32)
        bias = None if rng.random() < 0.5 else (rng.normal(size=channels) / 4).astype(np.float32)
        kind: Any = Conv1d if dims == 1 else Conv2d
        options = {"stride": rng.integers(1, 3), "padding": rng.integers(0, 2), "dilation": rng.integers(1, 3), "groups": groups}
        return kind(weight=weight, bias=bias, **{name: int(value) for name, value in options.items()})

    def pool(largest: int = 3) -> Any:
        kernel = tuple(int(n) for n in rng.integers(1, largest + 1, dims))
        kind: Any = AvgPool if rng.random() < 0.5 else SumPool
        padding = tuple(min(int(rng.random() < 0.25), n // 2) for n in kernel)
        return kind(kernel_size=kernel, stride=tuple(int(rng.integers(1, n + 1)) for n in kernel), padding=padding)

    layers, edges, first = [Layer(name="c", synapse=conv(2, 2))], [], INPUT
    if rng.random() < 0.5:
        layers, edges, first = [Layer(name="q", synapse=pool()), *layers], [Edge(source=INPUT, target="q")], "q"
    edges.append(Edge(source=first, target="c"))
    last = "c"
    if rng.random() < 0.3:  # a second kernel beside the first, with the sum in front of the pool
        weight = rng.normal(size=layers[-1].synapse.weight.shape).astype(np.float32)  # type: ignore[union-attr]
        layers += [Layer(name="d", synapse=replace(layers[-1].synapse, weight=weight)), Layer(name="s")]  # type: ignore[type-var]
        edges += [Edge(source=first, target="d"), Edge(source="c", target="s"), Edge(source="d", target="s")]
        last = "s"
    layers += [Layer(name="p", synapse=pool(), neuron=neuron), Layer(name="r", synapse=pool(2))]
    edges += [Edge(source=last, target="p"), Edge(source="p", target="r", delay=int(rng.integers(0, 2)))]
    flat = int(np.prod(SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=size, output="r").shape_of("r")))
    dense = Dense(weight=rng.normal(size=(3, flat)).astype(np.float32))
    layers += [Layer(name="f", synapse=Flatten()), Layer(name="o", synapse=dense, neuron=neuron)]
    edges += [Edge(source="r", target="f"), Edge(source="f", target="o")]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=size, output="o")


def sum_by_sign(graph: SNNGraph, path: Any) -> tuple[Any, Any]:
    """Return what a spike of each source adds to the buffers of each sign: two arrays (sources, targets)."""
    shape = graph.shape_of(path.source)
    value = np.eye(int(np.prod(shape)), dtype=np.int64).reshape(-1, *shape)
    for layer in path.layers:
        packed = pack_signs(layer.synapse) if hasattr(layer.synapse, "weight") else layer.synapse
        value = make_weigher(packed, integer=hasattr(packed, "weight"))(value.reshape(-1, *graph.input_shape_of(layer.name)))
        value = np.asarray(value).astype(np.int64)
    flat = value.reshape(len(value), -1)
    return split_signs(flat)


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_the_synapses_of_the_script_are_rounded_to_those_of_the_integers(seed: int) -> None:
    graph = random_network(seed)
    description, arrays = build_document(graph, chip="spinnaker1")
    integer = quantize(graph, format="spinnaker")
    scales = integer.metadata["quantization"]["scale"]
    names = [row["name"] for row in description["populations"]]
    ways = [(k, row) for k, row in enumerate(description["projections"]) if row["source"] not in ("bias", "start")]
    paths = find_spike_paths(integer)
    assert len(ways) == len(paths)
    for (k, row), path in zip(ways, paths, strict=True):
        name = names[row["target"]]
        assert (path.target, path.source) == (name, names[row["source"]] if row["source"] != "input" else INPUT)
        source, target, weight = (arrays[f"projection{k}.{part}"] for part in ("source", "target", "weight"))
        population = description["populations"][row["target"]]
        unit = scales[name] / population["scale"]
        unit /= description["timestep_ms"] if population["cell"] == "IF_curr_delta" else 1.0
        neuron: Any = integer[name].neuron
        for sign, shift, stored in zip((1, -1), (neuron.exc_shift, neuron.inh_shift), sum_by_sign(integer, path), strict=True):
            listed = np.zeros(stored.shape)
            np.add.at(listed, (source, target), np.rint(np.maximum(sign * weight, 0) * unit / 2.0**shift))
            assert np.abs(stored - listed).max() == 0


@pytest.mark.parametrize("current", [False, True])
def test_a_kernel_in_front_of_an_overlapping_pool_sends_the_spikes_of_its_matrix(current: bool) -> None:
    neuron: Any = CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01, w_in=4.0) if current else LIF(tau_s=0.02, r=4.0)
    total = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        conv = Conv1d(weight=rng.normal(size=(2, 1, 3)).astype(np.float32))
        pool = Layer(name="n", synapse=SumPool(kernel_size=(2,), stride=(1,)), neuron=neuron)
        graph = chain([Layer(name="c", synapse=conv), pool], input_shape=(1, 12))
        unit = np.eye(12).reshape(12, 1, 12)
        weight = apply_synapse(pool.synapse, apply_synapse(conv, unit)).reshape(12, -1).T
        written = chain([Layer(name="n", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(1, 12))
        x = (rng.random((60, 4, 1, 12)) < 0.4).astype(np.float32)
        sent = [simulate(quantize(each, format="spinnaker"), x, record=("spikes",)).spikes["n"] for each in (graph, written)]
        total += int(sent[0].sum())
        np.testing.assert_array_equal(sent[0].reshape(sent[1].shape), sent[1])
    assert total > 10_000


def test_the_stages_of_an_explanation_have_the_synapses_of_the_integers() -> None:
    graph = random_network(1)
    integer = quantize(graph, format="spinnaker")
    assert len(integer.layers) < len(graph.layers)
    x = (np.random.default_rng(0).random((20, 2, *graph.input_shape)) < 0.4).astype(np.float32)
    stages = build_stages(graph, integer, x)
    sent = [simulate(stage.graph, stage.x, record=("spikes",), dtype=np.float64).spikes["p"] for stage in stages[:3]]
    assert sent[0].any()
    np.testing.assert_array_equal(sent[0], sent[2])
    assert [stage.name for stage in stages[3:]] == ["weights", "input", "thresholds", "biases", "decays", "integers"]
    names = {layer.name for layer in integer.layers}
    assert all({layer.name for layer in stage.graph.layers} == names for stage in stages[3:])


def test_a_pool_whose_border_differs_leaves_each_weight_a_synapse() -> None:
    conv = Conv1d(weight=np.array([[[0.5, 0.25, -0.5]]], np.float32), padding=1)
    pool = Layer(name="n", synapse=SumPool(kernel_size=(2,), stride=(1,), padding=(1,)), neuron=LIF(tau_s=0.01))
    graph = chain([Layer(name="c", synapse=conv), pool], input_shape=(1, 4))
    _, arrays = build_document(graph, chip="spinnaker1")
    pairs = list(zip(arrays["projection0.source"].tolist(), arrays["projection0.target"].tolist(), strict=True))
    assert len(pairs) == 2 * 10 and len(set(pairs)) == 14
    plain = replace(pool, synapse=SumPool(kernel_size=(2,), stride=(1,)))
    _, arrays = build_document(chain([Layer(name="c", synapse=conv), plain], input_shape=(1, 4)), chip="spinnaker1")
    pairs = list(zip(arrays["projection0.source"].tolist(), arrays["projection0.target"].tolist(), strict=True))
    assert len(pairs) == len(set(pairs)) == 10
