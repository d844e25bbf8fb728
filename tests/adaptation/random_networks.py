"""Random networks whose sums round in no order: weights are small multiples of 1/8, time constants powers of two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    Scale,
    SumPool,
)
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.simulator import simulate

DT_S = 1e-3
STEPS, SAMPLES = 6, 3


def eighths(rng: np.random.Generator, shape: Any, low: int = -6, high: int = 8) -> np.ndarray:
    """Return multiples of 1/8 with zeros among them."""
    return rng.integers(low, high + 1, shape) / 8


def random_neuron(rng: np.random.Generator, shape: tuple[int, ...], models: tuple[type, ...] = (IF, LIF, CubaLIF)) -> Any:
    """Return a neuron with parameters for all, one per channel, or one per neuron."""
    model = models[rng.integers(len(models))]
    sizes = [(), (shape[0], *(1 for _ in shape[1:])), shape]
    threshold = 0.5 + rng.integers(1, 8, sizes[rng.integers(3)]) / 4
    reset: Any = ("value", "subtract")[rng.integers(2)]
    if model is IF:
        return IF(v_threshold=threshold, reset=reset)
    tau = DT_S * 2.0 ** rng.integers(0, 3)
    leak = np.asarray(rng.integers(-2, 3) / 8)
    if model is LIF:
        return LIF(tau_s=tau, v_threshold=threshold, v_leak=leak, reset=reset)
    return CubaLIF(tau_mem_s=tau, tau_syn_s=DT_S * 2.0 ** rng.integers(0, 2), v_threshold=threshold, reset=reset)


def random_norm(rng: np.random.Generator, channels: int) -> BatchNorm | None:
    """Return a batch norm whose gain is a power of two, or None."""
    if rng.integers(2):
        return None
    gain = 2.0 ** rng.integers(-1, 2, channels) * rng.choice([-1, 1], channels)
    return BatchNorm(
        weight=gain, bias=eighths(rng, channels), mean=eighths(rng, channels), var=4.0 ** rng.integers(-1, 2, channels), eps=0.0
    )


def random_conv(rng: np.random.Generator, shape: tuple[int, ...], *, plain: bool = False) -> Any:
    """Return a convolution that takes maps of a shape."""
    axes = len(shape) - 1
    outputs = 2 * int(rng.integers(1, 3))
    groups = 1 if plain or shape[0] % 2 else int(rng.integers(1, 3))
    kernel = tuple(int(rng.integers(1, min(4, size + 1))) for size in shape[1:])
    dilation = (
        (1,) * axes
        if plain
        else tuple(int(rng.integers(1, 3)) if 2 * (k - 1) < size else 1 for k, size in zip(kernel, shape[1:], strict=True))
    )
    stride = (1,) * axes if plain else tuple(int(rng.integers(1, 3)) for _ in range(axes))
    padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    kind: Any = Conv1d if axes == 1 else Conv2d
    return kind(
        weight=eighths(rng, (outputs, shape[0] // groups, *kernel)), bias=eighths(rng, outputs) if rng.integers(2) else None,
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip


def random_pool(rng: np.random.Generator, axes: int, kinds: tuple[type, ...] = (AvgPool, SumPool)) -> Any:
    """Return a pool of two or four positions along each axis."""
    return kinds[rng.integers(len(kinds))](kernel_size=(2,) * axes)


def random_map_network(
    seed: int, *, axes: int = 2, plain: bool = False, norms: bool = True, models: tuple[type, ...] = (IF, LIF, CubaLIF)
) -> SNNGraph:
    """Return convolution, pool, convolution with a loop or a skip, flatten, dense readout."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 3)), *(int(rng.integers(7, 10)) for _ in range(axes)))
    input_shape = shape
    layers: list[Layer] = []
    edges: list[Edge] = []
    source = INPUT

    def add(name: str, **parts: Any) -> tuple[int, ...]:
        nonlocal source, shape
        layer = Layer(name=name, **parts)
        after = layer.output_shape(shape)
        layers.append(layer)
        edges.append(Edge(source=source, target=name, delay=int(rng.integers(2))))
        source, shape = name, after
        return after

    for index in (1, 2):
        conv = random_conv(rng, shape, plain=plain)
        after = conv.output_shape(shape)
        norm = random_norm(rng, after[0]) if norms else None
        add(f"conv{index}", synapse=conv, norm=norm, neuron=random_neuron(rng, after, models))
        if min(shape[1:]) >= 2:
            add(f"pool{index}", synapse=random_pool(rng, axes))
    if rng.integers(2) and not plain:  # a loop from the last map onto the neurons that made it
        last = next(layer for layer in reversed(layers) if layer.name.startswith("conv"))
        conv: Any = last.synapse
        loop = Layer(name="loop", synapse=Scale(weight=eighths(rng, (len(conv.weight), *(1 for _ in range(axes))))))
        before = Layer(name=f"{last.name}.sum", synapse=None, neuron=last.neuron)
        layers[layers.index(last)] = replace(last, neuron=None)
        layers += [loop, before]
        edges = [replace(e, source=before.name) if e.source == last.name else e for e in edges]
        source = before.name if source == last.name else source
        edges += [
            Edge(source=last.name, target=before.name), Edge(source=before.name, target="loop", delay=1),
            Edge(source="loop", target=before.name),
        ]  # fmt: skip
    if rng.integers(2):
        add("flat", synapse=Flatten())
    inputs = int(np.prod(shape))
    tau = DT_S * 2.0 ** rng.integers(0, 3)
    add("readout", synapse=Dense(weight=eighths(rng, (3, inputs)), bias=eighths(rng, 3)), neuron=LI(tau_s=tau))
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=input_shape, dt_s=DT_S, output="readout")


def count_differing_spikes(before: SNNGraph, after: SNNGraph, seed: int) -> int:
    """Run both on the same random spikes and count the spikes that differ, in all layers that both have, and outputs likewise."""
    rng = np.random.default_rng(seed)
    x = (rng.random((STEPS, SAMPLES, *before.input_shape)) < 0.4).astype(np.float32)
    runs = [simulate(graph, x, record=("spikes",)) for graph in (before, after)]
    names = [name for name in runs[0].spikes if name in runs[1].spikes]
    assert names, "no layer of neurons is in both networks"
    differing = sum(
        int((a.reshape(STEPS, SAMPLES, -1) != b.reshape(STEPS, SAMPLES, -1)).sum())
        for a, b in ((runs[0].spikes[name], runs[1].spikes[name]) for name in names)
        if a.size == b.size
    )
    outputs = [run.output.reshape(STEPS, SAMPLES, -1) for run in runs]
    return differing + int((outputs[0] != outputs[1]).sum())
