"""Small networks, chips and slow references for placement and budget tests."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from spear_deploy.hardware.profile import HardwareProfile, load_profile, override_facts
from spear_deploy.network import IF, POOLS, WEIGHTED, Conv2d, Dense, Flatten, LoihiLIF, SumPool
from spear_deploy.network.graph import INPUT, Layer, SNNGraph, chain
from spear_deploy.simulator import synapse_math


def conv(rng: np.random.Generator, o: int, i: int, k: int = 3, **geometry: Any) -> Conv2d:
    return Conv2d(weight=rng.normal(size=(o, i, k, k)).astype(np.float32), **geometry)


def dense_net(*widths: int, integer: int | None = None) -> SNNGraph:
    """Fully connected IF (or integer) layers fc1, fc2, ... of given widths; the first is the number of inputs."""
    neuron = IF() if integer is None else LoihiLIF(decay_u=4096, decay_v=0, v_threshold=10)
    layers = []
    for n, (i, o) in enumerate(pairwise(widths), start=1):
        weight = np.ones((o, i), np.float32) if integer is None else _full_range(o, i, integer)
        layers.append(Layer(name=f"fc{n}", synapse=Dense(weight=weight), neuron=neuron))
    return chain(layers, input_shape=(widths[0],))


def _full_range(o: int, i: int, bits: int) -> np.ndarray:
    """Signed weights that need exactly so many bits, as netx counts them."""
    weight = np.zeros((o, i), np.int64)
    weight.flat[::2], weight.flat[1::2] = 2 ** (bits - 1) - 1, -(2 ** (bits - 1)) + 1
    return weight


@lru_cache
def _loaded(name: str) -> HardwareProfile:
    return load_profile(name)


def small_chip(base: str = "loihi2", **values: Any) -> HardwareProfile:
    """A chip with other numbers; `core__neurons=8` stands for the key core.neurons."""
    return override_facts(_loaded(base), {key.replace("__", "."): value for key, value in values.items()})


def random_net(rng: np.random.Generator) -> SNNGraph:
    """A small convolutional network with pools, strides, padding and a dense end."""
    c, h, w = int(rng.integers(1, 4)), int(rng.integers(4, 10)), int(rng.integers(4, 10))
    layers = []
    shape = (c, h, w)
    for n in range(int(rng.integers(1, 3))):
        o, k = int(rng.integers(1, 7)), int(rng.integers(1, 4))
        geometry = {"stride": tuple(rng.integers(1, 3, 2)), "padding": tuple(rng.integers(0, 2, 2))}
        synapse = conv(rng, o, shape[0], k, **geometry)
        layers.append(Layer(name=f"conv{n}", synapse=synapse, neuron=IF()))
        shape = synapse.output_shape(shape)
        if rng.random() < 0.4 and min(shape[1:]) > 2:
            pool = SumPool(kernel_size=(2, 2))
            layers.append(Layer(name=f"pool{n}", synapse=pool))
            shape = pool.output_shape(shape)
        if min(shape[1:]) < 3:
            break
    layers.append(Layer(name="flat", synapse=Flatten()))
    outputs = int(rng.integers(1, 12))
    layers.append(Layer(name="fc", synapse=Dense(weight=rng.normal(size=(outputs, int(np.prod(shape))))), neuron=IF()))
    return chain(layers, input_shape=(c, h, w))


def matrix_onto(graph: SNNGraph, source: str, target: str) -> np.ndarray:
    """Existing synapses from each neuron of a source to each of a target, pools passed: bool (targets, sources)."""
    size = int(np.prod(graph.shape_of(source)))
    x = np.eye(size).reshape(size, *graph.shape_of(source))
    path, name = [], target
    while name != source:
        path.append(graph[name])
        name = graph.edges_into(name)[0].source
    for layer in reversed(path):
        synapse = layer.synapse
        if isinstance(synapse, POOLS):
            synapse = SumPool(kernel_size=synapse.kernel_size, stride=synapse.stride, padding=synapse.padding)
        elif isinstance(synapse, WEIGHTED):
            changes = {"weight": (synapse.weight != 0).astype(float), "bias": None}
            synapse = type(synapse)(**{**vars(synapse), **changes})
        x = synapse_math.apply_synapse(synapse, x)
    return x.reshape(size, -1).T > 0


def previous(graph: SNNGraph, name: str) -> str:
    """The population (or the input) in front of a layer of a chain."""
    source = graph.edges_into(name)[0].source
    while source != INPUT and graph[source].neuron is None:
        source = graph.edges_into(source)[0].source
    return source
