"""Random networks whose layers read any others, and their synapses as unit impulses show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network import IF, AvgPool, Conv1d, Conv2d, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.placement.place import CoreSlice, Placement


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way from neurons to a layer: which synapses exist and which a list with zeros holds, bool (targets, sources)."""

    source: str
    delays: tuple[int, int]
    exists: np.ndarray
    stored: np.ndarray
    signed: bool


def _send(synapse: Any, x: np.ndarray, *, full: bool) -> np.ndarray:
    """Count the ways of unit impulses (impulses, *shape) through a synapse, position by position."""
    if synapse is None:
        return x
    weight = getattr(synapse, "weight", None)
    mask = None if weight is None else (np.ones if full else np.asarray)(weight.shape if full else weight != 0).astype(int)
    if isinstance(synapse, Flatten):
        return x.reshape(len(x), -1)
    if isinstance(synapse, Dense):
        return x.reshape(len(x), -1) @ mask.T
    if isinstance(synapse, Scale):
        return x * mask
    is_pool = isinstance(synapse, (SumPool, AvgPool))
    y = np.zeros((len(x), *synapse.output_shape(x.shape[1:])), int)
    kernel = synapse.kernel_size if is_pool else weight.shape[2:]
    dilation = (1,) * len(kernel) if is_pool else synapse.dilation
    for here, tap in product(np.ndindex(y.shape[2:]), np.ndindex(*kernel)):
        there = [
            o * s + t * d - p
            for o, t, s, d, p in zip(here, tap, synapse.stride or kernel, dilation, synapse.padding, strict=True)
        ]
        if not all(0 <= n < size for n, size in zip(there, x.shape[2:], strict=True)):
            continue
        values = x[(..., *there)]
        if is_pool:
            y[(..., *here)] += values
            continue
        out, into = len(weight) // synapse.groups, weight.shape[1]
        for g in range(synapse.groups):
            rows = slice(g * out, (g + 1) * out)
            y[(slice(None), rows, *here)] += values[:, g * into : (g + 1) * into] @ mask[(rows, slice(None), *tap)].T
    return y


def list_ways(graph: SNNGraph, name: str) -> Iterator[tuple[str, int, tuple[Layer, ...]]]:
    """Yield the ways to a layer from neurons or the input: source, delay of the edges, layers up to it."""
    for edge in graph.edges_into(name):
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            yield edge.source, edge.delay, (graph[name],)
        else:
            for source, delay, layers in list_ways(graph, edge.source):
                yield source, delay + edge.delay, (*layers, graph[name])


def find_ways(graph: SNNGraph, name: str) -> list[Way]:
    """Return the ways to a layer of neurons: delays with steps, and on a chip without them."""
    depths, ways = graph.depths, []
    depth = depths[name] + (graph[name].neuron is None)
    for source, delay, layers in list_ways(graph, name):
        size = int(np.prod(graph.shape_of(source)))
        found = []
        for full in (False, True):
            x = np.eye(size, dtype=int).reshape(size, *graph.shape_of(source))
            for layer in layers:
                x = _send(layer.synapse, x, full=full)
            found.append(x.reshape(size, -1).T > 0)
        weights = [layer.synapse.weight for layer in layers if hasattr(layer.synapse, "weight")]
        is_loop = depths[source] >= depth and graph.leads_to(name, source)
        delays = (depth - depths[source] + delay - 1, max(0, delay - is_loop))
        signed = bool(weights) and bool((weights[-1] < 0).any())
        ways.append(Way(source=source, delays=delays, exists=found[0], stored=found[1], signed=signed))
    return ways


def draw_graph(rng: np.random.Generator) -> SNNGraph:
    """Return layers that read any others, through one layer of weights on each way, with pools, sums, skips and loops."""
    while True:
        try:
            return _draw_once(rng)
        except (GraphError, ValueError):  # a kernel or window that is too large for its map
            continue


def _draw_once(rng: np.random.Generator) -> SNNGraph:
    dims = int(rng.integers(0, 3))
    shapes = {INPUT: (int(rng.integers(1, 5)), *(int(n) for n in rng.integers(2, 7, dims)))}
    layers: list[Layer] = []
    edges, weighted = set(), {INPUT: False}

    def few(*shape: int) -> np.ndarray:
        weight = np.abs(rng.normal(size=shape)) if rng.random() < 0.3 else rng.normal(size=shape)
        weight *= rng.random(shape) < rng.choice([0.4, 0.8, 1.0])
        weight.flat[0] = 1.0
        return weight

    for k in range(int(rng.integers(2, 7))):
        names = list(shapes)
        source = names[int(rng.integers(max(0, len(names) - 3), len(names)))]
        shape = shapes[source]
        rank = len(shape) - 1
        kernel, stride, padding = ([int(n) for n in rng.integers(low, high, rank)] for low, high in ((1, 4), (1, 3), (0, 2)))
        is_pool = rank > 0 and rng.random() < 0.3
        if is_pool:
            stride = stride if rng.random() < 0.5 else kernel
            synapse: Any = rng.choice([SumPool, AvgPool])(
                kernel_size=tuple(kernel),
                stride=tuple(stride),
                padding=tuple(p * (n > 1) for p, n in zip(padding, kernel, strict=True)),
            )
        elif weighted[source] or rng.random() < 0.1:
            synapse = None
        elif rng.random() < 0.2:
            synapse = Scale(weight=rng.uniform(0.5, 2, shape))
        elif rank and rng.random() < 0.7:
            groups = int(rng.choice([g for g in (1, 1, 2, shape[0]) if shape[0] % g == 0]))
            outputs, dilation = groups * int(rng.integers(1, 4)), tuple(int(n) for n in rng.choice([1, 1, 2], rank))
            synapse = (Conv1d if rank == 1 else Conv2d)(
                weight=few(outputs, shape[0] // groups, *kernel), stride=tuple(stride), padding=tuple(padding), dilation=dilation,
                groups=groups,
            )  # fmt: skip
        else:
            synapse = Dense(weight=few(int(rng.integers(1, 9)), int(np.prod(shape))))
        has_weights = hasattr(synapse, "weight")
        sources = [source, *(n for n in names if n != source and shapes[n] == shape and not (weighted[n] and has_weights))][:2]
        spikes = rng.random() < (0.1 if is_pool else 0.7) or (synapse is None and rng.random() < 0.5)
        layer = Layer(name=f"l{k}", synapse=synapse, neuron=IF() if spikes else None)
        shapes[layer.name] = layer.output_shape(shape)
        weighted[layer.name] = not spikes and (has_weights or any(weighted[n] for n in sources))
        edges |= {Edge(source=name, target=layer.name, delay=int(rng.random() < 0.1)) for name in sources}
        layers.append(layer)
        if spikes and shapes[layer.name] == shape and rng.random() < 0.5:
            edges.add(Edge(source=layer.name, target=layer.name, delay=int(rng.integers(1, 4))))
    layers.append(Layer(name="end", neuron=IF()))
    edges.add(Edge(source=layers[-2].name, target="end"))
    if max(int(np.prod(shape)) for shape in shapes.values()) > 120:
        raise ValueError("too large for a quick test")
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shapes[INPUT], output="end")


def find_neurons(placement: Placement, part: CoreSlice) -> np.ndarray:
    """Return the numbers of the neurons of a slice in its layer."""
    shape = next(p.shape for p in placement.populations if p.name == part.layer)
    return np.arange(np.prod(shape)).reshape(shape)[tuple(slice(*along) for along in part.box)].reshape(-1)
