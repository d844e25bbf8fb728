"""Large networks with random weights: VGG16, ResNet18, rows of maps, recurrent layers, full and sparse.

Weights are float32 with He's standard deviation, so that spikes reach the last layer; a seed fixes all numbers.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from spear_deploy.network import IF, LI, AvgPool, BatchNorm, Conv2d, Dense, Flatten, Layer, SparseMatrix, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain

VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")
"""Channels of the convolutions, and where windows of 2 x 2 are summed (Simonyan and Zisserman 2014, table 1, column D)."""


def random_conv(rng: np.random.Generator, outputs: int, inputs: int, kernel: int, stride: int = 1) -> Conv2d:
    """Return a convolution with padding to the same size."""
    std = np.float32(np.sqrt(2 / (inputs * kernel * kernel)))
    weight = rng.standard_normal((outputs, inputs, kernel, kernel), dtype=np.float32) * std
    return Conv2d(weight=weight, stride=stride, padding=kernel // 2)


def random_norm(rng: np.random.Generator, channels: int) -> BatchNorm:
    """Return a batch norm with running statistics of about 0 and 1."""
    return BatchNorm(
        weight=rng.uniform(0.5, 1.5, channels).astype(np.float32),
        bias=rng.uniform(-0.1, 0.1, channels).astype(np.float32),
        mean=rng.uniform(-0.1, 0.1, channels).astype(np.float32),
        var=rng.uniform(0.5, 1.5, channels).astype(np.float32),
    )


def vgg16(*, width: float = 1.0, norm: bool = False, classes: int = 10) -> SNNGraph:
    """Return VGG16 for 3 x 32 x 32 inputs: 14.7 M weights of convolutions and 0.5 M of dense layers at width 1."""
    rng = np.random.default_rng(16)
    layers: list[Layer] = []
    channels = 3
    for i, item in enumerate(VGG16):
        if item == "pool":
            layers.append(Layer(name=f"pool{i}", synapse=SumPool(kernel_size=2)))
            continue
        outputs = max(1, int(int(item) * width))
        batch_norm = random_norm(rng, outputs) if norm else None
        layers.append(Layer(name=f"conv{i}", synapse=random_conv(rng, outputs, channels, 3), norm=batch_norm, neuron=IF()))
        channels = outputs
    layers.append(Layer(name="flatten", synapse=Flatten()))
    for i, outputs in enumerate((max(1, int(512 * width)), max(1, int(512 * width)), classes)):
        std = np.float32(np.sqrt(2 / channels))
        weight = rng.standard_normal((outputs, channels), dtype=np.float32) * std
        layers.append(Layer(name=f"fc{i}", synapse=Dense(weight=weight), neuron=IF()))
        channels = outputs
    return chain(layers, input_shape=(3, 32, 32))


def resnet18(*, size: int = 224, width: float = 1.0, norm: bool = True, classes: int = 1000) -> SNNGraph:
    """Return ResNet18 for 3 x size x size inputs: 11.7 M weights at width 1. A block adds up currents."""
    rng = np.random.default_rng(18)
    layers: list[Layer] = []
    edges: list[Edge] = []

    def add(source: str, layer: Layer) -> str:
        layers.append(layer)
        edges.append(Edge(source=source, target=layer.name))
        return layer.name

    def conv(name: str, outputs: int, inputs: int, kernel: int, stride: int, *, spikes: bool = True) -> Layer:
        batch_norm = random_norm(rng, outputs) if norm else None
        synapse = random_conv(rng, outputs, inputs, kernel, stride)
        return Layer(name=name, synapse=synapse, norm=batch_norm, neuron=IF() if spikes else None)

    channels = max(1, int(64 * width))
    last = add(INPUT, conv("stem", channels, 3, 7, 2))
    last = add(last, Layer(name="pool", synapse=SumPool(kernel_size=3, stride=2, padding=1)))
    for stage in range(4):
        outputs = max(1, int(64 * 2**stage * width))
        for block in range(2):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            first = add(last, conv(f"{name}.conv1", outputs, channels, 3, stride))
            second = add(first, conv(f"{name}.conv2", outputs, outputs, 3, 1, spikes=False))
            skip = add(last, conv(f"{name}.skip", outputs, channels, 1, stride, spikes=False)) if stride == 2 else last
            layers.append(Layer(name=name, neuron=IF()))
            edges += [Edge(source=second, target=name), Edge(source=skip, target=name)]
            last, channels = name, outputs
    last = add(last, Layer(name="mean", synapse=AvgPool(kernel_size=size // 32)))
    weight = rng.standard_normal((classes, channels), dtype=np.float32) * np.float32(np.sqrt(2 / channels))
    add(last, Layer(name="fc", synapse=Dense(weight=weight), neuron=IF()))
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(3, size, size))


def line(depth: int, *, width: int = 8) -> SNNGraph:
    """Return dense integrate-and-fire layers in a row."""
    rng = np.random.default_rng(depth)
    layers = [
        Layer(name=f"l{i}", synapse=Dense(weight=rng.standard_normal((width, width), dtype=np.float32)), neuron=IF())
        for i in range(depth)
    ]
    return chain(layers, input_shape=(width,))


def skipped(blocks: int, *, width: int = 8) -> SNNGraph:
    """Return blocks whose currents are summed and never spike themselves: each neuron layer reads all weights before it."""
    rng = np.random.default_rng(blocks)

    def weights() -> Dense:
        return Dense(weight=rng.standard_normal((width, width), dtype=np.float32))

    layers, edges = [Layer(name="s0", synapse=weights())], [Edge(source=INPUT, target="s0")]
    for i in range(blocks):
        layers += [Layer(name=f"n{i}", neuron=IF()), Layer(name=f"w{i}", synapse=weights()), Layer(name=f"s{i + 1}")]
        edges += [Edge(source=f"s{i}", target=f"n{i}"), Edge(source=f"n{i}", target=f"w{i}")]
        edges += [Edge(source=f"w{i}", target=f"s{i + 1}"), Edge(source=f"s{i}", target=f"s{i + 1}")]
    layers.append(Layer(name="last", neuron=IF()))
    return SNNGraph(layers=tuple(layers), edges=(*edges, Edge(source=f"s{blocks}", target="last")), input_shape=(width,))


def recurrent(neurons: int, *, inputs: int = 16) -> SNNGraph:
    """Return `neurons` integrate-and-fire neurons with weights between all pairs: neurons² synapses over an edge of delay 1."""
    rng = np.random.default_rng(neurons)
    into = rng.standard_normal((neurons, inputs), dtype=np.float32)
    among = rng.standard_normal((neurons, neurons), dtype=np.float32)
    among *= np.float32(1 / np.sqrt(neurons))
    among.setflags(write=False)  # the layer takes it without a copy
    layers = (
        Layer(name="into", synapse=Dense(weight=into)),
        Layer(name="among", synapse=Dense(weight=among)),
        Layer(name="neurons", neuron=IF()),
        Layer(name="readout", synapse=Dense(weight=rng.standard_normal((4, neurons), dtype=np.float32)), neuron=LI(tau_s=1e-2)),
    )
    edges = (
        Edge(source=INPUT, target="into"),
        Edge(source="into", target="neurons"),
        Edge(source="among", target="neurons"),
        Edge(source="neurons", target="among", delay=1),
        Edge(source="neurons", target="readout"),
    )
    return SNNGraph(layers=layers, edges=edges, input_shape=(inputs,))


def sparse_recurrent(neurons: int, *, inputs: int = 16, share: float = 0.01) -> SNNGraph:
    """Return `recurrent` with weights between a share of all pairs, held as a sparse matrix."""
    rng = np.random.default_rng(neurons)
    places = np.unique(rng.integers(0, neurons**2, round(share * neurons**2)))
    starts = np.searchsorted(places, np.arange(neurons + 1) * neurons)
    numbers = rng.standard_normal(len(places), dtype=np.float32) * np.float32(1 / np.sqrt(share * neurons))
    among = SparseMatrix(data=numbers, indices=(places % neurons).astype(np.int32), indptr=starts, shape=(neurons, neurons))
    graph = recurrent(4, inputs=inputs)
    into, readout = rng.standard_normal((neurons, inputs), dtype=np.float32), rng.standard_normal((4, neurons), dtype=np.float32)
    changed = {"into": into, "among": among, "readout": readout}
    layers = {name: replace(graph[name], synapse=Dense(weight=weight)) for name, weight in changed.items()}
    return graph.with_layers(layers)


def maps(side: int, *, channels: int = 32, depth: int = 4) -> SNNGraph:
    """Return `depth` convolutions of 3 x 3 in a row over maps of side x side: about 9 * channels² * side² synapses each."""
    rng = np.random.default_rng(side)
    sizes = [2, *[channels] * depth]
    layers = [
        Layer(name=f"conv{i}", synapse=random_conv(rng, outputs, inputs, 3), neuron=IF())
        for i, (inputs, outputs) in enumerate(pairwise(sizes))
    ]
    return chain(layers, input_shape=(2, side, side))
